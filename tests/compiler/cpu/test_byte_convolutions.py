"""Quantised convolutions on the target cpu: QDQ and QLinear forms against ONNX Runtime; what is a kernel of bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

import fusible
from tests import oracle
from tests.tolerance import assert_close

_HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'
RANDOM = np.random.default_rng(17)


@pytest.fixture(autouse=True)
def _fast_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the processor, bytes count as fast."""
    monkeypatch.setattr("fusible.compiler.run_passes._VNNI", frozenset({"sse2", "sse4_2", "asimd"}))


def model(text: str, **constants: Any) -> onnx.ModelProto:
    made = onnx.parser.parse_model(_HEAD + text)
    made.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items())
    return made


def native(made: onnx.ModelProto, threads: int = 1, calls: int = 1) -> fusible.Executable:
    """Compiled; all is C, and so many steps are convolutions of bytes."""
    exe = fusible.compile(made, target="cpu", options=fusible.Options(threads=threads))
    assert exe.report.host == ()
    assert sum("conv_bytes" in row["kernel"] for row in exe.report.kernels) == calls, exe.report.kernels
    return exe


def filters(outputs: int, channels: int, *kernel: int, kind: type = np.int8) -> np.ndarray:
    info = np.iinfo(kind)
    return RANDOM.integers(info.min, info.max + 1, (outputs, channels, *kernel)).astype(kind)


def within_a_step(got: np.ndarray, expected: np.ndarray) -> None:
    """Bytes differ by one at most, and in few places: ONNX Runtime and we round sums that are equal."""
    difference = np.abs(got.astype(int) - expected.astype(int))
    assert difference.max(initial=0) <= 1 and np.mean(difference != 0) < 0.01


# image, filters, attributes, type and zero point of the image
QDQ: dict[str, tuple[tuple[int, ...], np.ndarray, str, Any]] = {
    "3x3": ((2, 16, 9, 7), filters(24, 16, 3, 3), "pads = [1, 1, 1, 1]", np.uint8(114)),
    "strided": ((1, 21, 8, 9), filters(33, 21, 3, 2), "pads = [0, 1, 1, 0], strides = [2, 1]", np.uint8(7)),
    "signed": ((1, 12, 6, 5), filters(8, 12, 3, 3), "pads = [1, 1, 1, 1]", np.int8(-128)),
    "signed, a zero point within": ((1, 12, 6, 5), filters(8, 12, 3, 3), "pads = [1, 1, 1, 1]", np.int8(-3)),
    "1x1": ((1, 40, 6, 5), filters(64, 40, 1, 1), "pads = [0, 0, 0, 0]", np.uint8(0)),
    "groups": ((1, 32, 5, 5), filters(48, 8, 3, 3), "pads = [1, 1, 1, 1], group = 4", np.uint8(128)),
    "dilated": ((1, 8, 9, 9), filters(16, 8, 3, 3), "pads = [2, 2, 2, 2], dilations = [2, 2]", np.uint8(55)),
}


