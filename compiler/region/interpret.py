"""Interpret definitions in NumPy: the oracle for everything that is generated from them.

Slow and plain on purpose. `interpret_node` computes a node from its op's `definition` alone, never from its kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusible.compiler.ir.definition import Composite, Contraction, Elementwise, Opaque, Positions, Reduce, Scan, View
from fusible.compiler.ir.evaluate import bind_symbols, evaluate_node
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbol_values import evaluate
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.expr import interpret
from fusible.compiler.region.index import gather
from fusible.errors import UsageError

__all__ = ["interpret_node"]

_POSITIONS = {"argmax": np.greater, "argmin": np.less, "argmax_last": np.greater_equal, "argmin_last": np.less_equal}
_FOLDS: dict[str, tuple[Any, Any]] = {
    "sum": (np.sum, 0),
    "prod": (np.prod, 1),
    "max": (np.max, None),
    "min": (np.min, None),
}


def interpret_node(node: Node, operands: Sequence[np.ndarray | None], env: Mapping[str, int]) -> list[np.ndarray]:
    """The outputs of a node by its definition. `env` gives the shape symbols.

    Raises UsageError for an opaque op.
    """
    definition = node.op.definition(node)
    extents = [_extents(value, env) for value in node.outputs]
    match definition:
        case Elementwise(expr):
            present = [np.zeros((), np.float32) if o is None else o for o in operands]
            shape, dtype = extents[0], _dtype(node.outputs[0])
            return [np.broadcast_to(_rounded(interpret(expr, present), dtype), shape)]
        case Positions(expr):
            grid: dict[str, Any] = {f"i{d}": g for d, g in enumerate(np.indices(extents[0]))}
            found = np.broadcast_to(np.asarray(evaluate(expr, {**env, **grid})), extents[0])
            return [_rounded(found, _dtype(node.outputs[0]))]
        case View():
            return _view(definition, node, operands, extents, env)
        case Reduce():
            return [_reduce(definition, node, _required(operands), extents[0], env)]
        case Scan():
            return [_scan(definition, node, _required(operands)[0])]
        case Contraction():
            return [_contraction(definition, node, operands, extents[0], env)]
        case Composite(build):
            # The graph has an input for each operand that is present.
            present_only = [o for v, o in zip(node.inputs, operands, strict=False) if v is not None]
            return _composite(build(node), present_only, env)
        case Opaque(reason):
            raise UsageError(f"{node.op.name} has no definition to interpret: {reason}")


def _extents(value: Value, env: Mapping[str, int]) -> tuple[int, ...]:
    assert isinstance(value.type, TensorType) and value.type.shape is not None
    return tuple(int(evaluate(d, env)) for d in value.type.shape)


def _dtype(value: Value) -> DType:
    assert isinstance(value.type, TensorType)
    return value.type.dtype


def _required(operands: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    return [np.zeros(()) if o is None else o for o in operands]


def _rounded(array: np.ndarray, dtype: DType) -> np.ndarray:
    with np.errstate(all="ignore"):
        return array if array.dtype == dtype.numpy else array.astype(dtype.numpy)


def _view(
    definition: View,
    node: Node,
    operands: Sequence[np.ndarray | None],
    extents: Sequence[tuple[int, ...]],
    env: Mapping[str, int],
) -> list[np.ndarray]:
    present = _required(operands)
    if definition.split:
        return [
            gather(m, present, definition.operands[0], e, env)[0] for m, e in zip(definition.maps, extents, strict=True)
        ]
    result = np.zeros(extents[0], dtype=_dtype(node.outputs[0]).numpy)
    missing = np.ones(extents[0], dtype=bool)
    for map_, which in zip(definition.maps, definition.operands, strict=True):
        values, valid = gather(map_, present, which, extents[0], env)
        take = missing & (valid if map_.fill is None else np.ones_like(valid))
        result = np.where(take, values, result)
        missing &= ~take
    return [result.astype(_dtype(node.outputs[0]).numpy)]


def _reduce(
    definition: Reduce, node: Node, operands: list[np.ndarray], extents: tuple[int, ...], env: Mapping[str, int]
) -> np.ndarray:
    folded = tuple(int(evaluate(d, env)) for d in definition.extents)
    values, valid = gather(definition.index, operands, 0, (*extents, *folded), env)
    if definition.combiner in _POSITIONS:
        return _position(definition.combiner, values)
    dtype = _dtype(node.outputs[0])
    wide = _wide(values, dtype)
    mapped = interpret(definition.map, [wide])
    fold, neutral = _FOLDS[definition.combiner]
    axes = tuple(range(len(extents), len(extents) + len(folded)))
    initial = neutral if neutral is not None else _extreme(mapped.dtype, definition.combiner)
    accumulator = mapped.dtype
    total = fold(np.where(valid, mapped, np.asarray(initial, mapped.dtype)), axis=axes, initial=initial)
    count = np.asarray(np.sum(valid, axis=axes)).astype(accumulator)
    return _rounded(interpret(definition.finish, [np.asarray(total).astype(accumulator), count]), dtype)


def _position(combiner: str, values: np.ndarray) -> np.ndarray:
    """Along the last axis, searched element by element as the combiner's words say."""
    better = _POSITIONS[combiner]
    wide = values.astype(np.float32) if DType.of(values.dtype).is_small_float else values
    best, position = wide[..., 0], np.zeros(wide.shape[:-1], np.int64)
    for at in range(1, wide.shape[-1]):
        found = wide[..., at]
        nan = np.isnan(found) & (~np.isnan(best) | combiner.endswith("_last"))
        take = better(found, best) | nan
        best, position = np.where(take, found, best), np.where(take, at, position)
    return np.asarray(position)


