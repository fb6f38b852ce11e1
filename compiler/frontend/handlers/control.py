"""If, Loop, Scan. A condition known at import selects its branch there; Scan becomes a loop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.frontend.scope import Scope
from fusible.compiler.ir.failing import failing_graph
from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.symbol_values import symbols_of
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType, OptionalType, SequenceType, TensorType, Type, type_symbols
from fusible.errors import InvalidNode

MAX_ROUNDS = 8


@onnx_op("If")
def if_(context: NodeContext) -> Sequence[Value]:
    """If: inlined when the condition is known, else an `if` with explicit captures."""
    condition = context.static(0)
    if condition is not None:
        if condition.size != 1:
            context.invalid(f"the condition must have one element, got shape {list(condition.shape)}")
        return context.inline_subgraph("then_branch" if bool(condition.ravel()[0]) else "else_branch")
    branches = _branches(context)
    captured = dict.fromkeys(outer for _, scope in branches for outer in scope.captures)
    for graph, scope in branches:
        _order_captures(graph, scope, list(captured), own=0)
    node = context.graph.add_node(
        "if",
        [context.required(0), *captured],
        outputs=len(branches[0][0].outputs),
        subgraphs=[graph for graph, _ in branches],
    )
    return node.outputs


def _branches(context: NodeContext) -> list[tuple[Graph, Scope]]:
    """Both branches. One that contradicts the types it captures, while the other does not, fails when it is taken:

    exporters guard code for one shape or rate by a condition that only a run can tell.
    """
    found: list[tuple[Graph, Scope] | InvalidNode] = []
    for name in ("then_branch", "else_branch"):
        try:
            found.append(context.subgraph(name, ()))
        except InvalidNode as error:
            found.append(error)
    sound = [b for b in found if not isinstance(b, InvalidNode)]
    if not sound:
        raise next(b for b in found if isinstance(b, InvalidNode))
    return [_failing_branch(context, b, sound[0][0]) if isinstance(b, InvalidNode) else b for b in found]


def _failing_branch(context: NodeContext, error: InvalidNode, other: Graph) -> tuple[Graph, Scope]:
    graph = failing_graph(other, str(error), (context.label,))
    return graph, Scope(graph, context.scope, context.scope.depth + 1)


def _order_captures(graph: Graph, scope: Scope, captured: list[Value], own: int) -> None:
    """Give a subgraph one input per captured value, in the common order, after its own inputs."""
    inputs = list(graph.inputs[:own])
    for outer in captured:
        inner = scope.captures.get(outer)
        if inner is None:
            inner = Value(outer.type, outer.name)
            inner.graph = graph
        inputs.append(inner)
    graph.inputs[:] = inputs


@onnx_op("Loop")
def loop(context: NodeContext) -> Sequence[Value]:
    """Loop: the types of the carried values are widened until an iteration keeps them."""
    carried = [context.required(i) for i in range(2, len(context.inputs))]
    trip, condition = context.optional(0), context.optional(1)
    return build_loop(context, trip, condition, carried)


def build_loop(
    context: NodeContext, trip: Value | None, condition: Value | None, carried: list[Value]
) -> tuple[Value, ...]:
    """Import the `body` attribute and add a `loop`."""
    types: list[Type] = [v.type for v in carried]
    nodes_before = context.importer.nodes
    for _ in range(MAX_ROUNDS):
        context.importer.nodes = nodes_before
        graph, scope = context.subgraph("body", [TensorType(DType.I64, ()), TensorType(DType.BOOL, ()), *types])
        widened = [_widen(context, t, v.type) for t, v in zip(types, graph.outputs[1:], strict=False)]
        if widened == types:
            return _finish(context, trip, condition, carried, graph, scope)
        types = widened
    context.unsupported("the types of the values carried by the loop do not settle")


def _finish(
    context: NodeContext,
    trip: Value | None,
    condition: Value | None,
    carried: list[Value],
    graph: Graph,
    scope: Scope,
) -> tuple[Value, ...]:
    if len(graph.outputs) < 1 + len(carried):
        context.invalid(f"the body gives {len(graph.outputs)} values for {len(carried)} carried ones and a condition")
    _order_captures(graph, scope, list(scope.captures), own=2 + len(carried))
    initial = {s for v in carried for s in type_symbols(v.type)}
    inner = [s for v in graph.inputs[2 : 2 + len(carried)] for s in type_symbols(v.type) if s not in initial]
    graph.defines = tuple(dict.fromkeys(inner))
    node = context.graph.add_node(
        "loop",
        [trip, condition, *carried, *scope.captures],
        {"carried": len(carried)},
        outputs=len(graph.outputs) - 1,
        subgraphs=[graph],
    )
    return node.outputs


def _widen(context: NodeContext, before: Type, after: Type) -> Type:
    """The least type that holds both what enters and what leaves an iteration."""
    match before, after:
        case TensorType(dtype=dtype, shape=old), TensorType(dtype=other, shape=new) if dtype is other:
            if old is None or new is None or len(old) != len(new):
                return TensorType(dtype, None)
            return TensorType(dtype, tuple(_widen_dim(context, a, b) for a, b in zip(old, new, strict=True)))
        case SequenceType(element=old_element), SequenceType(element=new_element):
            return SequenceType(_widen_element(context, old_element, new_element))
        case OptionalType(element=old_element), OptionalType(element=new_element):
            return OptionalType(_widen_element(context, old_element, new_element))
        case OptionalType(element=old_element), _:
            return OptionalType(_widen_element(context, old_element, after))
    context.invalid(f"a carried value enters as {before} and leaves as {after}")


def _widen_element(context: NodeContext, before: Type | None, after: Type | None) -> Type | None:
    """Elements of sequences and optionals: tensors that differ keep their element type only."""
    if before is None or after is None or before == after:
        return after if before is None else before
    match before, after:
        case TensorType(dtype=dtype), TensorType(dtype=other) if dtype is other:
            return TensorType(dtype, None)
        case SequenceType(element=old), SequenceType(element=new):
            return SequenceType(_widen_element(context, old, new))
    context.invalid(f"a carried value holds {before} before and {after} after an iteration")


def _widen_dim(context: NodeContext, before: Dim, after: Dim) -> Dim:
    if before == after:
        return before
    symbol = next(iter(symbols_of(before)), None)
    if symbol is not None and symbol.name.startswith("carried_"):
        return before
    return context.graph.symbols.fresh("carried")


@onnx_op("Scan", since=9)
def scan(context: NodeContext) -> Sequence[Value]:
    """Scan-9 as a loop: iteration i reads slice i of each scan input, outputs are stacked and moved to their axes."""
    count = context.attr_int("num_scan_inputs")
    states = len(context.inputs) - count
    if count < 1 or states < 0:
        context.invalid(f"num_scan_inputs is {count} with {len(context.inputs)} inputs")
    axes = context.attr_ints("scan_input_axes") or (0,) * count
    directions = context.attr_ints("scan_input_directions") or (0,) * count
    scanned = [context.required(states + n) for n in range(count)]
    carried = [context.required(n) for n in range(states)]
    length = _scan_length(context, states, axes)
    rounds_types: list[Type] = [v.type for v in carried]
    nodes_before = context.importer.nodes
    for _ in range(MAX_ROUNDS):
        context.importer.nodes = nodes_before
        graph, scope = _scan_body(context, rounds_types, scanned, axes, directions, length)
        widened = [_widen(context, t, v.type) for t, v in zip(rounds_types, graph.outputs[1:], strict=False)]
        if widened == rounds_types:
            break
        rounds_types = widened
    else:
        context.unsupported("the types of the states of the scan do not settle")
    results = list(_finish(context, _length_value(context, length), None, carried, graph, scope))
    return [*results[:states], *_place_outputs(context, results[states:])]


def _scan_length(context: NodeContext, states: int, axes: Sequence[int]) -> Dim:
    """The length of the inputs that are scanned, which all have it."""
    lengths: list[Dim] = []
    for number, axis in enumerate(axes):
        shape = context.shape(states + number)
        if shape is not None and not shape:
            context.invalid("a scan input has rank 0")
        if shape is not None:
            lengths.append(shape[axis % len(shape)])
        elif number == 0:
            context.unsupported("the rank of a scan input is not known")
    for other in lengths[1:]:
        context.require_equal(other, lengths[0], "the scanned inputs differ in length")
    return lengths[0]


def _length_value(context: NodeContext, length: Dim) -> Value:
    if isinstance(length, int):
        return context.constant(np.asarray(length, np.int64))
    return context.add("dims", values=(length,), shape=())


def _scan_body(
    context: NodeContext,
    states: Sequence[Type],
    scanned: list[Value],
    axes: Sequence[int],
    directions: Sequence[int],
    length: Dim,
) -> tuple[Graph, Scope]:
    proto = context.attr_graph("body")
    graph = Graph(proto.name or "scan", context.graph.symbols)
    scope = Scope(graph, context.scope, context.scope.depth + 1)
    if len(proto.input) != len(states) + len(scanned):
        context.invalid(f"the body has {len(proto.input)} inputs, the node {len(states) + len(scanned)}")
    iteration = graph.input(TensorType(DType.I64, ()), "iteration")
    graph.input(TensorType(DType.BOOL, ()), "condition")
    for info, type_ in zip(proto.input, states, strict=False):
        scope.define(info.name, graph.input(type_, info.name), f"body of {context.label!r}")
    with graph.inserting_before(None, (context.label,)):
        for number, outer in enumerate(scanned):
            inner = scope.captures.get(outer)
            if inner is None:
                inner = outer if outer.constant is not None else graph.input(outer.type, outer.name)
                if outer.constant is None:
                    scope.captures[outer] = inner
            index = iteration
            if directions[number]:
                last = _length_value_in(graph, length)
                index = graph.add("sub", graph.add("sub", last, graph.constant(np.asarray(1, np.int64))), iteration)
            rank = len(outer.type.shape or ()) if isinstance(outer.type, TensorType) else 0
            item = graph.add("gather", inner, index, axis=axes[number] % max(rank, 1))
            scope.define(proto.input[len(states) + number].name, item, f"body of {context.label!r}")
    context.importer.initializers(proto, scope)
    context.importer.body(proto, scope, context.opsets)
    context.importer.results(proto, scope)
    graph.set_outputs([graph.constant(np.asarray(True)), *graph.outputs], ["", *graph.output_names])
    return graph, scope


def _length_value_in(graph: Graph, length: Dim) -> Value:
    if isinstance(length, int):
        return graph.constant(np.asarray(length, np.int64))
    return graph.add("dims", values=(length,), shape=())


def _place_outputs(context: NodeContext, scans: Sequence[Value]) -> list[Value]:
    axes = context.attr_ints("scan_output_axes") or (0,) * len(scans)
    directions = context.attr_ints("scan_output_directions") or (0,) * len(scans)
    placed = []
    for value, axis, direction in zip(scans, axes, directions, strict=True):
        rank = value.type.rank if isinstance(value.type, TensorType) else None
        if rank is None:
            context.unsupported("the rank of a scan output is not known")
        if direction:
            value = context.add("slice", value, starts=(-1,), ends=(-(2**63),), axes=(0,), steps=(-1,))
        target = axis % rank
        if target:
            order = [*range(1, target + 1), 0, *range(target + 1, rank)]
            value = context.add("transpose", value, perm=tuple(order))
        placed.append(value)
    return placed


@onnx_op("Scan", since=8)
def scan_8(context: NodeContext) -> Sequence[Value]:
    """Scan-8 has a batch axis and sequence lengths; newer models do not use it."""
    context.unsupported("Scan before opset 9 (with a batch axis) is not imported; convert the model to opset 9")
