"""Values of sizes known only when they run, whose dimensions are not stored row-major."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

import fusible

_TEXT = """
<ir_version: 10, opset_import: ["" : 23]>
picked ({type}[n,3,8,8] x, bool[n] keep, {type}[5,3,3,3] w) => ({type}[m,5,6,6] y) {{
    k = Compress <axis = 0> (x, keep)
    r = Relu (k)
    c = Conv (r, w)
    q = Sigmoid (c)
    e = Exp (c)
    y = Mul (q, e)
}}
"""


def _feeds(dtype: type) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(4, 3, 8, 8)).astype(dtype), (rng.normal(size=(5, 3, 3, 3)) / 9).astype(dtype)
    return {"x": x, "keep": np.array([True, False, True, True]), "w": w}


@pytest.mark.parametrize("poison", [False, True])
@pytest.mark.parametrize("target", ["cpu", "triton-cpu"])
@pytest.mark.parametrize(("name", "dtype"), [("float", np.float32), ("float16", np.float16)])
def test_convolution_of_as_many_images_as_are_kept(name: str, dtype: type, target: str, poison: bool) -> None:
    model = onnx.parser.parse_model(_TEXT.format(type=name))
    executable, feeds = fusible.compile(model, target=target), _feeds(dtype)
    assert any(value.kind == "late" and value.order is not None for value in executable.plan.values)
    session = executable.session()
    session._poison = poison
    expected = fusible.compile(model, target="numpy").run(feeds)["y"]
    got = session.run(feeds)["y"]
    tolerance = 1e-5 if dtype == np.float32 else 4e-3
    assert got.shape == (3, 5, 6, 6) and np.allclose(got, expected, rtol=tolerance, atol=tolerance)
    assert np.array_equal(session.run(feeds)["y"], got)  # the memory's second use
