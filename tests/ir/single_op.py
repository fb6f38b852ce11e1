"""A graph of one op: its inferred types, its NumPy meaning and its definition, compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusible.compiler.ir.definition import Opaque
from fusible.compiler.ir.evaluate import bind_symbols, evaluate_node
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbol_values import evaluate
from fusible.compiler.ir.symbols import Dim, Symbol
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.build import NoRegion, build_region
from fusible.compiler.region.evaluate import run_region
from fusible.compiler.region.interpret import interpret_node
from fusible.compiler.region.parse import parse_region
from fusible.compiler.region.text import region_text
from fusible.compiler.region.verify import verify_region
from tests.tolerance import assert_close


def add_op(
    op: str, operands: Sequence[np.ndarray | None], symbolic: Sequence[tuple[int, int]] = (), **attrs: Any
) -> Node:
    """A node whose operands have the types of the arrays; `symbolic` names (operand, axis) pairs to leave open."""
    g = Graph("single")
    inputs = []
    for k, array in enumerate(operands):
        if array is None:
            inputs.append(None)
            continue
        shape: list[Dim] = list(array.shape)
        for axis in (a for o, a in symbolic if o == k):
            # Equal sizes get the same symbol, as the operands of a valid model would have.
            name = f"n{array.shape[axis]}"
            known = g.symbols.get(name)
            shape[axis] = g.symbols.add(known or Symbol(name))
        inputs.append(g.input(TensorType(DType.of(array.dtype), tuple(shape)), f"x{k}"))
    outputs = attrs.pop("outputs", None)
    return g.add_node(op, inputs, attrs, outputs=outputs)


def check_definition(
    op: str,
    operands: Sequence[np.ndarray | None],
    symbolic: Sequence[tuple[int, int]] = (),
    *,
    accumulation: int = 1,
    **attrs: Any,
) -> list[np.ndarray]:
    """Fail unless types, kernel, definition and region of an op agree on these operands; returns what the kernel gives.

    The region must be valid, come back from its text, and give the kernel's numbers when it is run.
    """
    node = add_op(op, operands, symbolic, **attrs)
    assert not isinstance(node.op.definition(node), Opaque)
    env: dict[str, int] = {}
    for value, array in zip(node.inputs, operands, strict=False):
        if value is not None:
            bind_symbols(value.type, array, env)
    results = evaluate_node(node, list(operands[: len(node.inputs)]), env)
    for output, result in zip(node.outputs, results, strict=True):
        assert isinstance(result, np.ndarray)
        assert isinstance(output.type, TensorType)
        assert output.type.dtype.numpy == result.dtype
        assert output.type.shape is not None
        assert tuple(evaluate(d, env) for d in output.type.shape) == result.shape
    interpreted = interpret_node(node, list(operands[: len(node.inputs)]), env)
    for got, result in zip(interpreted, results, strict=True):
        assert isinstance(result, np.ndarray)
        assert (got.dtype, got.shape) == (result.dtype, result.shape)
        assert_close(got, result, accumulation=accumulation)
    for output, result in zip(node.outputs, results, strict=True):
        assert isinstance(result, np.ndarray)
        _check_region(node, output, operands, env, result, accumulation)
    return [r for r in results if isinstance(r, np.ndarray)]


def _check_region(
    node: Node,
    output: Value,
    operands: Sequence[np.ndarray | None],
    env: dict[str, int],
    result: np.ndarray,
    accumulation: int,
) -> None:
    try:
        built = build_region([node], [output], inline_scalars=True)
    except NoRegion as refusal:
        assert refusal.node is not None and isinstance(refusal.node.op.definition(refusal.node), Opaque), refusal.reason
        return
    verify_region(built.region)
    symbols = {s.name: s for s in node.graph.symbols}
    assert parse_region(region_text(built.region), symbols) == built.region
    given = dict(zip(node.inputs, operands, strict=False))
    arrays = [v.constant.array if v.constant is not None else given[v] for v in built.inputs]
    (got,) = run_region(built.region, [a for a in arrays if a is not None], env)
    assert (got.dtype, got.shape) == (result.dtype, result.shape)
    assert_close(got, result, accumulation=accumulation)
