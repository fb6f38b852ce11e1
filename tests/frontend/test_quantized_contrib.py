"""ONNX Runtime's quantised operators: each within a step of ONNX Runtime's own answer, with signed and other bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from fusible.compiler.frontend.convert import import_model
from fusible.compiler.frontend.load import load_model
from fusible.compiler.ir.types import TensorType
from fusible.compiler.options import Limits
from fusible.errors import InvalidModel, UnsupportedOp
from tests.frontend.imported import evaluated, expected, imported, model_of

CONTRIB = {"com.microsoft": 1}
BYTES = {"u8": (np.uint8, 100, 131), "i8": (np.int8, -28, 3)}  # with zero points of an operand and of a result
SCALES: dict[str, Any] = {"xs": 0.02, "ws": 0.03, "wv": [0.03], "ys": 0.015}
LAYOUTS = pytest.mark.parametrize("last", [0, 1], ids=["first", "last"])
TYPES = pytest.mark.parametrize("type_", BYTES)


def random(*shape: int, type_: str = "u8", low: int = -128, high: int = 256, seed: int = 0) -> np.ndarray:
    """Bytes from `low` to below `high`, of those that the type has."""
    dtype = BYTES[type_][0]
    bounds = max(low, np.iinfo(dtype).min), min(high, np.iinfo(dtype).max + 1)
    return np.random.default_rng(seed).integers(*bounds, shape).astype(dtype)


def made(op: str, inputs: Mapping[str, np.ndarray], names: str, type_: str, **attributes: Any) -> onnx.ModelProto:
    """A model of one node. Of its `names` those that are no inputs are parameters: xs, xz, ws, wz, ys, yz; -: none."""
    dtype, operand, result = BYTES[type_]
    known = {name: np.array(scale, np.float32) for name, scale in SCALES.items()}
    known |= {name: np.array(zero, dtype) for name, zero in {"xz": operand, "wz": operand + 9, "yz": result}.items()}
    listed = [name.strip("-") for name in names.split()]
    constants = {name: known[name] for name in listed if name and name not in inputs}
    node = helper.make_node(op, listed, ["y"], "the node", domain="com.microsoft", **attributes)
    return model_of([node], inputs, ["y"], constants, domains=CONTRIB)


def compare(
    op: str, inputs: Mapping[str, np.ndarray], names: str, type_: str = "u8", steps: int = 1, **attributes: Any
) -> np.ndarray:
    """Our answer, which is within `steps` of ONNX Runtime's (of floats: near it) and of the type that was inferred."""
    model = made(op, inputs, names, type_, **attributes)
    (got,), (reference,) = evaluated(model, inputs), expected(model, inputs)
    assert (got.dtype, got.shape) == (reference.dtype, reference.shape)
    assert got.std() > 0.02 * (5 if got.dtype.kind in "iu" else 1), "or a comparison says nothing"
    if got.dtype.kind in "iu":
        assert np.abs(got.astype(int) - reference.astype(int)).max() <= steps
    else:
        np.testing.assert_allclose(got, reference, rtol=1e-5, atol=1e-5)
    (output,) = imported(model).outputs
    assert isinstance(output.type, TensorType)
    assert (output.type.shape, output.type.dtype.numpy) == (got.shape, got.dtype)
    return np.asarray(got)


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


@TYPES
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_binary(op: str, type_: str) -> None:
    a, b = random(2, 3, 5, type_=type_), random(3, 1, type_=type_, seed=1)
    compare(op, {"a": a, "b": b}, "a xs xz b ws wz ys yz", type_)


UNARY = {"QLinearSigmoid": {}, "QLinearLeakyRelu": {"alpha": 0.3}}


@TYPES
@pytest.mark.parametrize("op", UNARY)
def test_unary(op: str, type_: str) -> None:
    compare(op, {"x": random(3, 1, 7, type_=type_)}, "x xs xz ys yz", type_, **UNARY[op])


