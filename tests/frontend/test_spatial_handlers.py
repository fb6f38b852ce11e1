"""Products, convolutions, pools, images, attention and signals at the opset versions that changed them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from fusible.compiler.ir.symbol_values import evaluate
from fusible.compiler.ir.types import TensorType
from fusible.errors import InvalidModel, UnsupportedOp
from tests.frontend.imported import evaluated, expected, imported, model_of
from tests.tolerance import assert_close

Attributes = dict[str, Any]
I64 = np.int64


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, I64)


def single(
    op: str, operands: Sequence[np.ndarray | None], outputs: int, opset: int, run_time: Sequence[int], **attributes: Any
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A model of one node whose operands `run_time` are inputs and whose others are constants."""
    names = ["" if x is None else f"x{k}" for k, x in enumerate(operands)]
    given = {name: x for name, x in zip(names, operands, strict=True) if x is not None}
    inputs = {f"x{k}": given[f"x{k}"] for k in run_time}
    constants = {name: x for name, x in given.items() if name not in inputs}
    results = [f"y{k}" for k in range(outputs)]
    node = helper.make_node(op, names, results, name="it", **attributes)
    return model_of([node], inputs, results, constants, opset=opset), inputs


def check(
    op: str, operands: Sequence[np.ndarray | None], opset: int, outputs: int = 1, run_time: Sequence[int] = (0,),
    **attributes: Any,
) -> None:  # fmt: skip
    """Fail unless the import computes what ONNX Runtime does."""
    model, inputs = single(op, operands, outputs, opset, run_time, **attributes)
    for got, reference in zip(evaluated(model, inputs), expected(model, inputs), strict=True):
        assert_close(got, reference, accumulation=4096)


@pytest.mark.parametrize("opset", [7, 9, 11, 13])
def test_gemm(opset: int) -> None:
    a, b, c = normal(3, 4), normal(5, 4, seed=1), normal(5, seed=2)
    check("Gemm", [a, b, c], opset, alpha=0.5, beta=2.0, transB=1)
    if opset >= 11:
        check("Gemm", [a, b.T.copy()], opset)


@pytest.mark.parametrize("opset", [1, 11, 22])
def test_convolutions(opset: int) -> None:
    x, w = normal(1, 4, 7, 6), normal(6, 2, 3, 3, seed=1)
    check("Conv", [x, w, normal(6)], opset, group=2, pads=[1, 0, 1, 2], strides=[2, 1], kernel_shape=[3, 3])
    check("Conv", [x, w], opset, run_time=[0, 1], group=2, auto_pad="SAME_UPPER", strides=[2, 2])
    check("ConvTranspose", [x, normal(4, 3, 3, 2)], opset, strides=[2, 3], output_padding=[1, 2], pads=[1, 0, 1, 1])
    check("ConvTranspose", [x, normal(4, 3, 3, 2)], opset, strides=[2, 3], output_shape=[14, 18])


