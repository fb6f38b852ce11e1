"""Products of bytes on the target cpu: the integers of NumPy to the bit, and what exporters write around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

import fusible
from fusible.passes.multiply_bytes import FAST_BYTES
from tests import oracle
from tests.tolerance import assert_close, assert_outputs_close

_HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'
RANDOM = np.random.default_rng(11)
W8, U8 = RANDOM.integers(-128, 128, (21, 40)).astype(np.int8), RANDOM.integers(0, 256, (21, 40)).astype(np.uint8)


def model(text: str, **constants: Any) -> onnx.ModelProto:
    made = onnx.parser.parse_model(_HEAD + text)
    made.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items())
    return made


def native(made: onnx.ModelProto, threads: int = 1, calls: int = 1) -> fusible.Executable:
    """Compiled; all is C, and so many steps are products of bytes."""
    exe = fusible.compile(made, target="cpu", options=fusible.Options(threads=threads))
    assert exe.report.host == ()
    assert sum("gemm_bytes_run" in text for text in exe.sources.values() for text in text.split("EXPORT")) == calls
    return exe


CASES: Mapping[str, tuple[np.dtype, dict[str, Any]]] = {
    "u8 by i8": (np.dtype(np.uint8), {"w": W8, "a": np.uint8(37), "b": np.int8(0)}),
    "i8 by i8": (np.dtype(np.int8), {"w": W8, "a": np.int8(-7), "b": np.int8(0)}),
    "u8 by u8 around 128": (np.dtype(np.uint8), {"w": U8, "a": np.uint8(0), "b": np.uint8(128)}),
    "u8 by u8 around 60": (np.dtype(np.uint8), {"w": U8, "a": np.uint8(3), "b": np.uint8(60)}),
    "i8 by u8, a zero point for each column": (
        np.dtype(np.int8), {"w": U8, "a": np.int8(3), "b": np.arange(40).astype(np.uint8)}
    ),
    "u8 by i8, a zero point for each column": (
        np.dtype(np.uint8), {"w": W8 // 2, "a": np.uint8(3), "b": np.arange(40).astype(np.int8)}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_integers(name: str) -> None:
    kind, constants = CASES[name]
    text = "g (u[n,21] x) => (int32[n,40] y) { y = MatMulInteger(x, w, a, b) }"
    made = model(text.replace("u[", f"{kind.name}["), **constants)
    reference = fusible.compile(made, target="numpy")
    for threads in (1, 3):
        exe = native(made, threads)
        for n in (0, 1, 4, 30):
            x = RANDOM.integers(np.iinfo(kind).min, np.iinfo(kind).max + 1, (n, 21)).astype(kind)
            np.testing.assert_array_equal(exe.run({"x": x})["y"], reference.run({"x": x})["y"])


def test_batches_and_vectors() -> None:
    for shape in ((2, 3, 21), (21,)):
        dims = ",".join(map(str, shape))
        made = model(f"g (uint8[{dims}] x) => (int32[?] y) {{ y = MatMulInteger(x, w, a) }}".replace("[?]", ""),
                     w=W8, a=np.uint8(9))  # fmt: skip
        x = RANDOM.integers(0, 256, shape).astype(np.uint8)
        np.testing.assert_array_equal(native(made).run({"x": x})["y"], (x.astype(int) - 9) @ W8.astype(int))


def test_dynamic_quantisation() -> None:
    made = model(
        """g (float[n,21] x) => (float[n,40] y) { q, s, z = DynamicQuantizeLinear(x) p = MatMulInteger(q, w, z, b)
        f = Cast<to = 1>(p) t = Mul(s, v) m = Mul(f, t) y = Add(m, c) }""",
        w=W8, b=np.int8(0), v=RANDOM.uniform(0.01, 0.02, 40).astype(np.float32), c=RANDOM.normal(size=40).astype("f"),
    )  # fmt: skip
    exe = native(made)
    for n in (1, 5, 33):
        feeds = {"x": RANDOM.normal(size=(n, 21)).astype(np.float32)}
        assert_outputs_close(exe.run(feeds), oracle.run(oracle.without_saturation(made), feeds))


_QDQ = {
    "matmul": ("m = MatMul(d, e)", W8, 1, False),
    "gemm": ("m = Gemm(d, e, c)", W8, 1, False),
    "transposed gemm": ("m = Gemm<transB = 1>(d, e, c)", np.ascontiguousarray(W8.T), 0, False),
    "one scale": ("m = MatMul(d, e)", W8, 1, True),
    "unsigned": ("m = MatMul(d, e)", U8, 1, True),
}


@pytest.mark.parametrize("name", _QDQ)
def test_dequantised_operands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared with the floats that the standard has multiplied."""
    monkeypatch.setattr("fusible.compiler.run_passes._VNNI", frozenset({"sse2", "sse4_2", "asimd"}))
    product, w, axis, single = _QDQ[name]
    scales = np.float32(0.02) if single else RANDOM.uniform(0.01, 0.02, 40).astype(np.float32)
    zeros = np.full(np.shape(scales), 0 if w.dtype == np.int8 else 140, w.dtype)
    made = model(
        f"""g (float[n,21] x) => (float[n,40] y) {{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        e = DequantizeLinear<axis = {axis}>(w, v, b) {product} y = Relu(m) }}""",
        w=w, v=scales, b=zeros, s=np.float32(0.03), z=np.uint8(120), c=RANDOM.normal(size=40).astype(np.float32),
    )  # fmt: skip
    exe, plain = native(made), fusible.compile(made, target="numpy")
    for n in (1, 6, 20):
        feeds = {"x": RANDOM.normal(size=(n, 21)).astype(np.float32)}
        assert_close(exe.run(feeds)["y"], plain.run(feeds)["y"], accumulation=21)