@pytest.mark.parametrize("name", QDQ)
def test_dequantised_convolutions(name: str) -> None:
    """conv -> relu -> quantise between two convolutions that need their images in bytes."""
    shape, w, sizes, zero = QDQ[name]
    outputs, kind = w.shape[0], zero.dtype.name
    channels = shape[1]
    made = model(
        f"""g (float[n,{channels},h,w] x) => ({kind}[n,{outputs},hh,ww] y) {{
        q0 = QuantizeLinear(x, s, z) d0 = DequantizeLinear(q0, s, z)
        e0 = DequantizeLinear(f0, t0, z0) c0 = Conv(d0, e0, b0)
        q1 = QuantizeLinear(c0, s1, z) d1 = DequantizeLinear(q1, s1, z)
        e1 = DequantizeLinear<axis = 0>(f1, t1, z1) c1 = Conv<{sizes}>(d1, e1, b1) r = Relu(c1)
        y = QuantizeLinear(r, s2, z) }}""",
        s=np.float32(0.03), z=zero, s1=np.float32(0.05), s2=np.float32(0.11),
        f0=filters(channels, channels, 1, 1), t0=np.float32(0.004), z0=np.int8(0),
        b0=RANDOM.normal(size=channels).astype("f"),
        f1=w, t1=RANDOM.uniform(0.001, 0.002, outputs).astype("f"), z1=np.zeros(outputs, np.int8),
        b1=RANDOM.normal(size=outputs).astype("f"),
    )  # fmt: skip
    for threads in (1, 2):
        exe = native(made, threads, calls=2)
        for images, height, width in ((shape[0], *shape[2:]), (3, 11, 13)):
            feeds = {"x": RANDOM.normal(size=(images, channels, height, width)).astype(np.float32) * 3}
            within_a_step(exe.run(feeds)["y"], oracle.run(made, feeds)["y"])


def test_signed_images_are_quantised_without_sign() -> None:
    """No pass over an image turns its bits: it is quantised to uint8, for all its readers."""
    made = model(
        """g (float[1,16,8,8] x) => (float[1,16,8,8] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        e = DequantizeLinear(f, t) c = Conv(d, e) y = Add(c, d) }""",
        s=np.float32(0.03), z=np.int8(-4), f=filters(16, 16, 1, 1), t=np.float32(0.004),
    )  # fmt: skip
    exe = native(made)
    assert exe.report.kernels[0]["kernel"].endswith("_quantize_linear")
    feeds = {"x": RANDOM.normal(size=(1, 16, 8, 8)).astype(np.float32)}
    assert_close(exe.run(feeds)["y"], fusible.compile(made, target="numpy").run(feeds)["y"], accumulation=16)


QLINEAR = {
    "with a bias": (
        filters(24, 16, 3, 3), "pads = [1, 1, 1, 1]", np.uint8(131), {"b": RANDOM.integers(-9999, 9999, 24)}
    ),
    "without": (filters(24, 16, 2, 3), "pads = [1, 0, 1, 2], strides = [2, 2]", np.uint8(131), {}),
    "signed": (filters(24, 16, 3, 3), "pads = [1, 1, 1, 1]", np.int8(-20), {"b": RANDOM.integers(-9999, 9999, 24)}),
    "depthwise": (filters(16, 1, 3, 3), "pads = [1, 1, 1, 1], group = 16", np.uint8(131), {"b": np.arange(16)}),
    "filters of uint8 around 128": (
        filters(24, 16, 3, 3, kind=np.uint8), "pads = [1, 1, 1, 1]", np.uint8(3), {"v": np.uint8(128)}
    ),
    "filters of uint8 around 9": (
        filters(24, 16, 3, 3, kind=np.uint8), "pads = [1, 1, 1, 1]", np.uint8(3), {"v": np.uint8(9)}
    ),
}  # fmt: skip


def test_a_bias_that_is_computed() -> None:
    made = model(
        """g (uint8[1,16,6,7] x, int32[24] b) => (uint8[1,24,6,7] y) {
        y = QLinearConv<pads = [1, 1, 1, 1]>(x, s, z, f, t, v, u, z, b) }""",
        s=np.float32(0.02), z=np.uint8(9), f=filters(24, 16, 3, 3), t=np.float32(0.002), v=np.int8(0),
        u=np.float32(0.4),
    )  # fmt: skip
    feeds = {
        "x": RANDOM.integers(0, 256, (1, 16, 6, 7)).astype(np.uint8),
        "b": RANDOM.integers(-9999, 9999, 24).astype(np.int32),
    }
    within_a_step(native(made).run(feeds)["y"], fusible.compile(made, target="numpy").run(feeds)["y"])