@TYPES
def test_concat(type_: str) -> None:
    a, b = random(2, 3, 5, type_=type_), random(2, 1, 5, type_=type_, seed=1)
    assert compare("QLinearConcat", {"a": a, "b": b}, "ys yz a xs xz b wv wz", type_, axis=-2).shape == (2, 4, 5)


@TYPES
@LAYOUTS
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5), (2, 3, 4, 5, 3), (1, 9, 1, 2)])
def test_global_average_pool(shape: tuple[int, ...], last: int, type_: str) -> None:
    x, ones = random(*shape, type_=type_), (1,) * (len(shape) - 2)
    x = channels_last(x) if last else x
    got = compare("QLinearGlobalAveragePool", {"x": x}, "x xs xz ys yz", type_, channels_last=last)
    assert got.shape == ((shape[0], *ones, shape[1]) if last else (*shape[:2], *ones))


CEIL: dict[str, Any] = {"ceil_mode": 1, "count_include_pad": 1}
POOLS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "1d": ((2, 3, 9), {"kernel_shape": [2], "strides": [2]}),
    "2d": ((2, 3, 7, 6), {"kernel_shape": [3, 2]}),
    "3d": ((1, 2, 5, 6, 4), {"kernel_shape": [3, 2, 2], "strides": [2, 1, 2], "pads": [1, 0, 1, 0, 1, 0]}),
    "pads": ((2, 3, 7, 6), {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1]}),
    "pads that count": ((2, 3, 7, 6), {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "count_include_pad": 1}),
    "ceil": ((2, 3, 8, 8), {"kernel_shape": [3, 3], "strides": [2, 3], "ceil_mode": 1}),
    "all counts": ((2, 3, 8, 7), {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [0, 1, 1, 0], **CEIL}),
    "a window left out": ((2, 3, 5, 7), {"kernel_shape": [1, 2], "strides": [3, 4], **CEIL}),
    "same": ((2, 3, 7, 6), {"kernel_shape": [3, 2], "auto_pad": "SAME_LOWER", "count_include_pad": 1}),
    "same, ceil": ((2, 3, 7, 6), {"kernel_shape": [3, 2], "strides": [2, 3], "auto_pad": "SAME_UPPER", **CEIL}),
    "valid": ((2, 3, 7, 6), {"kernel_shape": [3, 2], "strides": [3, 1], "auto_pad": "VALID"}),
}


@TYPES
@LAYOUTS
@pytest.mark.parametrize("form", POOLS)
def test_average_pool(form: str, last: int, type_: str) -> None:
    shape, attributes = POOLS[form]
    x = random(*shape, type_=type_)
    x = channels_last(x) if last else x
    compare("QLinearAveragePool", {"x": x}, "x xs xz ys yz", type_, channels_last=last, **attributes)


WITHOUT_ZEROS: dict[str, tuple[str, dict[str, Any]]] = {
    "QLinearAdd": ("x xs {} w ws {} ys", {}),
    "QLinearMul": ("x xs {} w ws {} ys", {}),
    "QLinearSigmoid": ("x xs {} ys", {}),
    "QLinearLeakyRelu": ("x xs {} ys", {"alpha": 0.3}),
    "QLinearAveragePool": ("x xs {} ys", {"kernel_shape": [2, 2]}),
}


@TYPES
@pytest.mark.parametrize("op", WITHOUT_ZEROS)
def test_no_zero_point_is_one_of_0(op: str, type_: str) -> None:
    """ONNX Runtime 1.32 refuses or crashes where one is left out but the last."""
    names, attributes = WITHOUT_ZEROS[op]
    inputs = {"x": random(1, 3, 4, 5, type_=type_, high=99), "w": random(4, 1, type_=type_, high=99, seed=1)}
    inputs = {name: array for name, array in inputs.items() if name in names.split()}
    got = evaluated(made(op, inputs, names.format("-", "-"), type_, **attributes), inputs)[0]
    inputs["zero"] = np.array(0, BYTES[type_][0])
    assert np.array_equal(got, compare(op, inputs, names.format("zero", "zero") + " zero", type_, **attributes))