def _scan(definition: Scan, node: Node, operand: np.ndarray) -> np.ndarray:
    dtype = _dtype(node.outputs[0])
    function, start = {"sum": (np.add, 0), "prod": (np.multiply, 1)}[definition.combiner]
    wide = np.moveaxis(_wide(operand, dtype), definition.axis, 0)
    wide = wide[::-1] if definition.reverse else wide
    partial = np.empty_like(wide)
    total = np.full(wide.shape[1:], start, wide.dtype)
    for at, element in enumerate(wide):
        with np.errstate(all="ignore"):
            following = function(total, element, dtype=wide.dtype)
        partial[at] = total if definition.exclusive else following
        total = following
    partial = partial[::-1] if definition.reverse else partial
    return _rounded(np.moveaxis(partial, 0, definition.axis), dtype)


def _wide(values: np.ndarray, dtype: DType) -> np.ndarray:
    if dtype.is_small_float:
        return values.astype(np.float32)
    return values.astype(dtype.numpy) if values.dtype != dtype.numpy and dtype is not DType.BOOL else values


def _extreme(dtype: np.dtype, combiner: str) -> Any:
    if dtype.kind == "b":
        return combiner == "min"
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return info.min if combiner == "max" else info.max
    return -np.inf if combiner == "max" else np.inf


def _contraction(
    definition: Contraction,
    node: Node,
    operands: Sequence[np.ndarray | None],
    extents: tuple[int, ...],
    env: Mapping[str, int],
) -> np.ndarray:
    present = _required(operands)
    folded = tuple(int(evaluate(d, env)) for d in definition.extents)
    dtype = _dtype(node.outputs[0])
    wide = np.dtype(np.float64) if dtype.is_float else dtype.numpy
    product: Any = np.ones((), wide)
    for map_, which in zip(definition.maps, definition.operands, strict=True):
        values, valid = gather(map_, present, which, (*extents, *folded), env)
        product = product * np.where(valid, values.astype(wide), np.asarray(map_.fill or 0, wide))
    axes = tuple(range(len(extents), len(extents) + len(folded)))
    total = np.asarray(np.sum(product, axis=axes, dtype=wide))
    bias = operands[definition.bias_operand] if len(operands) > definition.bias_operand else None
    if definition.bias is not None and bias is not None:
        total = total + gather(definition.bias, present, definition.bias_operand, extents, env)[0].astype(wide)
    return _rounded(np.broadcast_to(total, extents), dtype)


def _composite(graph: Graph, operands: Sequence[np.ndarray | None], env: Mapping[str, int]) -> list[np.ndarray]:
    """Interpret the small graph; an op in it that is opaque (a constant of dims) runs by its NumPy meaning."""


    symbols = dict(env)
    values: dict[Value, Any] = {}
    for formal, given in zip(graph.inputs, operands, strict=False):
        values[formal] = given
        bind_symbols(formal.type, given, symbols)
    for node in graph:
        read = [None if v is None else v.constant.array if v.constant is not None else values[v] for v in node.inputs]
        if isinstance(node.op.definition(node), Opaque):
            results: Sequence[Any] = evaluate_node(node, read, symbols)
        else:
            results = interpret_node(node, read, symbols)
        for output, result in zip(node.outputs, results, strict=True):
            values[output] = result
            bind_symbols(output.type, result, symbols)
    return [values[v] if v.constant is None else v.constant.array for v in graph.outputs]
