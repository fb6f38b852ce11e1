"""Kernels that read along one axis and write along another: squares of which rows and columns change places."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

import fusible
from tests.fast_compiler import fast_compiler
from tests.tolerance import assert_outputs_close

HEADER = '<ir_version: 10, opset_import: ["": 21]>\n'
PERMUTATIONS = [
    ((33, 70), (1, 0)),
    ((2, 40, 9, 5), (0, 2, 3, 1)),
    ((2, 9, 8, 40), (0, 3, 1, 2)),
    ((9, 17, 2, 65), (3, 1, 2, 0)),
    ((1, 8, 130), (2, 0, 1)),
    ((64, 64), (1, 0)),
    ((0, 64, 10), (0, 2, 1)),
]


@pytest.fixture(scope="module", autouse=True)
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Kernels built with -O1, in a cache of their own."""
    folder = tmp_path_factory.mktemp("turned")
    with fast_compiler(folder, "-O1"):
        yield folder / "cache"


def compiled(nodes: str, compiler: Path, threads: int = 2) -> tuple[fusible.Executable, onnx.ModelProto]:
    model = onnx.parser.parse_model(f"{HEADER}g {nodes}")
    return fusible.compile(model, target="cpu", options=fusible.Options(threads=threads, cache_dir=compiler)), model


def text_of(exe: fusible.Executable) -> str:
    return "".join(text for name, text in exe.sources.items() if name.endswith(".c"))


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("shape", "order"), PERMUTATIONS)
def test_transposes(shape: tuple[int, ...], order: tuple[int, ...], known: bool, threads: int, compiler: Path) -> None:
    sizes = ", ".join(map(str, shape) if known else (f"d{n}" for n in range(len(shape))))
    nodes = f"(float[{sizes}] x) => (float y) {{ t = Transpose<perm = {list(order)}>(x) y = Neg(t) }}"
    exe, _ = compiled(nodes, compiler, threads)
    assert "vf_turn(turned" in text_of(exe) or 0 in shape
    x = numbers(*shape)
    np.testing.assert_array_equal(exe.run({"x": x})["y"], -x.transpose(order))


@pytest.mark.parametrize("name", ["float", "float16", "bfloat16"])
def test_operands_along_either_axis(name: str, compiler: Path) -> None:
    nodes = f"""(float[40, 70] a, float[70, 40] b, float[70] c, float[40] d) => (float y, float z) {{
        p = Cast<to = {onnx.TensorProto.DataType.Value(name.upper())}>(a) t = Transpose<perm = [1, 0]>(p)
        e = Cast<to = 1>(t) s = Add(e, b) u = Unsqueeze(c, one) y = Mul(s, u) z = Sub(y, d) }}"""
    nodes = nodes.replace("{", "<int64[1] one = {1}> {", 1)
    exe, model = compiled(nodes, compiler)
    feeds = {"a": numbers(40, 70), "b": numbers(70, 40), "c": numbers(70), "d": numbers(40)}
    session = exe.session()
    session._poison = True
    assert "vf_turn(turned" in text_of(exe)
    assert_outputs_close(session.run(feeds), fusible.compile(model, target="numpy").run(feeds))


@pytest.mark.parametrize("also", ["", ", float[n, 4, h, w] z"])
def test_images_that_leave_the_model_are_written_channels_last_and_copied(also: str, compiler: Path) -> None:
    """One that a further convolution reads, too."""
    nodes = f"""(float[n, 6, h, w] x, float[24, 6, 1, 1] v, float[4, 24, 3, 3] u) => (float y{also}) {{
        c = Conv(x, v) y = Relu(c) z = Conv<pads = [1, 1, 1, 1]>(y, u) }}"""
    exe, model = compiled(nodes, compiler)
    feeds = {"x": numbers(2, 6, 16, 16), "v": numbers(24, 6, 1, 1), "u": numbers(4, 24, 3, 3)}
    assert [step.kernel.split("_", 1)[1] for step in exe.plan.steps if "identity" in getattr(step, "kernel", "")]
    assert text_of(exe).count("vf_turn(turned") >= 1
    assert_outputs_close(exe.run(feeds), fusible.compile(model, target="numpy").run(feeds))