@TYPES
@pytest.mark.parametrize("opset", [12, 13])
@pytest.mark.parametrize("axis", [{}, {"axis": 1}, {"axis": -1}, {"axis": 0}])
@pytest.mark.parametrize("shape", [(2, 3, 5), (3, 4), (2, 2, 3, 4)])
def test_softmax(shape: tuple[int, ...], axis: dict[str, int], opset: int, type_: str) -> None:
    least = np.iinfo(BYTES[type_][0]).min
    x = random(*shape, type_=type_, low=least + 60, high=least + 110)  # or one element alone has the sum
    inputs = {"x": x, "ys": np.array(1 / 256, np.float32), "yz": np.array(least, BYTES[type_][0])}
    compare("QLinearSoftmax", inputs, "x xs xz ys yz", type_, opset=opset, **axis)


def test_softmax_of_one_is_the_greatest_byte() -> None:
    """ONNX Runtime makes -128 of it."""
    inputs = {"x": random(2, 1, type_="i8"), "ys": np.array(1 / 256, np.float32), "yz": np.array(-128, np.int8)}
    model = made("QLinearSoftmax", inputs, "x xs xz ys yz", "i8", opset=13)
    assert evaluated(model, inputs)[0].tolist() == [[127], [127]]


@TYPES
@pytest.mark.parametrize("axes", [(1,), (-1, 2), (2, 3), ()])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("zeros", [True, False])
def test_reduce_mean(axes: tuple[int, ...], keepdims: int, type_: str, *, zeros: bool) -> None:
    """ONNX Runtime knows the operator and has no kernel for it: this is the formula of its documentation."""
    dtype, operand, result = BYTES[type_] if zeros else (BYTES[type_][0], 0, 0)
    x = random(2, 3, 4, 5, type_=type_, low=0, high=70)
    names = "x xs xz ys yz" if zeros else "x xs - ys"
    listed = helper.make_attribute("axes", axes, attr_type=onnx.AttributeProto.INTS)
    model = made("QLinearReduceMean", {"x": x}, names, type_, keepdims=keepdims)
    model.graph.node[0].attribute.append(listed)
    mean = ((x.astype(float) - operand) * 0.02).mean(axes or None, keepdims=bool(keepdims))
    bounds = np.iinfo(dtype)
    wanted = np.clip(np.rint(mean / 0.015) + result, bounds.min, bounds.max)
    (got,) = evaluated(model, {"x": x})
    assert (got.dtype, got.shape) == (dtype, wanted.shape)
    assert np.abs(got.astype(int) - wanted).max() <= 1
    assert bounds.min < got.min() and got.max() < bounds.max, "or bounds hide what is wrong"