@pytest.mark.parametrize("opset", [7, 10, 11, 12, 19, 22])
def test_pools(opset: int) -> None:
    x = normal(2, 3, 8, 7)
    attributes: Attributes = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}
    check("MaxPool", [x], opset, **attributes)
    check("AveragePool", [x], opset, count_include_pad=1, **attributes)
    check("MaxPool", [x], opset, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER")
    check("GlobalAveragePool", [x], opset)
    check("GlobalMaxPool", [x], opset)
    if opset >= 10:
        check("MaxPool", [x], opset, outputs=2, ceil_mode=1, dilations=[2, 1], storage_order=1, **attributes)
        check("AveragePool", [x], opset, ceil_mode=1, **attributes)
    if opset < 22:
        check("LpPool", [x], opset, p=3, **attributes)
        check("GlobalLpPool", [x], opset, p=1)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("run_time", [(0,), (0, 1)])
def test_upsample_and_resize_before_opset_11(mode: str, run_time: tuple[int, ...]) -> None:
    x, scales = normal(1, 2, 5, 4), floats(1, 1, 2, 1.5)
    check("Upsample", [x], 7, scales=[1.0, 1.0, 2.0, 1.5], mode=mode)
    check("Upsample", [x, scales], 9, run_time=run_time, mode=mode)
    check("Resize", [x, scales], 10, run_time=run_time, mode=mode)
    check("Resize", [x, floats(1, 1, 0.6, 0.5)], 10, run_time=run_time, mode=mode)


@pytest.mark.parametrize("opset", [11, 13, 18, 19])
@pytest.mark.parametrize("run_time", [False, True])
def test_resize(opset: int, run_time: bool) -> None:
    x, empty = normal(1, 2, 5, 4), floats()
    absent = empty if opset < 13 else None
    for mode in ("nearest", "linear", "cubic"):
        scales = [x, absent, floats(1, 1, 2, 1.5)]
        check("Resize", scales, opset, run_time=(0, 2) if run_time else (0,), mode=mode)
        sizes = [x, absent, absent, ints(1, 2, 7, 3)]
        coordinates = "asymmetric" if mode == "nearest" else "align_corners"
        check(
            "Resize", sizes, opset, run_time=(0, 3) if run_time else (0,), mode=mode,
            coordinate_transformation_mode=coordinates,
        )  # fmt: skip
        crop = [x, floats(0, 0, 0.1, 0, 1, 1, 0.9, 1), empty if opset < 13 else None, ints(1, 2, 4, 6)]
        check(
            "Resize", crop, opset, run_time=(0, 1) if run_time else (0,), mode=mode, extrapolation_value=3.0,
            coordinate_transformation_mode="tf_crop_and_resize",
        )  # fmt: skip
    if opset < 13:
        check("Resize", [x, empty, floats(1, 1, 2, 2)], opset, coordinate_transformation_mode="tf_half_pixel_for_nn")
    if opset >= 18:
        sizes = [x, None, None, ints(8, 9)]
        for policy in ("not_larger", "not_smaller"):
            check("Resize", sizes, opset, axes=[2, 3], keep_aspect_ratio_policy=policy, mode="linear")


def test_sampling_and_regions() -> None:
    x, grid = normal(1, 2, 5, 6), normal(1, 3, 4, 2)
    check("GridSample", [x, grid], 16, mode="bicubic", padding_mode="reflection", align_corners=1)
    check("GridSample", [x, grid], 20, mode="linear", padding_mode="border")
    rois, images = floats(0.5, 1, 4, 5, 2, 2, 3, 4.5).reshape(2, 4), ints(0, 0)
    for opset in (10, 16):
        check("RoiAlign", [x, rois, images], opset, run_time=(0, 1), output_height=2, output_width=3, mode="avg")
    check("AffineGrid", [normal(1, 2, 3), ints(1, 1, 3, 4)], 20, align_corners=1)
    check("AffineGrid", [normal(1, 2, 3), ints(1, 1, 3, 4)], 20, run_time=(0, 1))
    for opset in (1, 11, 13):
        check("DepthToSpace", [normal(1, 8, 2, 3)], opset, blocksize=2)
        check("SpaceToDepth", [normal(1, 2, 4, 6)], opset, blocksize=2)


def test_unpool() -> None:
    x = normal(1, 2, 2, 3)
    indices = np.arange(48).reshape(1, 2, 4, 6)[:, :, ::2, 1::2].astype(I64).copy()
    attributes: Attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
    check("MaxUnpool", [x, indices], 11, **attributes)
    shape = ints(1, 2, 4, 6)
    check("MaxUnpool", [x, indices, shape], 11, **attributes)
    check("MaxUnpool", [x, indices, shape], 11, run_time=(0, 1, 2), **attributes)


@pytest.mark.parametrize("run_time", [False, True])
def test_signals(run_time: bool) -> None:
    x = normal(2, 12, 1)
    check("DFT", [x, np.array(8, I64)], 17, run_time=(0, 1) if run_time else (0,), axis=1, onesided=1)
    check("DFT", [x, np.array(8, I64), np.array(1, I64)], 20, run_time=(0, 1, 2) if run_time else (0,))
    check("STFT", [x, np.array(3, I64), normal(6)], 17, run_time=(0, 1) if run_time else (0,))
    for op in ("HannWindow", "HammingWindow", "BlackmanWindow"):
        model, inputs = single(op, [np.array(9, I64)], 1, 17, [0] if run_time else [])
        (got,) = evaluated(model, inputs)
        assert np.allclose(got, expected(model, inputs)[0], atol=1e-6)


def test_attention_outputs() -> None:
    q, k, v = normal(1, 4, 12), normal(1, 5, 6, seed=1), normal(1, 5, 6, seed=2)
    attributes: Attributes = {"q_num_heads": 4, "kv_num_heads": 2}
    check("Attention", [q, k, v], 23, run_time=(0, 1, 2), is_causal=1, **attributes)
    past = [normal(1, 2, 3, 3, seed=3), normal(1, 2, 3, 3, seed=4)]
    check("Attention", [q, k, v, None, *past], 23, outputs=3, run_time=(0, 1, 2, 4, 5), **attributes)
    check("Attention", [q, k, v, None, *past], 23, outputs=4, run_time=(0,), qk_matmul_output_mode=1, **attributes)
    table = normal(9, 2)
    check("RotaryEmbedding", [normal(1, 2, 3, 4), table, table, ints(0, 4, 8).reshape(1, 3)], 23)


def open_shapes(model: onnx.ModelProto, dims: Mapping[int, str]) -> onnx.ModelProto:
    for axis, name in dims.items():
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    return model


@pytest.mark.parametrize("size", [(5, 6), (8, 7), (1, 1)])
def test_open_sizes(size: tuple[int, int]) -> None:
    """A chain over an image of unknown size: every dimension has an expression, and it is right."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], auto_pad="SAME_UPPER", strides=[2, 2]),
        helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1),
        helper.make_node("Resize", ["b", "", "scales"], ["c"], mode="linear"),
        helper.make_node("Resize", ["c", "", "odd"], ["y"], mode="nearest"),
    ]
    constants = {"w": normal(3, 2, 3, 3), "scales": floats(1, 1, 2, 4), "odd": floats(1, 1, 1.7, 1)}
    inputs = {"x": normal(1, 2, *size)}
    model = open_shapes(model_of(nodes, inputs, ["c", "y"], constants), {2: "h", 3: "w"})
    results = evaluated(model, inputs)
    resized = imported(model).outputs[0].type
    assert isinstance(resized, TensorType)
    assert resized.shape is not None
    assert tuple(evaluate(d, dict(zip("hw", size, strict=True))) for d in resized.shape) == results[0].shape
    for got, reference in zip(results, expected(model, inputs), strict=True):
        assert_close(got, reference, accumulation=4096)


def test_bad_nodes() -> None:
    x = normal(1, 3, 8, 8)
    with pytest.raises(InvalidModel, match="kernel_shape"):
        imported(single("Conv", [x, normal(4, 3, 3, 3)], 1, 21, [0], kernel_shape=[5, 5])[0])
    with pytest.raises(InvalidModel, match="auto_pad"):
        imported(single("Conv", [x, normal(4, 3, 3, 3)], 1, 21, [0], auto_pad="SAME")[0])
    with pytest.raises(InvalidModel, match="strides"):
        imported(single("MaxPool", [x], 1, 21, [0], kernel_shape=[3, 3], auto_pad="SAME_UPPER", strides=[0, 1])[0])
    with pytest.raises(InvalidModel, match="neither scales nor sizes"):
        imported(single("Resize", [x, None, floats()], 1, 21, [0])[0])
    with pytest.raises(UnsupportedOp, match="p is"):
        imported(single("LpPool", [x], 1, 21, [0], kernel_shape=[3, 3], p=0)[0])
    with pytest.raises(InvalidModel, match="num_heads"):
        imported(single("Attention", [normal(1, 4, 8)] * 3, 1, 23, [0])[0])
