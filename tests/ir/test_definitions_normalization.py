"""Reductions, softmax and normalisations: types, definition and NumPy meaning agree; bad operands are refused."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fusible.compiler.ir.definition import Composite, Opaque, Reduce
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.symbols import Symbol
from fusible.compiler.ir.types import DType, TensorType
from fusible.errors import InvalidModel
from tests.ir.single_op import add_op, check_definition
from tests.kernels.kernel_calls import integers, normal

FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
REDUCTIONS = [
    "reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_l1", "reduce_l2", "reduce_log_sum",
    "reduce_log_sum_exp", "reduce_sum_square", "reduce_prod",
]  # fmt: skip
AXES: list[tuple[tuple[int, ...], tuple[int, ...] | None]] = [
    ((3, 4, 5), None),
    ((3, 4, 5), (1,)),
    ((3, 4, 5), (-1, 0)),
    ((3, 4), ()),
    ((), None),
    ((2, 0, 3), (1,)),
]


def positive(*shape: int, dtype: Any) -> np.ndarray:
    return (1 + np.abs(normal(*shape, scale=0.1))).astype(dtype)


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("keepdims", [True, False])
def test_reductions(op: str, dtype: Any, keepdims: bool) -> None:
    for shape, axes in AXES:
        symbolic = [(0, d) for d in range(len(shape)) if d != 1]
        x = positive(*shape, dtype=dtype)
        check_definition(op, [x], symbolic, accumulation=64, axes=axes, keepdims=keepdims)


@pytest.mark.parametrize(
    "op", ["reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "reduce_l1", "reduce_sum_square"]
)
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.int8])
def test_integer_reductions(op: str, dtype: Any) -> None:
    check_definition(op, [integers(3, 4, dtype=dtype)], axes=(1,))
    if op in ("reduce_max", "reduce_min"):
        check_definition(op, [np.array([[True, False], [False, False]])], axes=(1,), keepdims=False)
        check_definition(op, [np.empty((2, 0), dtype)], axes=(1,))


def test_infinite_and_absent_numbers() -> None:
    x = np.array([[1, np.nan, 3], [np.inf, 0, 1], [-np.inf, -np.inf, -np.inf], [900, 900, 1]], np.float32)
    for op in ("reduce_max", "reduce_min", "reduce_log_sum_exp", "reduce_sum"):
        check_definition(op, [x], axes=(1,))
    for op in ("softmax", "log_softmax"):
        check_definition(op, [x[:, :2]], accumulation=2)


@pytest.mark.parametrize("op", ["reduce_mean", "reduce_l2", "reduce_log_sum", "reduce_log_sum_exp"])
def test_wider_integers_are_opaque(op: str) -> None:
    node = add_op(op, [np.arange(1, 5, dtype=np.int32)])
    assert isinstance(node.op.definition(node), Opaque)


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax(op: str, dtype: Any) -> None:
    for shape, axis in (((7,), 0), ((3, 5), -1), ((3, 5), 0), ((2, 3, 4), 1), ((2, 0, 3), 2)):
        check_definition(op, [normal(*shape, dtype=dtype, scale=3)], [(0, 0)], accumulation=7, axis=axis)


def parameters(channels: int, dtype: Any) -> list[np.ndarray]:
    rows = normal(4, channels, dtype=np.float64)
    rows[3] = np.abs(rows[3]) + 0.1
    return [np.ascontiguousarray(r).astype(dtype) for r in rows]


SHAPES = [(2, 6, 5, 3), (2, 6, 4), (1, 6, 1, 2, 2)]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_channel_normalizations(dtype: Any, shape: tuple[int, ...]) -> None:
    x, given = normal(*shape, dtype=dtype), parameters(6, dtype)
    symbolic = [(0, d) for d in range(len(shape)) if d != 1]
    check_definition("batch_normalization", [x, *given], symbolic, accumulation=4, epsilon=1e-3)
    check_definition("instance_normalization", [x, *given[:2]], symbolic, accumulation=64, epsilon=1e-3)
    for groups in (1, 2, 6):
        attributes: dict[str, Any] = {"num_groups": groups, "epsilon": 1e-3}
        check_definition("group_normalization", [x, *given[:2]], symbolic, accumulation=128, **attributes)


def test_batch_normalization_of_a_vector_and_of_mixed_types() -> None:
    check_definition("batch_normalization", [normal(5), *parameters(1, np.float32)], [(0, 0)], accumulation=4)
    check_definition("batch_normalization", [normal(2, 3, 4, dtype=np.float16), *parameters(3, np.float32)])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_layer_and_rms_normalization(dtype: Any, axis: int) -> None:
    x = normal(3, 4, 9, dtype=dtype)
    scale = normal(*x.shape[axis:], dtype=dtype)
    how: dict[str, Any] = {"accumulation": 128, "axis": axis, "epsilon": 1e-3}
    for operands in ([x, scale], [x, scale, scale]):
        check_definition("layer_normalization", list(operands), [(0, 0)] if axis else [], **how)
        check_definition("layer_normalization_statistics", list(operands), outputs=3, **how)
    check_definition("rms_normalization", [x, scale], **how)
    check_definition("rms_normalization", [x, scale.astype(np.float32)], **how)
    check_definition("layer_normalization", [x, scale], stash_dtype=DType.F64, **how)


@pytest.mark.parametrize("dtype", FLOATS)
def test_lp_and_local_response(dtype: Any) -> None:
    x = normal(2, 5, 3, dtype=dtype)
    x[:, 2] = 0
    for p in (1, 2):
        check_definition("lp_normalization", [x], [(0, 0)], accumulation=5, axis=-1, p=p)
    for size in (1, 2, 5, 8):
        check_definition("lrn", [x], [(0, 0), (0, 2)], accumulation=8, size=size, alpha=0.5)


def test_kinds_of_definitions() -> None:
    x = normal(2, 3, 4)
    node = add_op("reduce_mean", [x], axes=(1,))
    assert isinstance(node.op.definition(node), Reduce)
    for op in ("softmax", "log_softmax", "reduce_log_sum_exp", "lp_normalization"):
        node = add_op(op, [x])
        assert isinstance(node.op.definition(node), Composite), op
    for op, attributes in (("hardmax", {}),):
        node = add_op(op, [x], **attributes)
        assert isinstance(node.op.definition(node), Opaque), op


def test_unknown_rank_stays_unknown() -> None:
    graph = Graph("unknown")
    x = graph.input(TensorType(DType.F32, None), "x")
    vector = graph.input(TensorType(DType.F32, (3,)), "v")
    for op, others, attributes in (
        ("reduce_sum", [], {"axes": (1,)}),
        ("softmax", [], {"axis": 2}),
        ("arg_max", [], {}),
        ("batch_normalization", [vector] * 4, {}),
        ("layer_normalization", [vector], {}),
        ("relu", [], {}),
        ("add", [vector], {}),
    ):
        node = graph.add_node(op, [x, *others], attributes)
        assert isinstance(node.outputs[0].type, TensorType)
        assert node.outputs[0].type.shape is None, op
        if op not in ("relu", "add"):
            assert isinstance(node.op.definition(node), Opaque)
    total = graph.add("reduce_sum", x, axes=None, keepdims=False)
    assert total.type == TensorType(DType.F32, ())


def test_types_of_reductions_with_axes_at_run_time() -> None:
    graph = Graph("dynamic")
    n = graph.symbols.add(Symbol("n"))
    x = graph.input(TensorType(DType.F32, (n, 1, 4)), "x")
    axes = graph.input(TensorType(DType.I64, (1,)), "axes")
    kept = graph.add("reduce_dynamic", x, axes, reduction="reduce_sum", keepdims=True)
    dropped = graph.add("reduce_dynamic", x, axes, reduction="reduce_sum", keepdims=False)
    assert isinstance(kept.type, TensorType) and isinstance(dropped.type, TensorType)
    assert kept.type.rank == 3 and kept.type.shape is not None and kept.type.shape[1] == 1
    assert dropped.type.shape is None


X = normal(2, 6, 4)
V6, V4, V5 = normal(6), normal(4), normal(5)
REFUSED: list[tuple[str, list[Any], dict[str, Any], str]] = [
    ("reduce_sum", [X], {"axes": (3,)}, "axis 3"),
    ("reduce_sum", [X], {"axes": (0, -3)}, "twice"),
    ("reduce_dynamic", [X, np.zeros(1, np.int64)], {"reduction": "add"}, "no reduction"),
    ("arg_max", [X], {"axis": 3}, "axis 3"),
    ("arg_max", [X[:0]], {"axis": 0}, "no elements"),
    ("cum_sum", [X], {"axis": -4}, "axis -4"),
    ("cum_sum_dynamic", [X, np.zeros(2, np.int64)], {}, "one number"),
    ("softmax", [X], {"axis": 3}, "axis 3"),
    ("softmax", [np.asarray(1.0)], {}, "rank 0"),
    ("batch_normalization", [X, V6, V6, V6, V5], {}, "5 elements for 6"),
    ("batch_normalization", [X, V6, V6, X, V6], {}, "vector"),
    ("instance_normalization", [X[0], V4, V4], {}, "rank 3"),
    ("group_normalization", [X, V6, V6], {"num_groups": 4}, "divide"),
    ("group_normalization", [X, V6, V6], {"num_groups": 0}, "positive"),
    ("group_normalization", [X, V6, V4], {"num_groups": 2}, "4 elements for 6"),
    ("layer_normalization", [X, V5], {}, "broadcast"),
    ("layer_normalization", [X, V4], {"axis": 3}, "axis 3"),
    ("rms_normalization", [X, V6], {}, "broadcast"),
    ("lp_normalization", [X], {"p": 3}, "1 or 2"),
    ("lrn", [X], {"size": 0}, "positive"),
    ("lrn", [V6], {"size": 3}, "channel"),
    ("dropout", [X, V4], {}, "one element"),
]


@pytest.mark.parametrize(("op", "given", "attributes", "message"), REFUSED, ids=[f"{r[0]}-{r[3]}" for r in REFUSED])
def test_refused(op: str, given: list[Any], attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        add_op(op, given, **attributes)
