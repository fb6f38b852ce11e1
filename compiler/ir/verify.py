"""The invariants of a graph, checked in linear time.

 1  links: the node list is a list; each node and subgraph belongs to one graph and shares its symbol table
 2  ops: the numbers of operands and results fit the op, attributes are its dataclass with values of the right types
 3  results: each result knows its node and its place; inputs and results are no constants
 4  uses: the use lists agree with the operands, both ways
 5  order: an operand is defined before its use
 6  captures: a value of another graph is used only through an input (constants are free)
 7  constants: the type of a constant is that of its data
 8  shapes: ranks are at most 64, literal dimensions not negative
 9  types: they are what inference gives, fresh symbols renamed; more precise only where inference does not know
10  symbols: a symbol that a type or attribute mentions is defined by an input or an earlier node
11  definitions: a symbol is defined once and stands alone as a dimension of what defines it; its bounds are the same
    everywhere
12  outputs: they are defined values; those of the outermost graph have names, each its own
13  subgraphs: their inputs and outputs fit their node
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import NoReturn

from fusible.compiler.ir.analysis import node_symbols
from fusible.compiler.ir.attributes import attribute_problem
from fusible.compiler.ir.graph import MAX_RANK, Graph, Node, Value
from fusible.compiler.ir.reinfer import bare_symbols, captured_inputs, infer_again, match_types
from fusible.compiler.ir.symbols import Symbol
from fusible.compiler.ir.text import print_underlined
from fusible.compiler.ir.types import DType, OptionalType, SequenceType, TensorType, Type, type_symbols
from fusible.errors import FusibleError, VerifyError

__all__ = ["INVARIANTS", "verify"]

INVARIANTS = {
    1: "links",
    2: "ops",
    3: "results",
    4: "uses",
    5: "order",
    6: "captures",
    7: "constants",
    8: "shapes",
    9: "types",
    10: "symbols",
    11: "definitions",
    12: "outputs",
    13: "subgraphs",
}


def verify(graph: Graph, symbols: Iterable[str] = ()) -> None:
    """Check every invariant of a graph and its subgraphs. `symbols`: names that get their value from outside.

    Raises VerifyError(invariant) whose text shows the graph with the culprit underlined.
    """
    _Verifier(graph).run(symbols)


class _Verifier:
    def __init__(self, root: Graph) -> None:
        self._root = root
        self._graphs: dict[Graph, None] = {}
        self._nodes: dict[Node, Graph] = {}
        self._constants: dict[Value, tuple[Hashable, ...]] = {}
        self._available: set[str] = set()  # symbols that have a value here
        self._defined: set[str] = set()  # symbols that something defines anywhere
        self._bounds: dict[str, Symbol] = {}

    def run(self, symbols: Iterable[str]) -> None:
        """Check everything."""
        self._links(self._root)
        self._available.update(symbols)
        self._graph(self._root, self._root_symbols(symbols))
        for value, places in self._constants.items():
            self._constant(value, places)

    def _fail(self, number: int, message: str, *places: Hashable) -> NoReturn:
        shown = print_underlined(self._root, *places)
        raise VerifyError(f"invariant {number} ({INVARIANTS[number]})", f"{message}\n{shown}")

    # 1: links

    def _links(self, graph: Graph) -> None:
        if graph in self._graphs:
            self._fail(1, f"graph {graph.name!r} belongs to two nodes", ("graph", graph))
        if graph.symbols is not self._root.symbols:
            self._fail(1, f"subgraph {graph.name!r} has a symbol table of its own", ("graph", graph))
        self._graphs[graph] = None
        previous, node, count = None, graph._head, 0
        while node is not None:
            if node in self._nodes:
                self._fail(1, f"{node!r} is listed twice", ("node", node))
            if node._prev is not previous:
                self._fail(1, f"{node!r} does not link back to the node before it", ("node", node))
            if node.graph is not graph:
                self._fail(1, f"{node!r} is listed in a graph it does not belong to", ("node", node))
            self._nodes[node] = graph
            for subgraph in node.subgraphs:
                self._links(subgraph)
            previous, node, count = node, node._next, count + 1
        if graph._tail is not previous or len(graph) != count:
            self._fail(1, f"graph {graph.name!r} counts {len(graph)} nodes, its list has {count}", ("graph", graph))

    # One graph

    def _root_symbols(self, given: Iterable[str]) -> list[Symbol]:
        known = set(given)
        return [s for v in self._root.inputs for s in bare_symbols(v.type) if s.name not in known]

    def _graph(self, graph: Graph, introduced: Sequence[Symbol]) -> None:
        added = [s.name for s in dict.fromkeys(introduced)]
        for name in added:
            self._define_symbol(name, ("graph", graph))
        defined = self._inputs(graph)
        for node in graph:
            added.extend(self._node(graph, node, defined))
        self._outputs(graph, defined)
        self._available.difference_update(added)

    def _inputs(self, graph: Graph) -> set[Value]:
        defined: set[Value] = set()
        standing = {s.name for v in graph.inputs for s in bare_symbols(v.type)}
        for symbol in graph.defines:
            if symbol.name not in standing:
                self._fail(11, f"no input has the dimension {symbol.name}, which the graph defines", ("graph", graph))
        for value in graph.inputs:
            place = ("value", value)
            if value in defined:
                self._fail(3, f"input {value.name!r} is listed twice", place)
            if value.graph is not graph or value.producer is not None or value.constant is not None:
                self._fail(3, f"input {value.name!r} is not an input of this graph alone", place)
            self._shape(value.type, place)
            self._symbols_known(type_symbols(value.type), f"the type of input {value.name!r}", place)
            self._uses(value, place)
            defined.add(value)
        return defined

    def _outputs(self, graph: Graph, defined: set[Value]) -> None:
        for index, value in enumerate(graph.outputs):
            place = ("output", graph, index)
            if value.constant is not None:
                self._constants.setdefault(value, (place,))
            elif value not in defined:
                self._fail(12, f"output {index} is no value of graph {graph.name!r}", place)
        names = graph.output_names
        if len(names) != len(graph.outputs):
            self._fail(12, f"{len(graph.outputs)} outputs have {len(names)} names", ("graph", graph))
        if graph is self._root:
            for index, name in enumerate(names):
                if not name or name in names[:index]:
                    self._fail(12, f"output {index} has the name {name!r} of another or none", ("output", graph, index))

    # One node

    def _node(self, graph: Graph, node: Node, defined: set[Value]) -> list[str]:
        self._op(node)
        for index, operand in enumerate(node.inputs):
            if operand is not None:
                self._operand(graph, node, index, operand, defined)
        for subgraph in node.subgraphs:
            self._subgraph(node, subgraph)
        self._results(node)
        defined.update(node.outputs)
        self._types(node)
        self._symbols_known(node_symbols(node), f"{node.op.name} at {node.where}", ("node", node))
        return self._definitions(node)

    def _op(self, node: Node) -> None:
        least, most = node.op.inputs
        if len(node.inputs) < least or (most is not None and len(node.inputs) > most):
            wanted = f"{least}" if least == most else f"{least} to {'any number' if most is None else most}"
            self._fail(2, f"{node.op.name} takes {wanted} operands, not {len(node.inputs)}", ("node", node))
        if node.op.outputs is not None and len(node.outputs) > node.op.outputs:
            self._fail(2, f"{node.op.name} has {node.op.outputs} results, not {len(node.outputs)}", ("node", node))
        problem = attribute_problem(node.op.attrs, node.attrs)
        if problem is not None:
            self._fail(2, f"{node.op.name} at {node.where}: {problem}", ("attributes", node), ("node", node))

    def _operand(self, graph: Graph, node: Node, index: int, operand: Value, defined: set[Value]) -> None:
        place = ("operand", node, index)
        what = f"operand {index} of {node.op.name} at {node.where}"
        if (node, index) not in operand.uses:
            self._fail(4, f"{what} does not list this use", place)
        if operand.constant is not None:
            self._constants.setdefault(operand, (place,))
        elif operand not in defined:
            home = operand.graph if operand.producer is None else self._nodes.get(operand.producer)
            if home is graph:
                self._fail(5, f"{what} is defined later", place)
            if home in self._graphs:
                self._fail(6, f"{what} belongs to another graph", place)
            self._fail(5, f"{what} is defined nowhere", place)

    def _results(self, node: Node) -> None:
        for index, value in enumerate(node.outputs):
            place = ("value", value)
            if value.producer is not node or value.index != index or value.constant is not None:
                self._fail(3, f"result {index} of {node.op.name} at {node.where} says it is something else", place)
            self._shape(value.type, place)
            self._uses(value, place)

    def _uses(self, value: Value, *places: Hashable) -> None:
        for node, index in value.uses:
            if node not in self._nodes:
                self._fail(4, f"a use by {node!r} is listed, which is not in the graph", *places)
            if index >= len(node.inputs) or node.inputs[index] is not value:
                self._fail(4, f"a use as operand {index} of {node!r} is listed, which is another value", *places)

    def _constant(self, value: Value, places: tuple[Hashable, ...]) -> None:
        assert value.constant is not None
        shape = tuple(int(d) for d in value.constant.shape)
        if value.type != TensorType(DType.of(value.constant.dtype), shape):
            self._fail(7, f"a constant of type {value.type} holds {value.constant!r}", ("value", value), *places)
        if value.producer is not None:
            self._fail(3, "a constant has a producer", ("value", value), *places)
        self._uses(value, ("value", value), *places)

    def _shape(self, type_: Type | None, place: Hashable) -> None:
        match type_:
            case TensorType(shape=shape) if shape is not None:
                if len(shape) > MAX_RANK or any(isinstance(d, int) and d < 0 for d in shape):
                    self._fail(8, f"{type_} is no possible shape", place)
            case SequenceType(element=element) | OptionalType(element=element):
                self._shape(element, place)

    # 9: types

    def _types(self, node: Node) -> None:
        place = ("value", node.outputs[0]) if node.outputs else ("node", node)
        try:
            inferred, infer = infer_again(node, self._root.symbols)
        except FusibleError as error:
            self._fail(9, f"inference refuses {node.op.name} at {node.where}: {error}", ("node", node))
        stated = [v.type for v in node.outputs]
        if match_types(inferred, stated, infer.defines) is None:
            for value, type_ in zip(node.outputs, inferred, strict=True):
                if match_types([type_], [value.type], infer.defines) is None:
                    place = ("value", value)
                    break
            texts = f"{', '.join(map(str, stated))}, inference gives {', '.join(map(str, inferred))}"
            self._fail(9, f"{node.op.name} at {node.where} has type {texts}", place)

    # 10, 11: symbols

    def _symbols_known(self, symbols: Iterable[Symbol], what: str, place: Hashable) -> None:
        for symbol in symbols:
            known = self._root.symbols.get(symbol.name) or self._bounds.setdefault(symbol.name, symbol)
            if known != symbol:
                self._fail(11, f"{what} knows symbol {symbol.name} with other bounds", place)
            if symbol.name not in self._available:
                self._fail(10, f"{what} needs symbol {symbol.name}, which nothing before it defines", place)

    def _define_symbol(self, name: str, place: Hashable) -> None:
        if name in self._defined:
            self._fail(11, f"symbol {name} is defined a second time", place)
        self._defined.add(name)
        self._available.add(name)

    def _definitions(self, node: Node) -> list[str]:
        standing = {s.name for v in node.outputs for s in bare_symbols(v.type)}
        for symbol in node.defines:
            if symbol.name not in standing:
                text = f"no result of {node.op.name} at {node.where} has the dimension {symbol.name}, which it defines"
                self._fail(11, text, ("node", node))
            self._define_symbol(symbol.name, ("node", node))
        return [s.name for s in node.defines]

    # 13: subgraphs

    def _subgraph(self, node: Node, subgraph: Graph) -> None:
        place = ("graph", subgraph)
        match node.op.name:
            case "if":
                self._if_signature(node, subgraph, place)
            case "loop":
                self._loop_signature(node, subgraph, place)
        for outer, inner in captured_inputs(node, subgraph):
            if outer.type != inner.type:
                text = f"captured input {inner.name!r} has type {inner.type}, outside it is {outer.type}"
                self._fail(13, text, ("value", inner))
        self._graph(subgraph, subgraph.defines)

    def _if_signature(self, node: Node, branch: Graph, place: Hashable) -> None:
        if len(node.subgraphs) != 2:
            self._fail(13, f"if has {len(node.subgraphs)} subgraphs, not 2", ("node", node))
        if len(branch.inputs) != len(node.inputs) - 1 or len(branch.outputs) != len(node.outputs):
            self._fail(13, f"branch {branch.name!r} has {_signature(branch)}, the node {_sizes(node, 1)}", place)

    def _loop_signature(self, node: Node, body: Graph, place: Hashable) -> None:
        if len(node.subgraphs) != 1:
            self._fail(13, f"loop has {len(node.subgraphs)} subgraphs, not 1", ("node", node))
        if len(body.inputs) != len(node.inputs) or len(body.outputs) != len(node.outputs) + 1:
            self._fail(13, f"body {body.name!r} has {_signature(body)}, the node {_sizes(node, 0)}", place)
        for value, dtype in zip(body.inputs, (DType.I64, DType.BOOL), strict=False):
            if value.type != TensorType(dtype, ()):
                self._fail(13, f"input {value.name!r} must be {dtype.value}[], not {value.type}", ("value", value))
        carried = node.attrs.carried
        entering, leaving = node.inputs[2 : 2 + carried], body.outputs[1 : 1 + carried]
        for value, first, last in zip(body.inputs[2 : 2 + carried], entering, leaving, strict=True):
            for given, when in ((first, "enters"), (last, "leaves")):
                if given is None or not _fits(value.type, given.type, body.defines):
                    text = f"carried value {value.name!r} of type {value.type} {when} as {given and given.type}"
                    self._fail(13, text, ("value", value))


def _signature(graph: Graph) -> str:
    return f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs"


def _sizes(node: Node, skip: int) -> str:
    return f"{len(node.inputs) - skip} operands for it and {len(node.outputs)} results"


def _fits(general: Type, given: Type, free: Sequence[Symbol]) -> bool:
    """True if values of type `given` are values of `general`, whose symbols `free` may be any dimension."""
    if match_types([general], [given], free) is not None:
        return True
    return isinstance(general, OptionalType) and general.element is not None and _fits(general.element, given, free)