@TYPES
@pytest.mark.parametrize(
    "shapes",
    [((2, 3, 5), (2, 3, 5), (2, 3, 5)), ((3, 1), (4, 1, 5), (5,)), ((2, 3), (), (2, 3)), ((1,), (2, 3), (2, 3))],
)
def test_where(shapes: tuple[tuple[int, ...], ...], type_: str) -> None:
    condition = np.random.default_rng(3).integers(0, 2, shapes[0]).astype(bool)
    x, w = random(*shapes[1], type_=type_), random(*shapes[2], type_=type_, seed=1)
    compare("QLinearWhere", {"c": condition, "x": x, "w": w}, "c x xs xz w ws wz ys yz", type_)


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "1d": ((2, 3, 9), (4, 3, 3), {"pads": [1, 0], "strides": [2]}),
    "2d": ((1, 2, 6, 5), (3, 2, 3, 2), {"kernel_shape": [3, 2]}),
    "3d": ((1, 2, 4, 5, 3), (3, 2, 2, 3, 1), {"pads": [0, 1, 0, 1, 1, 0]}),
    "same": ((1, 2, 6, 5), (3, 2, 3, 2), {"auto_pad": "SAME_LOWER", "strides": [2, 1]}),
    "depthwise": ((2, 4, 7, 5), (4, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
    "groups": ((1, 4, 7, 5), (6, 2, 3, 3), {"group": 2, "dilations": [2, 1]}),
}


@LAYOUTS
@pytest.mark.parametrize("form", CONVOLUTIONS)
@pytest.mark.parametrize("types", [("u8", "u8"), ("u8", "i8"), ("i8", "i8")])
def test_convolution(form: str, types: tuple[str, str], last: int) -> None:
    """With a scale for each filter, and a bias."""
    shape, kernel, attributes = CONVOLUTIONS[form]
    x = random(*shape, type_=types[0])
    low = -64 if types[1] == "i8" else 0  # 7 bits: ONNX Runtime saturates where the processor lacks VNNI
    inputs = {
        "x": channels_last(x) if last else x, "w": random(*kernel, type_=types[1], low=low, high=low + 128, seed=1),
        "fs": np.linspace(0.01, 0.05, kernel[0], dtype=np.float32),
        "fz": np.full(kernel[0], 60 if types[1] == "u8" else 0, BYTES[types[1]][0]),
        "big": np.array(0.8 if types[1] == "u8" else 0.2, np.float32),
        "b": (np.arange(kernel[0], dtype=np.int32) - 1) * 900,
    }  # fmt: skip
    names = "x xs xz w fs fz big yz b"
    got = compare("QLinearConv", inputs, names, types[0], channels_last=last, **attributes)
    assert np.mean((got > np.iinfo(got.dtype).min) & (got < np.iinfo(got.dtype).max)) > 0.5


@TYPES
@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [None, (), (5,), (1, 5), (3, 5)])
def test_gemm(bias: tuple[int, ...] | None, transposed: int, type_: str) -> None:
    a, b = random(3, 8, type_=type_), random(8, 5, type_="i8", low=-64, high=64, seed=1)
    inputs = {
        "a": a.T.copy() if transposed else a, "b": b.T.copy() if transposed else b,
        "fs": np.linspace(0.01, 0.03, 5, dtype=np.float32), "fz": np.arange(5, dtype=np.int8) * 0,
        "c": np.random.default_rng(2).integers(-3000, 3000, bias or ()).astype(np.int32),
    }  # fmt: skip
    if bias is None:
        del inputs["c"]
    flags = {"transA": transposed, "transB": transposed}
    compare("QGemm", inputs, f"a xs xz b fs fz {'-' if bias is None else 'c'}", type_, alpha=0.5, **flags)
    inputs["ys"] = np.array(0.05, np.float32)
    compare("QGemm", inputs, f"a xs xz b fs fz {'-' if bias is None else 'c'} ys yz", type_, **flags)


COLUMNS = {"tensor": ((8, 5), ()), "columns": ((8, 5), (5,)), "columns of matrices": ((2, 8, 5), (2, 1, 5))}


@pytest.mark.parametrize("form", COLUMNS)
@pytest.mark.parametrize("op", ["MatMulIntegerToFloat", "DynamicQuantizeMatMul"])
def test_products(form: str, op: str) -> None:
    shape, own = COLUMNS[form]
    inputs = {
        "a": random(2, 3, 8), "f": np.random.default_rng(0).standard_normal((2, 3, 8)).astype(np.float32),
        "b": random(*shape, type_="i8", low=-64, high=64, seed=1), "c": np.linspace(-1, 1, 5, dtype=np.float32),
        "fs": np.array(np.random.default_rng(1).uniform(0.01, 0.03, own), np.float32),
        "fz": np.array(np.random.default_rng(2).integers(-9, 9, own), np.int8),
    }  # fmt: skip
    names = "a b xs fs xz fz c" if op == "MatMulIntegerToFloat" else "f b fs fz c"
    compare(op, {n: a for n, a in inputs.items() if n in names.split()}, names)