def test_processors_that_multiply_bytes_slowly_multiply_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusible.compiler.run_passes._VNNI", frozenset({"none"}))
    made = model(
        """g (float[4,21] x) => (float[4,40] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        e = DequantizeLinear(w, v, b) y = MatMul(d, e) }""",
        w=W8, v=np.float32(0.02), b=np.int8(0), s=np.float32(0.03), z=np.uint8(120),
    )  # fmt: skip
    native(made, calls=0)
    assert FAST_BYTES == "fast_bytes"


def test_what_has_no_kernel_says_why() -> None:
    made = model("g (uint8[4,21] x, int8[21,40] w) => (int32[4,40] y) { y = MatMulInteger(x, w) }")
    exe = fusible.compile(made, target="cpu")
    x = RANDOM.integers(0, 256, (4, 21)).astype(np.uint8)
    np.testing.assert_array_equal(exe.run({"x": x, "w": W8})["y"], x.astype(int) @ W8.astype(int))


@pytest.mark.parametrize(
    ("axis", "parameters", "calls"),
    [
        (1, {"v": RANDOM.uniform(0.1, 0.2, (1, 16)).astype(np.float32)}, 1),
        (1, {"v": RANDOM.uniform(0.1, 0.2, (16, 1)).astype(np.float32)}, 0),
        (0, {"v": np.array([0.1], np.float32), "b": np.arange(16).astype(np.int8)}, 0),
        (1, {"v": np.array([0.1], np.float32), "b": np.arange(16).astype(np.int8)}, 1),
    ],
)
def test_scales_and_zero_points_of_rows_are_not_those_of_columns(
    axis: int, parameters: dict[str, np.ndarray], calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusible.compiler.run_passes._VNNI", frozenset({"sse2", "sse4_2", "asimd"}))
    zero = ", b" if "b" in parameters else ""
    made = model(
        f"""g (uint8[n,16] x) => (float[n,16] y) {{ d = DequantizeLinear(x, s, z)
        e = DequantizeLinear<axis = {axis}>(w, v{zero}) y = MatMul(d, e) }}""",
        w=RANDOM.integers(-128, 128, (16, 16)).astype(np.int8), s=np.float32(0.1), z=np.uint8(3), **parameters,
    )  # fmt: skip
    x = RANDOM.integers(0, 256, (3, 16)).astype(np.uint8)
    exe, plain = native(made, calls=calls), fusible.compile(made, target="numpy")
    assert_close(exe.run({"x": x})["y"], plain.run({"x": x})["y"], accumulation=16)


@pytest.mark.parametrize("x", [[np.nan, 1], [-np.inf, 1], [np.inf, 1], [np.nan, np.nan], [0, 0], [-2, 3]])
def test_ranges_without_ends(x: list[float]) -> None:
    made = model("g (float[N] x) => (uint8[N] q, float s, uint8 z) { q, s, z = DynamicQuantizeLinear(x) }")
    feeds = {"x": np.asarray(x, np.float32)}
    expected = fusible.compile(made, target="numpy").run(feeds)
    for name, got in native(made, calls=0).run(feeds).items():
        np.testing.assert_array_equal(got, expected[name])
