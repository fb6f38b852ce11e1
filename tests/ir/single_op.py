"""A graph of one op: its inferred types, its NumPy meaning and its definition, compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusible.compiler.ir.definition import Opaque
from fusible.compiler.ir.evaluate import bind_symbols, evaluate_node
from fusible.compiler.ir.graph import Graph, Node
from fusible.compiler.ir.symbols import Dim, Symbol, evaluate
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.interpret import interpret_node
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
    """Fail unless types, kernel and definition of an op agree on these operands; returns what the kernel gives."""
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
    return [r for r in results if isinstance(r, np.ndarray)]
