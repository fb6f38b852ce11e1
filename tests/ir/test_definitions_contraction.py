"""Matrix products and convolutions: types, definition and NumPy meaning agree; bad operands are refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fusible.compiler.ir.definition import Opaque
from fusible.compiler.ir.symbol_values import evaluate
from fusible.errors import InvalidModel
from fusible.kernels.numpy.windows import windows
from tests.ir.single_op import add_op, check_definition

Shape = tuple[int, ...]
Attributes = dict[str, Any]


def normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape) * 3).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int32, np.uint64])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3, 5), (5, 7)), ((5,), (5,)), ((5,), (5, 7)), ((3, 5), (5,)), ((2, 3, 5), (5, 7)), ((3, 5), (2, 5, 7)),
        ((2, 1, 3, 5), (4, 5, 2)), ((5,), (2, 5, 7)), ((0, 5), (5, 7)), ((3, 0), (0, 7)),
    ],
)  # fmt: skip
def test_matmul(a: Shape, b: Shape, dtype: Any) -> None:
    check_definition("matmul", [normal(*a, dtype=dtype), normal(*b, dtype=dtype, seed=1)], accumulation=5)


def test_matmul_of_symbolic_sizes() -> None:
    a, b = normal(2, 3, 5), normal(2, 5, 7, seed=1)
    check_definition("matmul", [a, b], [(0, 0), (1, 0), (0, 2), (1, 1)], accumulation=5)
    # A symbolic batch may be 1, so what it reads is not known.
    node = add_op("matmul", [a, b], [(0, 0)])
    assert isinstance(node.op.definition(node), Opaque)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("c", [None, (), (7,), (3, 1), (3, 7)])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, -1.5)])
def test_gemm(c: Shape | None, alpha: float, beta: float, dtype: Any) -> None:
    for trans in product((False, True), repeat=2):
        a = normal(*((5, 3) if trans[0] else (3, 5)), dtype=dtype)
        b = normal(*((7, 5) if trans[1] else (5, 7)), dtype=dtype, seed=1)
        added = None if c is None else normal(*c, dtype=dtype, seed=2)
        attributes: Attributes = {"alpha": alpha, "beta": beta, "transA": trans[0], "transB": trans[1]}
        check_definition("gemm", [a, b, added], accumulation=64, **attributes)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)]), ("ii->i", [(3, 3)]), ("ij->", [(3, 4)]), ("...ij,jk", [(2, 3, 4), (4, 5)]),
        ("i,j,k->kij", [(2,), (3,), (4,)]), ("bij,bjk->bik", [(1, 3, 4), (2, 4, 1)]), ("ij->ji", [(0, 3)]),
    ],
)  # fmt: skip
def test_einsum(equation: str, shapes: list[Shape]) -> None:
    operands = [normal(*s, seed=k) for k, s in enumerate(shapes)]
    check_definition("einsum", operands, accumulation=64, equation=equation)


def test_einsum_of_symbolic_sizes() -> None:
    operands = [normal(2, 3, 4), normal(2, 4, 5, seed=1)]
    check_definition("einsum", operands, [(0, 0), (1, 0), (0, 2), (1, 1)], accumulation=4, equation="bij,bjk->bki")


CONVOLUTIONS: list[tuple[Shape, Shape, Attributes]] = [
    ((2, 3, 5, 6), (4, 3, 3, 2), {"pads": (1, 0, 1, 1)}),
    ((1, 4, 7, 6), (6, 2, 3, 2), {"group": 2, "strides": (2, 3), "pads": (1, 0, 2, 1), "dilations": (2, 1)}),
    ((1, 3, 5, 6), (6, 1, 3, 3), {"group": 3, "strides": (2, 1), "pads": (1, 1, 1, 1)}),
    ((2, 3, 8), (2, 3, 3), {"strides": (2,), "auto_pad": "SAME_UPPER"}),
    ((1, 2, 3, 4, 3), (2, 2, 2, 3, 2), {}),
    ((1, 2, 4, 4), (3, 2, 1, 1), {}),
    ((0, 2, 4, 4), (3, 2, 2, 2), {}),
]


@pytest.mark.parametrize(("image", "kernel", "attributes"), CONVOLUTIONS)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_conv(image: Shape, kernel: Shape, attributes: Attributes, dtype: Any) -> None:
    operands = [normal(*s, dtype=dtype, seed=k) for k, s in enumerate((image, kernel, kernel[:1]))]
    check_definition("conv", operands, accumulation=64, **attributes)
    check_definition("conv", operands[:2], accumulation=64, **attributes)
    check_definition("conv", operands, [(0, 0), (0, 2)], accumulation=64, **attributes)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("size", [1, 4, 5, 6, 7])
def test_automatic_pads_of_symbolic_sizes(auto_pad: str, size: int) -> None:
    operands = [normal(1, 2, size, 6), normal(2, 2, 3, 2, seed=1)]
    attributes: Attributes = {"auto_pad": auto_pad, "strides": (2, 3)}
    check_definition("conv", operands, [(0, 2), (0, 3)], accumulation=12, **attributes)
    node = add_op("conv", operands, [(0, 2)], **attributes)
    assert evaluate(node.output.type.shape[2], {f"n{size}": size}) == -(-size // 2)  # type: ignore[union-attr, index]


TRANSPOSED: list[tuple[Shape, Shape, Attributes]] = [
    ((2, 3, 4, 3), (3, 2, 3, 3), {"pads": (1, 1, 1, 0)}),
    (
        (1, 4, 3, 4),
        (4, 2, 3, 2),
        {"group": 2, "strides": (2, 3), "pads": (1, 0, 2, 1), "dilations": (2, 1), "output_padding": (1, 1)},
    ),
    ((1, 3, 5), (3, 2, 4), {"strides": (2,), "auto_pad": "SAME_UPPER"}),
    ((1, 3, 5), (3, 2, 2), {"strides": (3,), "auto_pad": "SAME_LOWER"}),
    ((1, 3, 4, 5), (3, 2, 3, 3), {"strides": (2, 2), "output_shape": (8, 10), "output_padding": (1, 1)}),
    ((1, 3, 0), (3, 2, 3), {}),
]


@pytest.mark.parametrize(("image", "kernel", "attributes"), TRANSPOSED[:-1])
def test_conv_transpose(image: Shape, kernel: Shape, attributes: Attributes) -> None:
    operands = [normal(*image), normal(*kernel, seed=1), normal(kernel[1] * attributes.get("group", 1), seed=2)]
    check_definition("conv_transpose", operands, accumulation=64, **attributes)
    if "output_shape" not in attributes:
        check_definition("conv_transpose", operands, [(0, 0), (0, 2)], accumulation=64, **attributes)


@pytest.mark.parametrize(
    "attributes", [{}, {"strides": (2, 1), "pads": (1, 0, 0, 1), "dilations": (2, 1)}, {"pads": (1, 1, 1, 1)}]
)
def test_col2im(attributes: Attributes) -> None:
    image, block = (5, 6), (2, 3)
    counts = [
        w.count for w in windows(image, block, *(attributes.get(k, ()) for k in ("strides", "pads", "dilations")))
    ]
    columns = normal(2, 12, int(np.prod(counts)))
    check_definition("col2im", [columns], accumulation=8, image_shape=image, block_shape=block, **attributes)
    check_definition("col2im", [columns], [(0, 0)], accumulation=8, image_shape=image, block_shape=block, **attributes)


def shapes(*given: Shape, dtype: Any = np.float32) -> list[np.ndarray]:
    return [np.zeros(s, dtype) for s in given]


@pytest.mark.parametrize(
    ("op", "operands", "attributes"),
    [
        ("matmul", shapes((2, 3), (4, 5)), {}),
        ("matmul", shapes((), (4,)), {}),
        ("matmul", shapes((2, 3, 4), (3, 4, 5)), {}),
        ("matmul", [*shapes((2, 3)), *shapes((3, 2), dtype=np.float16)], {}),
        ("gemm", shapes((2, 3), (3, 4), (3, 1)), {}),
        ("gemm", shapes((2, 3), (3, 4)), {"transA": True}),
        ("gemm", shapes((2, 3, 1), (3, 4)), {}),
        ("einsum", shapes((2, 3), (4, 5)), {"equation": "ij,jk->ik"}),
        ("einsum", shapes((2, 3)), {"equation": "ij->k"}),
        ("einsum", shapes((2, 3)), {"equation": "i->i"}),
        ("conv", shapes((1, 3, 5, 5), (4, 2, 3, 3)), {}),
        ("conv", shapes((1, 4, 5, 5), (3, 2, 3, 3)), {"group": 2}),
        ("conv", shapes((1, 4, 5, 5), (4, 4, 3, 3)), {"group": 0}),
        ("conv", shapes((1, 3, 5, 5), (4, 3, 3)), {}),
        ("conv", shapes((1, 3), (4, 3)), {}),
        ("conv", shapes((1, 3, 5, 5), (4, 3, 9, 9)), {}),
        ("conv", shapes((1, 3, 5, 5), (4, 3, 3, 3), (3,)), {}),
        ("conv", shapes((1, 3, 5, 5), (4, 3, 3, 3)), {"strides": (0, 1)}),
        ("conv", shapes((1, 3, 5, 5), (4, 3, 3, 3)), {"pads": (1, 1)}),
        ("conv", shapes((1, 3, 5, 5), (4, 3, 3, 3)), {"pads": (-1, 0, 0, 0)}),
        ("conv", shapes((1, 3, 5, 5), (4, 3, 3, 3)), {"dilations": (2**40, 1)}),
        ("conv", shapes((1, 3, 5, 5), (4, 3, 3, 3)), {"auto_pad": "same"}),
        ("conv_transpose", shapes((1, 3, 5, 5), (4, 3, 3, 3)), {}),
        ("conv_transpose", shapes((1, 3, 5, 5), (3, 4, 3, 3)), {"pads": (9, 9, 9, 9)}),
        ("conv_transpose", shapes((1, 3, 5, 5), (3, 4, 3, 3)), {"output_padding": (1,)}),
        ("conv_transpose", shapes((1, 3, 5, 5), (3, 4, 3, 3)), {"output_shape": (-1, 3)}),
        ("deform_conv", shapes((1, 4, 5, 5), (4, 4, 3, 3), (1, 18, 2, 3)), {}),
        ("deform_conv", shapes((1, 4, 5, 5), (4, 4, 3, 3), (1, 18, 3, 3)), {"offset_group": 3}),
        ("col2im", shapes((1, 12, 9)), {"image_shape": (5, 6), "block_shape": (2, 3)}),
        ("col2im", shapes((1, 13, 16)), {"image_shape": (5, 6), "block_shape": (2, 3)}),
        ("col2im", shapes((1, 12, 16)), {"image_shape": (5,), "block_shape": (2, 3)}),
        ("col2im", shapes((1, 12, 16)), {"image_shape": (5, 6), "block_shape": (0, 3)}),
    ],
)
def test_bad_operands_are_refused(op: str, operands: list[np.ndarray], attributes: Attributes) -> None:
    with pytest.raises(InvalidModel):
        add_op(op, operands, **attributes)