@pytest.mark.parametrize(
    ("text", "outputs", "calls"),
    [("a, o = Split<axis = 1, num_outputs = 2>(x)", 24, 1), ("a, o = Split<axis = 1, num_outputs = 2>(x)", 1, 0)],
)
def test_parts_of_an_input_and_single_filters_are_kernels(text: str, outputs: int, calls: int) -> None:
    made = model(
        f"""g (uint8[1,32,16,16] x) => (uint8[1,{outputs},16,16] y) {{ {text} d = DequantizeLinear(a, s, z)
        e = DequantizeLinear(f, t) c = Conv<pads = [1, 1, 1, 1]>(d, e) y = QuantizeLinear(c, u, z) }}""",
        s=np.float32(0.02), z=np.uint8(9), f=filters(outputs, 16, 3, 3), t=np.float32(0.002), u=np.float32(0.4),
    )  # fmt: skip
    exe = fusible.compile(made, target="cpu")
    assert not any(row["op"].startswith("conv") for row in exe.report.host)
    assert sum("conv_bytes" in row["kernel"] for row in exe.report.kernels) == calls
    feeds = {"x": RANDOM.integers(0, 256, (1, 32, 16, 16)).astype(np.uint8)}
    within_a_step(exe.run(feeds)["y"], oracle.run(made, feeds)["y"])


@pytest.mark.parametrize("name", QLINEAR)
def test_qlinear_convolutions(name: str) -> None:
    w, sizes, zero, more = QLINEAR[name]
    kind, outputs = zero.dtype.name, w.shape[0]
    bias = more.get("b")
    made = model(
        f"""g ({kind}[n,16,h,w] x) => ({kind}[n,{outputs},hh,ww] y) {{
        y = QLinearConv<{sizes}>(x, s, z, f, t, v, u, z{", b" if bias is not None else ""}) }}""",
        s=np.float32(0.02), z=zero, f=w, t=RANDOM.uniform(0.001, 0.003, outputs).astype("f") if "v" not in more else
        np.float32(0.002), v=more.get("v", np.zeros(outputs, np.int8)), u=np.float32(0.4),
        **({} if bias is None else {"b": bias.astype(np.int32)}),
    )  # fmt: skip
    bytes_ = name not in ("depthwise", "filters of uint8 around 9")
    exe = native(made, threads=2, calls=int(bytes_))
    reference = fusible.compile(made, target="numpy")
    for shape in ((1, 16, 6, 7), (2, 16, 15, 9)):
        info = np.iinfo(zero.dtype)
        feeds = {"x": RANDOM.integers(info.min, info.max + 1, shape).astype(zero.dtype)}
        within_a_step(exe.run(feeds)["y"], reference.run(feeds)["y"])


def test_layers_that_differ_in_scales_share_a_function() -> None:
    layers = 5
    lines = ["q0 = QuantizeLinear(x, s0, z0)"]
    constants: dict[str, Any] = {"s0": np.float32(0.03), "z0": np.uint8(90)}
    for n in range(1, layers + 1):
        lines.append(f"d{n} = DequantizeLinear(q{n - 1}, s{n - 1}, z{n - 1}) e{n} = DequantizeLinear(f{n}, t{n})")
        lines.append(f"c{n} = Conv(d{n}, e{n}, b{n}) q{n} = QuantizeLinear(c{n}, s{n}, z{n})")
        constants |= {
            f"s{n}": np.float32(0.03 + 0.01 * n), f"z{n}": np.uint8(70 + n), f"f{n}": filters(16, 16, 1, 1),
            f"t{n}": np.float32(0.002 + 0.001 * n), f"b{n}": RANDOM.normal(size=16).astype("f"),
        }  # fmt: skip
    lines.append(f"y = DequantizeLinear(q{layers}, s{layers}, z{layers})")
    made = model("g (float[1,16,8,8] x) => (float[1,16,8,8] y) { " + " ".join(lines) + " }", **constants)
    exe = native(made, calls=layers)
    assert len({row["kernel"] for row in exe.report.kernels if "conv_bytes" in row["kernel"]}) <= 2
    feeds = {"x": RANDOM.normal(size=(1, 16, 8, 8)).astype(np.float32)}
    scale = constants[f"s{layers}"]
    difference = np.abs(exe.run(feeds)["y"] - oracle.run(made, feeds)["y"]) / scale
    assert difference.max() <= 2.001 and np.mean(difference > 0.01) < 0.01


