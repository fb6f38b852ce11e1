"""Options(precision="bf16") on the target cpu: which products are rounded, to what, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import fusible
from fusible.compiler.accuracy import compare_outputs, model_bound
from fusible.compiler.backends.cpu.precision import Products, notes_on, winograd_beats_bf16
from fusible.compiler.backends.cpu.windows import Geometry
from fusible.runtime.native.machine import instruction_sets
from tests.runtime import models
from tests.tolerance import assert_outputs_close

BF16 = fusible.Options(precision="bf16", threads=2)
_FLAGS = ("avx512f", "avx512_bf16")


def rounded(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Standard normal times `scale`, rounded to bf16, as float32."""
    values = np.random.default_rng([seed, *shape]).standard_normal(shape) * scale
    return values.astype(ml_dtypes.bfloat16).astype(np.float32)


def chains() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Kernels that round both operands, each once, on operands that bf16 holds; and the inputs.

    What stands between the convolutions of a chain copies its operand: weights of ones and zeros.
    """
    node = helper.make_node
    copy = {n: np.eye(n, dtype=np.float32).reshape(n, n, 1, 1) for n in (24, 13)}
    center = np.zeros((91, 1, 3, 3), np.float32)
    center[:, 0, 1, 1] = 1
    weights = {
        "product_w": rounded(39, 41), "bias": rounded(41, seed=7), "strided_w": rounded(33, 19, 3, 3),
        "grouped_w": rounded(24, 5, 3, 3), "sparse_w": rounded(9, 19, 1, 1), "copy24": copy[24], "copy13": copy[13],
        "center24": center[:24], "center91": center, "band_w": rounded(40, 24, 1, 1), "wide_w": rounded(91, 13, 1, 1),
        "planes_w": rounded(24, 3, 5, 4), "stem_w": rounded(91, 3, 3, 3), "low": np.float32(-2), "high": np.float32(6),
    }  # fmt: skip
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        node("MatMul", ["rows", "product_w"], ["product_0"]),
        node("Add", ["product_0", "bias"], ["product"]),
        node("Conv", ["image", "strided_w"], ["strided"], strides=[2, 2], **pads),
        node("Conv", ["groups", "grouped_w"], ["grouped"], group=3, dilations=[2, 1], pads=[2, 1, 2, 1]),
        node("Conv", ["image", "sparse_w"], ["sparse"], strides=[3, 2]),
        node("Conv", ["small", "copy24"], ["band_0"]),
        node("Conv", ["band_0", "center24"], ["band_1"], group=24, **pads),
        node("Clip", ["band_1", "low", "high"], ["band_2"]),
        node("Conv", ["band_2", "band_w"], ["band"]),
        node("Conv", ["large", "copy13"], ["ring_0"]),
        node("Conv", ["ring_0", "wide_w"], ["ring_1"]),
        node("Clip", ["ring_1", "low", "high"], ["ring_2"]),
        node("Conv", ["ring_2", "center91"], ["ring"], group=91, **pads),
        node("Conv", ["planes", "planes_w"], ["first"], strides=[2, 1], **pads),
        node("Conv", ["pixels", "stem_w"], ["stem_0"], strides=[2, 1], **pads),
        node("Clip", ["stem_0", "low", "high"], ["stem_1"]),
        node("Conv", ["stem_1", "center91"], ["stem"], group=91, **pads),
    ]
    given = {
        "rows": rounded(17, 39, seed=1), "image": rounded(2, 19, 11, 9, seed=3), "groups": rounded(1, 15, 7, 6, seed=4),
        "small": rounded(1, 24, 7, 7, seed=5), "large": rounded(1, 13, 54, 55, seed=6),
        "planes": rounded(2, 3, 18, 37, seed=8), "pixels": rounded(1, 3, 107, 56, seed=9),
    }  # fmt: skip
    outputs = ("product", "strided", "grouped", "sparse", "band", "ring", "first", "stem")
    return model(nodes, weights, given, outputs), given


def layers(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """y = gelu(x a) b."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("Gelu", ["p"], ["g"], name="gelu"),
        helper.make_node("MatMul", ["g", "b"], ["y"], name="second"),
    ]
    return model(nodes, weights, ROWS, ("y",))


def model(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], given: dict[str, np.ndarray], outputs: tuple[str, ...]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in given.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


ROWS = {"x": np.random.default_rng(8).standard_normal((7, 39), dtype=np.float32)}
WEIGHTS = {"a": rounded(39, 70) * np.float32(1.003), "b": rounded(70, 9) * np.float32(1.003)}


@pytest.fixture(scope="module")
def compiled() -> fusible.Executable:
    return fusible.compile(chains()[0], target="cpu", options=BF16)


def test_operands_that_bf16_holds_lose_nothing(compiled: fusible.Executable) -> None:
    proto, given = chains()
    kernels = " ".join(row["kernel"] for row in compiled.report.kernels)
    assert kernels.count("conv_clip_conv") == 3 and compiled.report.host == ()
    assert_outputs_close(compiled.run(given), fusible.compile(proto, target="numpy").run(given))


