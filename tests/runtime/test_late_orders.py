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


_READERS = """
<ir_version: 10, opset_import: ["" : 23]>
picked (float[n,3,8,8] x, bool[n] keep, float[5,3,3,3] w, bool c)
    => (float[m,5,6,6] y, int64[4,k] z, float[m,2,6,6] t) {
    p = Compress <axis = 0> (x, keep)
    v = Conv (p, w)
    y = If (c) <then_branch = one () => (float[m,5,6,6] a) { a = Relu (v) },
                else_branch = other () => (float[m,5,6,6] b) { b = Neg (v) }>
    z = NonZero (v)
    k2 = Constant <value_ints = [2]> ()
    t, i = TopK <axis = 1> (v, k2)
}
"""


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("target", ["cpu", "triton-cpu"])
def test_what_reads_them_besides_kernels_of_the_same_plan(target: str, taken: bool) -> None:
    """Branches, steps on the host, kernels that take them row by row."""
    model = onnx.parser.parse_model(_READERS)
    executable, feeds = fusible.compile(model, target=target), _feeds(np.float32) | {"c": np.array(taken)}
    assert any(value.kind == "late" and value.order is not None for value in executable.plan.values)
    session = executable.session()
    session._poison = True
    expected, got = fusible.compile(model, target="numpy").run(feeds), session.run(feeds)
    for name in ("y", "t"):
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got["z"], expected["z"])