def test_processors_that_multiply_bytes_slowly_multiply_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusible.compiler.run_passes._VNNI", frozenset({"none"}))
    shape, w, sizes, zero = QDQ["3x3"]
    made = model(
        f"""g (uint8[2,16,9,7] x) => (float[2,24,9,7] y) {{ d = DequantizeLinear(x, s, z) e = DequantizeLinear(f, t)
        y = Conv<{sizes}>(d, e) }}""", s=np.float32(0.03), z=zero, f=w, t=np.float32(0.01),
    )  # fmt: skip
    exe = fusible.compile(made, target="cpu")
    assert not any("conv_bytes" in row["kernel"] for row in exe.report.kernels)
    feeds = {"x": RANDOM.integers(0, 256, shape).astype(np.uint8)}
    assert_close(exe.run(feeds)["y"], fusible.compile(made, target="numpy").run(feeds)["y"], accumulation=144)


def test_divisions_that_quantise_nothing_stay_divisions() -> None:
    """To the last bit, the sign of zeros and the smallest numbers included."""
    made = model("g (float[n] x) => (float[n] y) { d = Div(x, s) y = Neg(d) }", s=np.float32(0.1))
    x = np.array([-0.0, 0.0, 1e-38, -3e-39, 7e-37, np.inf, -np.inf, np.nan, 3e38, 1.7] * 4, np.float32)
    with np.errstate(all="ignore"):
        expected = -(x / np.float32(0.1))
    got = fusible.compile(made, target="cpu").run({"x": x})["y"]
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(np.signbit(got[~np.isnan(x)]), np.signbit(expected[~np.isnan(x)]))


@pytest.mark.parametrize(
    ("text", "constants"),
    [
        ("d = DequantizeLinear(x, s, z) e = DequantizeLinear<axis = 1>(f, t)", {"t": np.full(16, 0.01, np.float32)}),
        ("d = DequantizeLinear<axis = 1>(x, v, u) e = DequantizeLinear(f, t)", {"t": np.float32(0.01)}),
        ("d = DequantizeLinear(x, s, zz) e = DequantizeLinear(f, t)", {"t": np.float32(0.01)}),
        ("d = DequantizeLinear(x, s, z) e = DequantizeLinear(ff, t)", {"t": np.float32(0.01)}),
    ],
)
def test_other_quantisations_stay_floats(text: str, constants: dict[str, Any]) -> None:
    """Scales along the channels that are summed, zero points and filters that are known only when it runs."""
    made = model(
        f"""g (uint8[1,16,6,6] x, uint8 zz, int8[16,16,3,3] ff) => (float[1,16,6,6] y) {{ {text}
        y = Conv<pads = [1, 1, 1, 1]>(d, e) }}""",
        s=np.float32(0.03), z=np.uint8(9), v=np.full(16, 0.02, np.float32), u=np.arange(16).astype(np.uint8),
        f=filters(16, 16, 3, 3), **constants,
    )  # fmt: skip
    exe = fusible.compile(made, target="cpu")
    assert not any("conv_bytes" in row["kernel"] for row in exe.report.kernels)
    x = RANDOM.integers(0, 256, (1, 16, 6, 6)).astype(np.uint8)
    feeds = {"x": x, "zz": np.asarray(100, np.uint8), "ff": filters(16, 16, 3, 3)}
    assert_close(exe.run(feeds)["y"], fusible.compile(made, target="numpy").run(feeds)["y"], accumulation=144)
