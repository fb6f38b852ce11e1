"""Ops that read or write by index: types, NumPy meaning and index maps agree; bad operands are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusible.compiler.ir.definition import Opaque
from fusible.compiler.ir.types import DType, TensorType
from fusible.errors import InvalidModel
from tests.ir.single_op import add_op, check_definition

I64 = np.int64


def numbered(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.arange(1, 1 + int(np.prod(shape))).reshape(shape).astype(dtype)


def some_indices(size: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(size).integers(-size, size, shape)


SYMBOLIC: list[list[tuple[int, int]]] = [[], [(0, 0), (0, 1), (0, 2)]]


@pytest.mark.parametrize("symbolic", SYMBOLIC)
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,)])
def test_gather(shape: tuple[int, ...], axis: int, symbolic: list[tuple[int, int]]) -> None:
    x = numbered(3, 4, 5)
    check_definition("gather", [x, some_indices(x.shape[axis], *shape)], symbolic, axis=axis)
    check_definition("gather", [x, some_indices(x.shape[axis], *shape).astype(np.int32)], symbolic, axis=axis)


@pytest.mark.parametrize("symbolic", SYMBOLIC)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_elements(axis: int, symbolic: list[tuple[int, int]]) -> None:
    x = numbered(3, 4, 5)
    check_definition("gather_elements", [x, some_indices(x.shape[axis], 2, 3, 4)], symbolic, axis=axis)
    check_definition("gather_elements", [x, some_indices(x.shape[axis], 2, 0, 4)], symbolic, axis=axis)


@pytest.mark.parametrize("symbolic", SYMBOLIC)
@pytest.mark.parametrize("batch_dims", [0, 1])
@pytest.mark.parametrize("depth", [1, 2])
def test_gather_nd(batch_dims: int, depth: int, symbolic: list[tuple[int, int]]) -> None:
    x = numbered(3, 4, 5)
    places = [some_indices(x.shape[batch_dims + d], 3, 2) for d in range(depth)]
    check_definition("gather_nd", [x, np.stack(places, axis=-1)], symbolic, batch_dims=batch_dims)


@pytest.mark.parametrize("axis", [0, -1, 1])
@pytest.mark.parametrize("index_type", [np.int64, np.int32, np.uint8])
def test_one_hot(axis: int, index_type: Any) -> None:
    indices = np.array([[0, 3, 2], [1, 4, 9]]).astype(index_type)
    if index_type is not np.uint8:
        indices = np.where(indices > 2, -indices, indices)
    for symbolic in ([], [(0, 0), (0, 1)]):
        check_definition("one_hot", [indices, np.array([2.0, 5.0])], symbolic, depth=4, axis=axis)


def test_one_hot_of_floats_is_opaque() -> None:
    node = add_op("one_hot", [numbered(2), numbered(2)], depth=3)
    assert isinstance(node.op.definition(node), Opaque)
    assert node.output.type == TensorType(DType.F32, (2, 3))


@pytest.mark.parametrize("mode", ["linear", "circular"])
@pytest.mark.parametrize("axis", [-2, 1])
def test_tensor_scatter(axis: int, mode: str) -> None:
    past = numbered(2, 5, 5, 3)
    shape = list(past.shape)
    shape[axis] = 2
    update, starts = -numbered(*shape), np.array([1, 4 if mode == "circular" else 3])
    every = [(0, d) for d in range(4)]
    for symbolic in ([], every):
        check_definition("tensor_scatter", [past, update, starts], symbolic, axis=axis, mode=mode)
        check_definition("tensor_scatter", [past, update], symbolic, axis=axis, mode=mode)


F = numbered(3, 4)
BAD: list[tuple[str, list[np.ndarray], dict[str, Any]]] = [
    ("gather", [F, np.zeros(2, np.float32)], {}),
    ("gather", [numbered(), np.zeros(2, I64)], {}),
    ("gather", [F, np.zeros(2, I64)], {"axis": 2}),
    ("gather_elements", [F, np.zeros(2, I64)], {}),
    ("gather_elements", [F, np.zeros((2, 5), I64)], {"axis": 0}),
    ("gather_nd", [F, np.zeros((2, 3), I64)], {}),
    ("gather_nd", [F, np.zeros((2, 1), I64)], {"batch_dims": 1}),
    ("gather_nd", [F, np.zeros((3, 1), I64)], {"batch_dims": 2}),
    ("gather_nd", [F, np.zeros((), I64)], {}),
    ("scatter_elements", [F, np.zeros((1, 1), I64), numbered(1, 2)], {}),
    ("scatter_elements", [F, np.zeros((1, 1), I64), numbered(1, 1, dtype=I64)], {}),
    ("scatter_elements", [F, np.zeros((1, 1), I64), numbered(1, 1)], {"reduction": "sum"}),
    ("scatter_nd", [F, np.zeros((1, 1), I64), numbered(1, 3)], {}),
    ("scatter_nd", [F, np.zeros((1, 3), I64), numbered(1)], {}),
    ("one_hot", [np.zeros(2, I64), numbered(3)], {"depth": 2}),
    ("one_hot", [np.zeros(2, I64), numbered(2)], {"depth": -1}),
    ("one_hot", [np.zeros(2, I64), numbered(2)], {"depth": 2, "axis": 2}),
    ("compress", [F, np.zeros((2, 2), bool)], {}),
    ("compress", [F, np.zeros(2, I64)], {}),
    ("tensor_scatter", [F, numbered(2, 4)], {"axis": 1}),
    ("tensor_scatter", [F, numbered(3, 2)], {"axis": 0}),
    ("tensor_scatter", [F, numbered(3, 2)], {"axis": 1, "mode": "random"}),
    ("reverse_sequence", [F, np.zeros(3, I64)], {}),
    ("top_k", [F], {"k": 5, "outputs": 2}),
    ("top_k", [F], {"k": -1, "outputs": 2}),
    ("unique", [F], {"axis": 2, "outputs": 4}),
    ("non_max_suppression", [numbered(1, 5, 3), numbered(1, 2, 5)], {}),
    ("non_max_suppression", [numbered(1, 5, 4), numbered(1, 2, 6)], {}),
    ("non_max_suppression", [numbered(1, 5, 4), numbered(1, 2, 5)], {"iou_threshold": 2.0}),
    ("eye_like", [numbered(3)], {"dtype": DType.F32}),
    ("multinomial", [numbered(3)], {"dtype": DType.I32}),
    ("range", [np.zeros(()), np.zeros(()), np.zeros(())], {}),
]


@pytest.mark.parametrize(("op", "operands", "attributes"), BAD)
def test_what_types_can_tell_is_refused(op: str, operands: list[np.ndarray], attributes: dict[str, Any]) -> None:
    with pytest.raises(InvalidModel, match=op):
        add_op(op, operands, **attributes)


def test_sizes_that_values_decide_have_bounds() -> None:
    node = add_op("non_zero", [F])
    rank, count = node.output.type.shape  # type: ignore[union-attr]
    assert rank == 2
    assert [(s.lower, s.upper) for s in node.defines] == [(0, 12)]
    assert count not in (0, 12)
    assert [s.upper for s in add_op("unique", [F], axis=1, outputs=4).defines] == [4]
    assert [s.upper for s in add_op("non_max_suppression", [numbered(2, 5, 4), numbered(2, 3, 5)]).defines] == [30]
