"""Quantised ops: types, definition and NumPy meaning agree; bad operands are refused."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fusible.compiler.ir.types import DType
from fusible.errors import InvalidModel
from tests.ir.single_op import add_op, check_definition

TARGETS = [DType.U8, DType.I8, DType.I16, DType.U4, DType.I2, DType.F8E4M3FN, DType.F8E5M2, DType.F4E2M1]


def floats(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    x = (np.random.default_rng(0).standard_normal(shape) * 50).astype(np.float32)
    x.flat[:5] = [np.inf, -np.inf, 0.25, 0.75, -0.25][: x.size]
    return x.astype(dtype)


def integers(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(dtype)


def parameters(shape: tuple[int, ...], dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    scale = np.asarray(random.uniform(0.3, 2, shape), np.float32)
    return scale, np.asarray(random.integers(0, 2, shape)).astype(dtype.numpy)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("x_shape", "shape", "axis", "block"),
    [((3, 5), (), 1, 0), ((3, 5), (5,), -1, 0), ((3, 5, 2), (5,), 1, 0), ((4, 5), (4, 3), 1, 2), ((0, 5), (5,), 1, 0)],
)
def test_quantize_and_dequantize(
    target: DType, x_shape: tuple[int, ...], shape: tuple[int, ...], axis: int, block: int
) -> None:
    scale, zero_point = parameters(shape, target)
    if target.is_float:
        zero_point = np.zeros_like(zero_point)
    attrs = {"axis": axis, "block_size": block}
    (y,) = check_definition("quantize_linear", [floats(x_shape), scale, zero_point], output_dtype=target, **attrs)
    (back,) = check_definition("dequantize_linear", [y, scale, zero_point], output_dtype=DType.F16, **attrs)
    assert back.shape == x_shape


def test_symbolic_shapes() -> None:
    scale, zero_point = parameters((5,), DType.U8)
    operands = [floats((3, 5, 2)), scale, zero_point]
    check_definition("quantize_linear", operands, [(0, 0), (0, 2)], output_dtype=DType.U8)
    check_definition("quantize_linear", operands, [(0, 0), (0, 1), (1, 0), (2, 0)], output_dtype=DType.U8)


def test_nan_becomes_the_least_integer() -> None:
    x = np.array([np.nan, 1], np.float32)
    (y,) = check_definition("quantize_linear", [x, np.array(1, np.float32)], output_dtype=DType.I8)
    assert y.tolist() == [-128, 1]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("precision", [None, DType.F32])
def test_halves(dtype: Any, precision: DType | None) -> None:
    operands = [np.linspace(0, 200, 500).astype(dtype), np.array(1.7).astype(dtype)]
    check_definition("quantize_linear", operands, output_dtype=DType.U8, precision=precision)


def test_int32_wraps_when_it_is_shifted() -> None:
    x = np.array([2**31 - 1, -(2**31), 5], np.int32)
    operands = [x, np.array(0.5, np.float32), np.array(-3, np.int32)]
    check_definition("dequantize_linear", operands, output_dtype=DType.F32)


@pytest.mark.parametrize("x", [floats((3, 5))[:, 2:], np.zeros((2, 2), np.float32), np.zeros((0, 3), np.float32)])
def test_dynamic_quantize_linear(x: np.ndarray) -> None:
    check_definition("dynamic_quantize_linear", [x[1:]], [(0, 0)], outputs=3)


@pytest.mark.parametrize("rows", [None, np.array(3, np.uint8), np.array([1, 2, 3], np.uint8)])
@pytest.mark.parametrize("columns", [None, np.array([9], np.int8), integers((5,), np.int8, 2)])
def test_matmul_integer(rows: np.ndarray | None, columns: np.ndarray | None) -> None:
    a, b = integers((3, 4), np.uint8), integers((4, 5), np.int8, 1)
    check_definition("matmul_integer", [a, b, rows, columns], [(0, 0)] if rows is None else [])
    check_definition("matmul_integer", [np.stack([a, a]), b, rows, columns], [(0, 0)])


def test_qlinear_matmul() -> None:
    a, b = integers((2, 3, 4), np.uint8), integers((4, 5), np.int8, 1)
    scale = np.array(0.02, np.float32)
    rows, columns = np.array([1, 2, 3], np.uint8), np.linspace(0.01, 0.02, 5, dtype=np.float32)
    operands = [a, np.linspace(0.1, 0.2, 3, dtype=np.float32), rows, b, columns, np.zeros(5, np.int8), scale]
    check_definition("qlinear_matmul", [*operands, np.array([100], np.uint8)], [(0, 0)])


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_qlinear_matmul_of_float8(dtype: type) -> None:
    a, b = (np.random.default_rng(k).standard_normal(s).astype(dtype) for k, s in enumerate([(2, 3, 4), (4, 5)]))
    rows, zero, scale = np.linspace(0.1, 0.2, 3, dtype=np.float32), np.zeros((), dtype), np.array(0.02, np.float32)
    check_definition("qlinear_matmul", [a, rows, np.ones(3, dtype), b, scale, zero, scale, zero], [(0, 0)])


@pytest.mark.parametrize(
    ("image", "kernel", "attrs"),
    [
        ((2, 3, 5, 6), (4, 3, 3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 1)}),
        ((1, 4, 5), (6, 2, 2), {"group": 2, "dilations": (2,), "pads": (0, 1)}),
        ((0, 1, 4, 4), (1, 1, 2, 2), {}),
    ],
)
def test_convolutions(image: tuple[int, ...], kernel: tuple[int, ...], attrs: dict[str, Any]) -> None:
    x, w = integers(image, np.uint8), integers(kernel, np.int8, 1)
    zero, filters = np.array(7, np.uint8), integers(kernel[:1], np.int8, 2)
    check_definition("conv_integer", [x, w], [(0, 0)], **attrs)
    check_definition("conv_integer", [x, w, zero, filters], [(0, 0), (0, 2)], **attrs)
    scale = np.linspace(0.01, 0.02, kernel[0], dtype=np.float32)
    operands = [x, np.array(0.02, np.float32), zero, w, scale, filters, np.array([0.3], np.float32)]
    bias = np.arange(kernel[0], dtype=np.int32) * 100
    check_definition("qlinear_conv", [*operands, np.array(100, np.uint8), bias], [(0, 0)], **attrs)
    check_definition("conv_bytes", [x, w, bias], [(0, 0)], **attrs, fill=201)


BYTE, SCALE, BIAS = np.array(0, np.uint8), np.array(1, np.float32), np.zeros(3, np.int32)


@pytest.mark.parametrize(
    ("op", "operands", "attrs", "message"),
    [
        ("quantize_linear", [floats((2, 3)), np.ones(2, np.float32)], {"output_dtype": DType.U8}, "must have shape"),
        ("quantize_linear", [floats((2, 3)), SCALE, BYTE], {"output_dtype": DType.I8}, "zero point"),
        ("quantize_linear", [floats((2, 3)), SCALE], {"output_dtype": DType.I64}, "no type to quantise to"),
        ("quantize_linear", [floats((2, 3)), np.ones(3, np.float32)], {"output_dtype": DType.U8, "axis": 2}, "axis"),
        ("dequantize_linear", [floats((2, 3)), SCALE], {"output_dtype": DType.F32}, "cannot be dequantised"),
        ("dequantize_linear", [integers((2, 3), np.int8), SCALE], {"output_dtype": DType.I32}, "no type"),
        ("matmul_integer", [integers((2, 3), np.int8), integers((4, 3), np.int8)], {}, "inner dimensions"),
        ("matmul_integer", [floats((2, 3)), integers((3, 3), np.int8)], {}, "int8 or uint8"),
        ("matmul_integer", [integers((2, 3), np.uint8), integers((3, 3), np.int8), np.zeros(3, np.uint8)], {}, "shape"),
        ("conv_integer", [integers((1, 3, 4), np.uint8), integers((2, 2, 3), np.uint8)], {}, "channels"),
        ("conv_integer", [integers((1, 4, 4), np.uint8), integers((3, 2, 3), np.uint8)], {"group": 2}, "groups"),
        ("conv_integer", [integers((1, 2, 4), np.uint8), integers((3, 2, 3), np.uint8)], {"group": 0}, "positive"),
        ("conv_bytes", [integers((1, 2, 4), np.int8), integers((3, 2, 3), np.int8), BIAS], {}, "input 0 must be u8"),
        ("conv_bytes", [integers((1, 2, 4), np.uint8), integers((3, 2, 3), np.uint8), BIAS], {}, "input 1 must be i8"),
        ("conv_bytes", [integers((1, 2, 4), np.uint8), integers((3, 2, 3), np.int8), BIAS[:2]], {}, "bias must have"),
        ("conv_bytes", [integers((1, 2, 4), np.uint8), integers((3, 2, 3), np.int8), BIAS], {"fill": 256}, "a byte"),
        ("dynamic_quantize_linear", [integers((3,), np.int8)], {"outputs": 3}, "float32"),
    ],
)
def test_bad_operands(op: str, operands: list[np.ndarray], attrs: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        add_op(op, operands, **attrs)
