"""Regions from nodes: a single element-wise node, or a `fused` node's subgraph of them."""

from __future__ import annotations

from fusible.compiler.ir.definition import Elementwise
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.types import TensorType
from fusible.compiler.region.expr import Apply, Arg, Convert, Expr
from fusible.compiler.region.index import broadcast
from fusible.compiler.region.region import MapStage, Operand, Region

__all__ = ["is_elementwise", "region_of"]


def is_elementwise(node: Node) -> bool:
    """True if the node has one output, computed by a scalar expression, and every shape has a known rank."""
    if len(node.outputs) != 1 or any(v is None for v in node.inputs) or not node.inputs:
        return False
    types = [v.type for v in (*node.inputs, *node.outputs) if v is not None]
    if not all(isinstance(t, TensorType) and t.shape is not None for t in types):
        return False
    return isinstance(node.op.definition(node), Elementwise)


def region_of(node: Node) -> Region | None:
    """The region of an element-wise node or of a `fused` node; None for any other."""
    if node.op.name == "fused":
        graph = node.subgraphs[0]
        return _build(list(graph), list(graph.inputs), list(graph.outputs))
    if not is_elementwise(node):
        return None
    operands = [v for v in node.inputs if v is not None]
    return _build([node], list(dict.fromkeys(operands)), [node.output], operands)


def _build(
    nodes: list[Node], inputs: list[Value], outputs: list[Value], positional: list[Value] | None = None
) -> Region | None:
    """`positional`: operands in the node's own order, repeats included (a single node)."""
    result = outputs[0].type
    if not isinstance(result, TensorType) or result.shape is None:
        return None
    rank = len(result.shape)
    operands = []
    for value in positional if positional is not None else inputs:
        assert isinstance(value.type, TensorType) and value.type.shape is not None
        operands.append(Operand(value.type.dtype, value.type.shape, broadcast(value.type.shape, rank)))
    if positional is not None:
        numbers = {value: n for n, value in reversed(list(enumerate(positional)))}
    else:
        numbers = {value: n for n, value in enumerate(inputs)}
    stages: list[MapStage] = []
    for node in nodes:
        definition = node.op.definition(node)
        assert isinstance(definition, Elementwise) and isinstance(node.output.type, TensorType)
        renamed = [numbers[v] for v in node.inputs if v is not None]
        stages.append(MapStage(_renumber(definition.expr, renamed), node.output.type.dtype))
        numbers[node.output] = len(operands) + len(stages) - 1
    stored = tuple(numbers[v] - len(operands) for v in outputs)
    return Region(result.shape, tuple(operands), tuple(stages), stored)


def _renumber(expr: Expr, numbers: list[int]) -> Expr:
    match expr:
        case Arg(index):
            return Arg(numbers[index])
        case Apply(function, args):
            return Apply(function, tuple(_renumber(a, numbers) for a in args))
        case Convert(arg, dtype):
            return Convert(_renumber(arg, numbers), dtype)
    return expr