def test_a_product_of_vectors_is_a_scalar() -> None:
    """Also with scales that are vectors of one element."""
    a, b = random(8), random(8, type_="i8", seed=1)
    model = made("MatMulIntegerToFloat", {"a": a, "b": b}, "a b wv wv", "u8")
    (got,) = evaluated(model, {"a": a, "b": b})
    assert got.shape == ()
    np.testing.assert_allclose(got, (a.astype(float) @ b.astype(float)) * 0.03**2, rtol=1e-5)


def test_a_product_as_float16() -> None:
    """ONNX Runtime has it on GPUs alone: this is the answer in float32, rounded."""
    inputs = {"a": random(3, 8), "b": random(8, 5, type_="i8", seed=1)}
    half = {n: np.array(v, np.float16) for n, v in {"p": 0.015625, "q": 0.03125, "c": [-1, 0, 1, 2, 0.5]}.items()}
    single = {n: a.astype(np.float32) for n, a in half.items()}
    models = [made("MatMulIntegerToFloat", {**inputs, **more}, "a b p q xz - c", "u8") for more in (half, single)]
    got, wanted = evaluated(models[0], {**inputs, **half})[0], evaluated(models[1], {**inputs, **single})[0]
    assert got.dtype == np.float16
    assert np.array_equal(got, wanted.astype(np.float16))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int4", "uint4"])
def test_quantisation_to_many_types(dtype: str) -> None:
    """There and back, by rows, with types that the standard's operators have had since opset 21 only."""
    zero = helper.make_tensor("z", onnx.TensorProto.DataType.Value(dtype.upper()), [3], [3, 0, 5])
    x = {"x": np.random.default_rng(0).standard_normal((3, 7)).astype(np.float32)}
    scale = {"s": np.array([0.1, 0.2, 0.3], np.float32)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], domain="com.microsoft", axis=0),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], domain="com.microsoft", axis=0),
    ]
    model = model_of(nodes, x, ["y"], scale, domains=CONTRIB)
    model.graph.initializer.append(zero)
    (got,), (reference,) = evaluated(model, x), expected(model, x)
    assert np.unique(got).size > 10
    np.testing.assert_allclose(got, reference, atol=1e-6)


def with_symbols(model: onnx.ModelProto, *dims: str | int) -> onnx.ModelProto:
    """The same model whose first input has other dimensions."""
    shape = model.graph.input[0].type.tensor_type.shape
    shape.Clear()
    for dim in dims:
        shape.dim.add(**({"dim_value": dim} if isinstance(dim, int) else {"dim_param": dim}))
    return model


def test_sizes_known_in_a_run() -> None:
    pool = {"kernel_shape": [2, 2], "ceil_mode": 1, "count_include_pad": 1, "pads": [1, 0, 0, 1]}
    x = {"x": random(1, 3, 5, 6)}
    model = with_symbols(made("QLinearAveragePool", x, "x xs xz ys yz", "u8", **pool), "n", 3, "h", "w")
    assert np.abs(evaluated(model, x)[0].astype(int) - expected(model, x)[0].astype(int)).max() <= 1
    model = with_symbols(made("QLinearAveragePool", x, "x xs xz ys yz", "u8", strides=[2, 1], **pool), "n", 3, "h", "w")
    with pytest.raises(UnsupportedOp, match="count_include_pad with ceil_mode needs spatial sizes that are known"):
        imported(model)
    import_model(load_model(model, Limits()), shapes={"h": 8, "w": 8})


def test_layouts_without_spatial_axes() -> None:
    inputs = {"x": random(2, 3)}
    with pytest.raises(InvalidModel, match="at 'the node': attribute 'channels_last' must be 0 or 1, got 2"):
        imported(made("QLinearGlobalAveragePool", inputs, "x xs xz ys yz", "u8", channels_last=2))
    with pytest.raises(InvalidModel, match=r"with channels_last input 0 must be \[N, \*spatial, C\], got u8\[2, 3\]"):
        imported(made("QLinearGlobalAveragePool", inputs, "x xs xz ys yz", "u8", channels_last=1))
