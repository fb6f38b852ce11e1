"""Types made more precise: symbols that became known are replaced and everything after them is inferred again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fusible.compiler.ir.attributes import substitute_attrs
from fusible.compiler.ir.failing import failing_graph, failure_of
from fusible.compiler.ir.graph import Graph, Node, Value, known_content, standing_symbols
from fusible.compiler.ir.ops import Content
from fusible.compiler.ir.reinfer import bare_symbol, bare_symbols, captured_inputs, infer_again, within
from fusible.compiler.ir.requirements import Requirement
from fusible.compiler.ir.symbol_values import substitute, symbols_of
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt
from fusible.compiler.ir.types import OptionalType, SequenceType, TensorType, Type, substitute_type
from fusible.errors import InvalidModel

__all__ = ["rebuild_types"]


def rebuild_types(graph: Graph, substitution: Mapping[str, Dim] | None = None) -> dict[str, Dim]:
    """Replace symbols by name in all types and attributes, then infer every node again in order, subgraphs too.

    Where inference now knows a dimension that a node used to define, that symbol is replaced as well; where it knows
    less than a type states, the type stays. Returns all replacements made. Raises InvalidModel if the new dimensions
    contradict the graph.
    """
    values: dict[str, Dim] = dict(substitution or {})
    introduced = [s for dim in values.values() for s in symbols_of(dim)]
    for symbol in introduced:
        graph.symbols.add(symbol)
    _rebuild(graph, values)
    standing = [s for v in graph.inputs for s in bare_symbols(v.type) if s in introduced]
    graph.defines = tuple(dict.fromkeys([*graph.defines, *standing]))
    return values


def _rebuild(graph: Graph, values: dict[str, Dim]) -> None:
    for value in graph.inputs:
        value.type = substitute_type(value.type, values)
    graph.defines = tuple(s for s in graph.defines if s.name not in values)
    for node in graph:
        node.attrs = substitute_attrs(node.attrs, values)
        for subgraph in node.subgraphs:
            for outer, inner in captured_inputs(node, subgraph):
                inner.type, inner._content = outer.type, outer.content
        if node.op.name == "if":
            _rebuild_branches(node, values)
        else:
            for subgraph in node.subgraphs:
                _rebuild(subgraph, values)
        _retype(graph, node, values)
    graph.requirements = dict.fromkeys(_substituted(r, values) for r in graph.requirements if r.known is not True)


def _substituted(requirement: Requirement, values: Mapping[str, Dim]) -> Requirement:
    made = requirement.substituted(values)
    if made.known is False:
        raise InvalidModel(f"{made.where}: {made} does not hold")
    return made


def _rebuild_branches(node: Node, values: dict[str, Dim]) -> None:
    """Both branches of an `if`. One that contradicts its operands' types fails when it is taken, unless both do."""
    errors: list[InvalidModel | None] = []
    for branch in node.subgraphs:
        learned = dict(values)
        try:
            _rebuild(branch, learned)
        except InvalidModel as error:
            errors.append(error)
        else:
            errors.append(None)
            values.update(learned)
    first = next((e for e in errors if e is not None), None)
    sound = [b for b, e in zip(node.subgraphs, errors, strict=True) if e is None and failure_of(b) is None]
    if first is not None and not sound:
        raise first
    branches = zip(node.subgraphs, errors, strict=True)
    node.subgraphs = tuple(b if e is None else _failing(node, sound[0], e) for b, e in branches)


def _failing(node: Node, other: Graph, error: InvalidModel) -> Graph:
    graph = failing_graph(other, str(error), node.origin)
    for outer in node.inputs[1:]:
        assert outer is not None
        graph.input_for(outer)
    return graph


def _retype(graph: Graph, node: Node, values: dict[str, Dim]) -> None:
    inferred, infer = infer_again(node, graph.symbols)
    stated = [substitute_type(v.type, values) for v in node.outputs]
    binding = _binding(node, inferred, stated, {s.name: s for s in infer.defines})
    created: list[Symbol] = []
    for symbol in standing_symbols(infer.defines, inferred):
        if symbol.name not in binding:
            hint = symbol.name.removeprefix("__").rpartition("_")[0]
            binding[symbol.name] = dim = graph.symbols.fresh(hint, symbol.lower, symbol.upper)
            created.extend(symbols_of(dim))
    types = [_refined(node, substitute_type(a, binding), b) for a, b in zip(inferred, stated, strict=True)]
    learned = _learned(node, types)
    values.update(learned)
    types = [substitute_type(t, learned) for t in types]
    for value, type_ in zip(node.outputs, types, strict=True):
        value.type = type_
    kept = [s for s in node.defines if s.name not in values]
    node.defines = standing_symbols([*kept, *created], types)
    if len(node.outputs) == 1:
        _renew_content(node.outputs[0], known_content(infer, types[0]), values)


def _binding(
    node: Node, inferred: Sequence[Type], stated: Sequence[Type], fresh: Mapping[str, Symbol]
) -> dict[str, Dim]:
    """For each fresh symbol the dimension that stands in its place, a literal if there is one."""
    binding: dict[str, Dim] = {}
    for pattern, type_ in zip(inferred, stated, strict=True):
        if not isinstance(pattern, TensorType) or not isinstance(type_, TensorType):
            continue
        if pattern.rank != type_.rank:
            continue
        for a, b in zip(pattern.shape or (), type_.shape or (), strict=True):
            symbol = bare_symbol(a)
            if symbol is None or symbol.name not in fresh:
                continue
            if not within(b, symbol):
                raise InvalidModel(f"{node.op.name} at {node.where}: dimension {b} cannot be, it must fit {pattern}")
            if isinstance(b, int) or symbol.name not in binding:
                binding[symbol.name] = b
    return binding


def _refined(node: Node, inferred: Type, stated: Type) -> Type:
    """What inference gives, and what is stated where inference gives nothing."""
    match inferred, stated:
        case TensorType(dtype=dtype), TensorType(dtype=other) if dtype is other:
            if inferred.shape is None:
                return stated
            if stated.shape is None:
                return inferred
            literal = zip(inferred.shape, stated.shape, strict=False)
            clash = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in literal)
            if len(inferred.shape) == len(stated.shape) and not clash:
                return inferred
        case SequenceType(element=a), SequenceType(element=b):
            return SequenceType(b if a is None or b is None else _refined(node, a, b))
        case OptionalType(element=a), OptionalType(element=b):
            return OptionalType(b if a is None or b is None else _refined(node, a, b))
    raise InvalidModel(f"{node.op.name} at {node.where}: its type was {stated}, now it would be {inferred}")


def _learned(node: Node, types: Sequence[Type]) -> dict[str, Dim]:
    """The symbols that the node used to define and whose place a known dimension has taken."""
    own = {s.name for s in node.defines}
    learned: dict[str, Dim] = {}
    for value, type_ in zip(node.outputs, types, strict=True):
        if not isinstance(value.type, TensorType) or not isinstance(type_, TensorType):
            continue
        for old, new in zip(value.type.shape or (), type_.shape or (), strict=False):
            symbol = bare_symbol(old)
            if symbol is not None and symbol.name in own and new != old:
                learned.setdefault(symbol.name, new)
    return learned


def _renew_content(value: Value, content: Content | None, values: Mapping[str, Dim]) -> None:
    if content is None and value._content is not None:
        content = np.empty(value._content.shape, dtype=object)
        for index, element in np.ndenumerate(value._content):
            content[index] = substitute(element, values) if isinstance(element, SymInt) else element
    value._content = content