def test_operands_are_rounded(compiled: fusible.Executable) -> None:
    proto, given = chains()
    plain = {name: array * np.float32(1.003) for name, array in given.items()}
    got, reference = compiled.run(plain), fusible.compile(proto, target="numpy").run(plain)
    assert_outputs_close(got, reference, precision="bf16")
    assert not any(compare_outputs(reference, got, model_bound("fp32")).values())


def test_weights_take_half_the_bytes(compiled: fusible.Executable) -> None:
    packed = {c.size for c in compiled.constants if c.dtype == ml_dtypes.bfloat16}
    sizes = {40 * 48, 9 * 20 * 40, 3 * 9 * 6 * 8, 20 * 16, 24 * 24, 24 * 40, 14 * 16, 14 * 96, 3 * 6 * 4 * 24}
    sizes.add(3 * 4 * 3 * 96)  # the first layer of a chain, by planes
    assert sizes == packed


def test_the_report_counts(compiled: fusible.Executable) -> None:
    first, *rest = [note for note in compiled.report.notes if note.startswith("precision bf16: ")]
    assert first == (
        "precision bf16: 10 of 13 contractions multiply in bf16; "
        "in fp32: 3 (depthwise convolutions: each weight meets one channel)"
    )
    slow = "avx512_bf16" not in instruction_sets().split()
    assert len(rest) == slow and all("this processor has no AVX512_BF16" in note for note in rest)


def test_a_single_row_is_not_rounded() -> None:
    row = {"x": ROWS["x"][:1]}
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": rounded(39, 71)}, row, ("y",))
    exe = fusible.compile(proto, target="cpu", options=BF16)
    assert exe.report.notes[0] == "precision bf16: 1 of 1 contractions multiply in bf16"
    assert_outputs_close(exe.run(row), fusible.compile(proto, target="numpy").run(row))


def test_what_stays_in_fp32_is_said_by_number() -> None:
    products = Products.total([Products(2), Products(0, ("b", "a")), Products(1, ("b",))])
    assert notes_on(products)[0] == "precision bf16: 3 of 6 contractions multiply in bf16; in fp32: 2 (b), 1 (a)"
    assert notes_on(Products(1))[0] == "precision bf16: 1 of 1 contractions multiply in bf16"


def test_a_model_against_onnxruntime() -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = layers(WEIGHTS).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    expected = dict(zip(["y"], session.run(["y"], ROWS), strict=True))
    got = fusible.compile(layers(WEIGHTS), target="cpu", options=BF16).run(ROWS)
    assert_outputs_close(got, expected, precision="bf16")
    assert not compare_outputs(expected, got, model_bound("fp32"))["y"]


def test_artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exe = fusible.compile(layers(WEIGHTS), target="cpu", options=BF16)
    expected = exe.run(ROWS)["y"]
    exe.save(tmp_path / "here")
    again = fusible.load(tmp_path / "here")
    assert again.provenance["precision"] == "bf16"
    assert np.array_equal(again.run(ROWS)["y"], expected)
    monkeypatch.setattr("fusible.runtime.artifact.processor_key", lambda: "another processor")
    exe.save(tmp_path / "elsewhere")
    monkeypatch.undo()
    monkeypatch.setenv("FUSIBLE_CACHE_DIR", str(tmp_path / "empty"))
    assert np.array_equal(fusible.load(tmp_path / "elsewhere").run(ROWS)["y"], expected)


def test_a_processor_with_the_instructions_has_another_key(tmp_path: Path) -> None:
    texts = []
    for flags in (_FLAGS[:1], _FLAGS):
        (tmp_path / "cpuinfo").write_text(f"model name\t: one\nflags\t\t: {' '.join(flags)}\n")
        texts.append(instruction_sets(tmp_path / "cpuinfo"))
    assert texts[0] != texts[1] and "avx512_bf16" in texts[1]


@pytest.mark.parametrize(
    ("target", "precision", "others", "does"),
    [
        ("numpy", "bf16", "cpu and targets with Triton kernels", "fp32"),
        ("cpu", "fp16", "targets with Triton kernels", "fp32 and bf16"),
    ],
)
def test_what_a_target_does_not_compute_is_refused(target: str, precision: str, others: str, does: str) -> None:
    with pytest.raises(fusible.UsageError) as caught:
        fusible.compile(models.cache_step(), target, options=fusible.Options(precision=precision))  # type: ignore[arg-type]
    assert str(caught.value) == f"precision '{precision}' is for {others}; the target {target} computes {does}"


def geometry(channels: int, outputs: int, size: int) -> Geometry:
    return Geometry(
        False, 1, size, size, 1, channels, outputs, (3, 3), (1, 1), (1, 1), (1, 1), 0, channels, size, size, 0, (1, 2)
    )


@pytest.mark.parametrize(
    ("channels", "size", "m", "wins"),
    [(64, 56, 4, True), (128, 28, 4, True), (256, 14, 4, True), (512, 7, 2, False), (64, 7, 2, False)],
)
def test_winograd_stays_where_images_are_large(channels: int, size: int, m: int, wins: bool) -> None:
    assert winograd_beats_bf16(geometry(channels, channels, size), m) is wins
