"""Quantised operators of the standard and of ONNX Runtime, imported and compared with ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from fusible.compiler.ir.types import DType, TensorType
from fusible.errors import InvalidModel, UnsupportedOp
from tests.frontend.imported import evaluated, expected, imported, model_of

CONTRIB = {"com.microsoft": 1}
RANDOM = np.random.default_rng(0)
A = RANDOM.integers(0, 256, (3, 8)).astype(np.uint8)
B = RANDOM.integers(0, 256, (3, 8)).astype(np.uint8)
W = RANDOM.integers(-64, 64, (8, 5)).astype(np.int8)  # 7 bits: ONNX Runtime saturates where the processor lacks VNNI
F = RANDOM.standard_normal((3, 8)).astype(np.float32)
CONSTANTS: dict[str, np.ndarray] = {
    "s1": np.array(0.02, np.float32),
    "s2": np.array(0.03, np.float32),
    "s3": np.array(0.05, np.float32),
    "z1": np.array(100, np.uint8),
    "z2": np.array(130, np.uint8),
    "z3": np.array(120, np.uint8),
    "zw": np.array(0, np.int8),
    "zeros": np.zeros(5, np.int8),
    "columns": np.linspace(0.01, 0.03, 5, dtype=np.float32),
    "bias": np.linspace(-1, 1, 5, dtype=np.float32),
    "ibias": np.arange(5, dtype=np.int32) * 500,
}
INPUTS = {"a": A, "b": B, "w": W, "f": F}


def compare(op: str, names: list[str], steps: int = 0, **attributes: Any) -> np.ndarray:
    """Both answers agree, bytes up to `steps`."""
    node = helper.make_node(op, names, ["y"], domain="com.microsoft", **attributes)
    used = {k: v for k, v in INPUTS.items() if k in names}
    model = model_of([node], used, ["y"], {k: v for k, v in CONSTANTS.items() if k in names}, domains=CONTRIB)
    (got,), (reference,) = evaluated(model, used), expected(model, used)
    assert (got.dtype, got.shape) == (reference.dtype, reference.shape)
    if got.dtype.kind in "iu":
        assert np.abs(got.astype(int) - reference.astype(int)).max() <= steps
    else:
        np.testing.assert_allclose(got, reference, rtol=1e-5, atol=1e-6)
    output = imported(model).outputs[0].type
    assert isinstance(output, TensorType)
    assert output.shape == got.shape
    return got


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_binary(op: str) -> None:
    assert compare(op, ["a", "s1", "z1", "b", "s2", "z2", "s3", "z3"], steps=1).std() > 10


def test_unary() -> None:
    compare("QLinearSigmoid", ["a", "s1", "z1", "s2", "z2"], steps=1)
    compare("QLinearLeakyRelu", ["a", "s1", "z1", "s2", "z2"], steps=1, alpha=0.2)


def test_concat() -> None:
    compare("QLinearConcat", ["s3", "z3", "a", "s1", "z1", "b", "s2", "z2"], steps=1, axis=1)


@pytest.mark.parametrize("bias", ["", "ibias"])
def test_gemm(bias: str) -> None:
    compare("QGemm", ["a", "s1", "z1", "w", "columns", "zeros", bias, "s3", "z3"], steps=1)
    compare("QGemm", ["a", "s1", "z1", "w", "s2", "zw", bias], alpha=0.5)


@pytest.mark.parametrize("rest", [[], ["z1"], ["z1", "zw", "bias"]])
def test_products_as_floats(rest: list[str]) -> None:
    compare("MatMulIntegerToFloat", ["a", "w", "s1", "columns", *rest])


@pytest.mark.parametrize("rest", [[], ["zw", "bias"]])
def test_dynamic_products(rest: list[str]) -> None:
    compare("DynamicQuantizeMatMul", ["f", "w", "columns", *rest])


def test_contrib_spelling_of_quantisation() -> None:
    compare("QuantizeLinear", ["f", "s1", "z1"])
    compare("DequantizeLinear", ["a", "s1", "z1"])


def test_output_types() -> None:
    x = np.ones((2, 3), np.float32)
    given = {"x": x}
    for attributes, opset, dtype in [
        ({}, 13, DType.U8),
        ({"output_dtype": TensorProto.INT8}, 21, DType.I8),
        ({"output_dtype": TensorProto.FLOAT8E5M2}, 23, DType.F8E5M2),
    ]:
        node = helper.make_node("QuantizeLinear", ["x", "s1"], ["y"], **attributes)
        model = model_of([node], given, ["y"], {"s1": CONSTANTS["s1"]}, opset=opset)
        assert imported(model).outputs[0].type == TensorType(dtype, (2, 3))
    node = helper.make_node("QuantizeLinear", ["x", "s1", "z1"], ["y"], output_dtype=TensorProto.INT8)
    constants = {k: CONSTANTS[k] for k in ("s1", "z1")}
    with pytest.raises(InvalidModel, match="output_dtype is i8, the zero point u8"):
        imported(model_of([node], given, ["y"], constants))


@pytest.mark.parametrize("op", ["ConvInteger", "QLinearConv"])
@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_LOWER", "VALID"])
def test_convolutions(op: str, auto_pad: str) -> None:
    x = RANDOM.integers(0, 256, (1, 2, 6, 5)).astype(np.uint8)
    kernel = RANDOM.integers(0, 100, (3, 2, 3, 2)).astype(np.uint8)
    names = ["x", "w", "z1", "z2"] if op == "ConvInteger" else ["x", "s1", "z1", "w", "s2", "z2", "s3", "z3"]
    node = helper.make_node(op, names, ["y"], auto_pad=auto_pad, strides=[2, 1], kernel_shape=[3, 2])
    inputs = {"x": x, "w": kernel}
    model = model_of([node], inputs, ["y"], {k: v for k, v in CONSTANTS.items() if k in names})
    (got,), (reference,) = evaluated(model, inputs), expected(model, inputs)
    assert (got.dtype, got.shape) == (reference.dtype, reference.shape)
    assert np.array_equal(got, reference)


def test_kernel_shape_must_fit() -> None:
    node = helper.make_node("ConvInteger", ["x", "w"], ["y"], kernel_shape=[3, 3])
    inputs = {"x": np.ones((1, 1, 5, 5), np.uint8), "w": np.ones((1, 1, 2, 2), np.uint8)}
    with pytest.raises(InvalidModel, match="kernel_shape"):
        imported(model_of([node], inputs, ["y"]))


def n_bits(bits: int, *, zeros: bool, terms: int = 20, block: int = 16, **more: np.ndarray) -> tuple[Any, Any]:
    """What both systems make of a MatMulNBits; `more`: further inputs by their place."""
    blocks = -(-terms // block)
    constants = {
        "b": RANDOM.integers(0, 256, (5, blocks, block * bits // 8)).astype(np.uint8),
        "s": RANDOM.uniform(0.01, 0.03, (5, blocks)).astype(np.float32),
        "z": RANDOM.integers(0, 256, (5, -(-blocks * bits // 8))).astype(np.uint8),
        **more,
    }
    names = ["x", "b", "s", "z" if zeros else "", "g" if "g" in more else "", "bias"]
    attributes = {"N": 5, "K": terms, "bits": bits, "block_size": block}
    node = helper.make_node("MatMulNBits", names, ["y"], domain="com.microsoft", **attributes)
    inputs = {"x": constants.pop("x", RANDOM.standard_normal((3, terms)).astype(np.float32))}
    constants.setdefault("bias", CONSTANTS["bias"])
    model = model_of([node], inputs, ["y"], {n: a for n, a in constants.items() if n in names}, domains=CONTRIB)
    return evaluated(model, inputs), expected(model, inputs)


UNEVEN = np.arange(20, dtype=np.int32) // 16
UNEVEN[:3] = 1  # no order in which terms lie block after block
MALFORMED: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "too few zero points": ({"z": np.zeros((4, 1), np.uint8)}, r"zero points must be 5 rows \(N\) of 1 bytes"),
    "too few of groups": ({"z": np.zeros(4, np.uint8), "g": UNEVEN}, r"zero points must be 5 rows \(N\) of 1 bytes"),
    "too many floats": ({"z": np.zeros((5, 3), np.float32)}, r"zero points must be 5 rows \(N\) of 2 floats"),
    "zero points of int32": ({"z": np.zeros((5, 2), np.int32)}, r"input 3 \(zero_points\) has type tensor\(int32\)"),
    "floats as groups": ({"g": UNEVEN.astype(np.float32)}, r"input 4 \(g_idx\) has type tensor\(float\)"),
    "flags as groups": ({"g": UNEVEN.astype(bool)}, r"input 4 \(g_idx\) has type tensor\(bool\)"),
    "too few groups": ({"g": UNEVEN[:-1]}, r"g_idx must be 20 integers \(K\), got i32\[19\]"),
    "too many groups": ({"g": np.append(UNEVEN, UNEVEN)}, r"g_idx must be 20 integers \(K\), got i32\[40\]"),
    "groups that are not there": ({"g": UNEVEN + 1}, "g_idx must name groups from 0 to 1, got 1 to 2"),
    "too few scales": ({"s": np.ones((4, 2), np.float32)}, r"\(scales\) must have shape \[5, 2\] or \[10\], got f32"),
    "columns": ({"x": np.ones((3, 21), np.float32), "g": UNEVEN}, r"A must have K = 20 columns, got f32\[3, 21\]"),
    "ordered columns": ({"x": np.ones((3, 21), np.float32)}, r"A must have K = 20 columns, got f32\[3, 21\]"),
    "no columns": ({"x": np.ones((), np.float32)}, r"A must have K = 20 columns, got f32\[\]"),
    "a long bias": ({"bias": np.ones(6, np.float32)}, r"\(bias\) must have shape \[5\], got f32\[6\]"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_weights_of_few_bits(what: str) -> None:
    changed, message = MALFORMED[what]
    with pytest.raises(InvalidModel, match=f"MatMulNBits at '.*{message}"):
        n_bits(4, zeros=True, **changed)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("terms", [32, 20])
def test_weights_of_few_bits(bits: int, zeros: bool, terms: int) -> None:
    (got,), (reference,) = n_bits(bits, zeros=zeros, terms=terms)
    assert got.std() > 0.1
    np.testing.assert_allclose(got, reference, rtol=1e-4, atol=1e-4)


ORDERS = {
    "blocks": np.arange(32) // 16,
    "mixed": np.random.default_rng(1).permutation(np.arange(32) // 16),
    "uneven": np.random.default_rng(1).integers(0, 2, 32),
}


@pytest.mark.parametrize("order", ORDERS)
def test_weights_in_groups(order: str) -> None:
    (got,), (reference,) = n_bits(4, zeros=False, terms=32, g=ORDERS[order].astype(np.int32))
    np.testing.assert_allclose(got, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_zero_points_of_groups(order: str) -> None:
    """ONNX Runtime 1.32 takes 8 for every zero point where there is g_idx: these are compared with the formula."""
    groups, codes = ORDERS[order], RANDOM.integers(0, 16, (5, 32)).astype(np.uint8)
    scales, zeros = RANDOM.uniform(0.01, 0.03, (5, 2)), RANDOM.integers(0, 16, (5, 2)).astype(np.uint8)
    packed = {
        "b": (codes[:, ::2] | codes[:, 1::2] << 4).reshape(5, 2, 8), "s": scales.astype(np.float32),
        "z": zeros[:, :1] | zeros[:, 1:] << 4, "g": groups.astype(np.int32),
    }  # fmt: skip
    (got,), _ = n_bits(4, zeros=True, terms=32, x=np.eye(32, dtype=np.float32), **packed)
    weight = (codes - zeros[:, groups].astype(float)) * scales[:, groups]
    np.testing.assert_allclose(got - CONSTANTS["bias"], weight.T, rtol=1e-4, atol=1e-5)


def test_zero_points_that_are_floats() -> None:
    zeros = RANDOM.uniform(0, 15, (5, 2)).astype(np.float32)
    (got,), (reference,) = n_bits(4, zeros=True, terms=32, z=zeros)
    np.testing.assert_allclose(got, reference, rtol=1e-4, atol=1e-4)


def test_groups_that_are_not_there() -> None:
    with pytest.raises(InvalidModel, match="g_idx must name groups from 0 to 1"):
        n_bits(4, zeros=False, terms=32, g=np.full(32, 2, np.int32))


def test_weights_that_do_not_fit_their_sizes() -> None:
    with pytest.raises(InvalidModel, match="a weight of 80 bytes was expected, got 40"):
        n_bits(4, zeros=False, b=np.zeros((5, 1, 8), np.uint8))
    for size in (4, 6, 10):
        with pytest.raises(InvalidModel, match=f"zero points must be 5 rows .N. of 1 bytes, got u8.{size}"):
            n_bits(4, zeros=True, z=np.zeros(size, np.uint8))
    with pytest.raises(InvalidModel, match="whole bytes, got block_size 1 with elements of 4 bits"):
        n_bits(4, zeros=False, terms=21, block=1, b=np.zeros(52, np.uint8))
    with pytest.raises(UnsupportedOp, match="weights of 2 bits; those of 4 and 8 bits are known"):
        n_bits(2, zeros=False)
