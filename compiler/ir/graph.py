"""The graph IR: mutable SSA with def-use chains.

A `Graph` is an ordered list of `Node`s over `Value`s. Identity is the object, names are hints. Types are inferred
when a node is added; types and attributes are immutable. Few methods mutate: `add_node`, `constant`, `replace`,
`erase`, `set_input`, `set_outputs`. Subgraphs (If, Loop) are graphs held by their node; what they capture is an
explicit input of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fusible.compiler.ir.constant import Constant
from fusible.compiler.ir.ops import CONTENT_LIMIT, OPS, Content, Infer, Op, SymbolTable, kernel_arguments
from fusible.compiler.ir.requirements import Requirement
from fusible.compiler.ir.symbols import Symbol, SymInt, product
from fusible.compiler.ir.types import DType, TensorType, Type, type_symbols
from fusible.errors import InvalidNode, LimitExceeded, UsageError

__all__ = ["Graph", "Node", "Use", "Value", "check_arity", "infer_types", "known_content", "standing_symbols"]

MAX_RANK = 64  # NumPy's; no ONNX op needs more
Use = tuple["Node", int]


class Value:
    """The result of a node, a graph input, or a constant."""

    __slots__ = ("_content", "constant", "graph", "index", "name", "producer", "type", "uses")

    def __init__(self, type_: Type, name: str = "", producer: Node | None = None, index: int = 0) -> None:
        self.type, self.name, self.producer, self.index = type_, name, producer, index
        self.constant: Constant | None = None
        self.uses: dict[Use, None] = {}
        self.graph: Graph | None = None  # set for graph inputs
        self._content: Content | None = None

    @property
    def content(self) -> Content | None:
        """The known elements (numbers or SymInts, dtype object) of a small tensor, or None."""
        if self._content is None and self.constant is not None and self.constant.size <= CONTENT_LIMIT:
            if self.constant.dtype != object and self.constant.available:
                self._content = self.constant.array.astype(object)
        return self._content

    @property
    def users(self) -> list[Node]:
        """The nodes that use it, each once, in order."""
        return list(dict.fromkeys(node for node, _ in self.uses))

    def __repr__(self) -> str:
        return f"<Value {self.name or 'unnamed'}: {self.type}>"


class Node:
    """An application of an op. `origin`: the ONNX node names it stands for."""

    __slots__ = ("_next", "_prev", "attrs", "defines", "graph", "inputs", "op", "origin", "outputs", "subgraphs")

    def __init__(
        self,
        op: Op,
        inputs: tuple[Value | None, ...],
        attrs: Any,
        origin: tuple[str, ...],
        subgraphs: tuple[Graph, ...],
    ) -> None:
        self.op, self.inputs, self.attrs, self.origin, self.subgraphs = op, inputs, attrs, origin, subgraphs
        self.outputs: tuple[Value, ...] = ()
        self.defines: tuple[Symbol, ...] = ()  # the symbols that its result gives a value
        self.graph: Graph | None = None
        self._prev: Node | None = None
        self._next: Node | None = None

    @property
    def where(self) -> str:
        """The ONNX node names, for messages."""
        return ", ".join(repr(o) for o in self.origin) or f"a {self.op.name} made by the compiler"

    @property
    def output(self) -> Value:
        """The only output. Raises UsageError if there are more."""
        if len(self.outputs) != 1:
            raise UsageError(f"{self.op.name} at {self.where} has {len(self.outputs)} outputs, not one")
        return self.outputs[0]

    def __repr__(self) -> str:
        return f"<Node {self.op.name} at {self.where}>"


class Graph:
    """An ordered list of nodes with inputs and outputs."""

    def __init__(self, name: str = "graph", symbols: SymbolTable | None = None) -> None:
        self.name = name
        self.symbols = symbols if symbols is not None else SymbolTable()
        self.inputs: list[Value] = []
        self.defines: tuple[Symbol, ...] = ()  # symbols that the inputs' shapes give a value
        self.requirements: dict[Requirement, None] = {}  # of sizes, each once; where they do not hold, runs fail
        self._outputs: list[Value] = []
        self.output_names: list[str] = []
        self._head: Node | None = None
        self._tail: Node | None = None
        self._count = 0
        self._cursor: Node | None = None
        self._origin: tuple[str, ...] = ()

    # Reading

    def __iter__(self) -> Iterator[Node]:
        node = self._head
        while node is not None:
            following = node._next
            yield node
            # The successor may have been erased while the caller had the node.
            node = following if following is None or following.graph is self else node._next

    def __len__(self) -> int:
        return self._count

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The results, in order."""
        return tuple(self._outputs)

    def all_graphs(self) -> Iterator[Graph]:
        """This graph and every subgraph below it."""
        yield self
        for node in self:
            for subgraph in node.subgraphs:
                yield from subgraph.all_graphs()

    # Building

    def input(self, type_: Type, name: str) -> Value:
        """Append an input."""
        value = Value(type_, name)
        value.graph = self
        self.inputs.append(value)
        return value

    def input_for(self, outer: Value, name: str | None = None) -> Value:
        """Append an input that stands for a value of another graph: of its type and known content, by default its name.

        A constant's elements are not taken over: the graph is the same for every constant of the type.
        """
        value = self.input(outer.type, outer.name if name is None else name)
        value._content = outer.content if outer.constant is None else None
        return value

    def constant(self, data: np.ndarray | Constant | float | int, name: str = "") -> Value:
        """A constant value: an array (its dtype is kept) or a `Constant`."""
        constant = data if isinstance(data, Constant) else Constant(np.asarray(data))
        value = Value(TensorType(DType.of(constant.dtype), tuple(int(d) for d in constant.shape)), name)
        value.constant = constant
        return value

    def add(self, op: str | Op, *inputs: Value | None, name: str = "", **attrs: Any) -> Value:
        """Add a node with one output at the cursor (by default the end) and return the output."""
        return self.add_node(op, inputs, attrs, names=(name,)).output

    def add_node(
        self,
        op: str | Op,
        inputs: Sequence[Value | None],
        attrs: dict[str, Any] | None = None,
        *,
        outputs: int | None = None,
        names: Sequence[str] = (),
        origin: tuple[str, ...] = (),
        subgraphs: Sequence[Graph] = (),
        types: Sequence[Type] | None = None,
    ) -> Node:
        """Add a node at the cursor. Types are inferred unless given.

        Raises InvalidModel if the inputs do not fit the op, UsageError for an unknown op or attribute.
        """
        definition = OPS[op] if isinstance(op, str) else op
        node = _make_node(definition, inputs, attrs or {}, origin or self._origin, subgraphs)
        count = outputs if outputs is not None else (definition.outputs or 1)
        infer = Infer(definition, node.inputs, node.attrs, self.symbols, node.subgraphs, count, node.where)
        check_arity(infer)
        inferred = list(types) if types is not None else infer_types(infer)
        node.defines = standing_symbols(infer.defines, inferred)
        node.outputs = tuple(Value(t, names[i] if i < len(names) else "", node, i) for i, t in enumerate(inferred))
        if len(node.outputs) == 1:
            node.outputs[0]._content = known_content(infer, inferred[0])
        self.attach(node)
        return node

    def attach(self, node: Node) -> None:
        """Put a finished node of no graph at the cursor (for copies; everybody else calls `add_node`)."""
        for index, value in enumerate(node.inputs):
            if value is not None:
                value.uses[(node, index)] = None
        self._link(node, self._cursor)

    @contextmanager
    def inserting_before(self, node: Node | None, origin: tuple[str, ...] = ()) -> Iterator[None]:
        """Within the block new nodes go before `node` (None: to the end) and carry `origin` by default."""
        saved = self._cursor, self._origin
        self._cursor, self._origin = node, origin
        try:
            yield
        finally:
            self._cursor, self._origin = saved

    # Changing

    def set_outputs(self, values: Iterable[Value], names: Sequence[str] | None = None) -> None:
        """Make `values` the results (names default to the old ones, else to the values' hints)."""
        self._outputs = list(values)
        if names is not None:
            self.output_names = list(names)
        elif len(self.output_names) != len(self._outputs):
            self.output_names = [v.name for v in self._outputs]

    def set_input(self, node: Node, index: int, value: Value | None) -> None:
        """Change one operand; the types of the node's outputs must stay right (the verifier checks)."""
        old = node.inputs[index]
        if old is not None:
            old.uses.pop((node, index), None)
        node.inputs = (*node.inputs[:index], value, *node.inputs[index + 1 :])
        if value is not None:
            value.uses[(node, index)] = None

    def redirect(self, old: Value, new: Value) -> None:
        """Let every use of `old` use `new` instead."""
        if old is new:
            return
        for node, index in list(old.uses):
            owner = node.graph
            assert owner is not None
            owner.set_input(node, index, new)
        self._outputs = [new if v is old else v for v in self._outputs]

    def replace(self, node: Node, values: Value | Sequence[Value]) -> None:
        """Redirect every use of the node's outputs and erase it at once."""
        new = [values] if isinstance(values, Value) else list(values)
        if len(new) != len(node.outputs):
            raise UsageError(f"{node!r} has {len(node.outputs)} outputs, the replacement {len(new)}")
        for old, value in zip(node.outputs, new, strict=True):
            if not value.name:
                value.name = old.name
            self.redirect(old, value)
        self.erase(node)

    def erase(self, node: Node) -> None:
        """Remove a node whose outputs have no uses. Raises UsageError if one is used."""
        for value in node.outputs:
            if value.uses or any(v is value for v in self._outputs):
                raise UsageError(f"{node!r} is still used")
        _forget_uses(node)
        for inner in node.subgraphs:
            inner.release()
        self._unlink(node)

    def release(self) -> None:
        """Forget what the nodes of a graph that belongs to no node any more use: constants of other graphs."""
        for inner in self.all_graphs():
            for node in inner:
                _forget_uses(node)

    def move_before(self, node: Node, position: Node | None) -> None:
        """Move a node (None: to the end)."""
        if node is position:
            return
        self._unlink(node)
        self._link(node, position)

    def _link(self, node: Node, before: Node | None) -> None:
        after = before._prev if before is not None else self._tail
        node._prev, node._next, node.graph = after, before, self
        if after is not None:
            after._next = node
        else:
            self._head = node
        if before is not None:
            before._prev = node
        else:
            self._tail = node
        self._count += 1

    def _unlink(self, node: Node) -> None:
        if node.graph is not self:
            raise UsageError(f"{node!r} is not in graph {self.name!r}")
        if node._prev is not None:
            node._prev._next = node._next
        else:
            self._head = node._next
        if node._next is not None:
            node._next._prev = node._prev
        else:
            self._tail = node._prev
        node.graph = None
        self._count -= 1


def _make_node(
    op: Op, inputs: Sequence[Value | None], attrs: dict[str, Any], origin: tuple[str, ...], subgraphs: Sequence[Graph]
) -> Node:
    try:
        made = op.attrs(**attrs)
    except TypeError as error:
        raise UsageError(f"attributes of {op.name}: {error}") from error
    trimmed = list(inputs)
    while trimmed and trimmed[-1] is None and len(trimmed) > op.inputs[0]:
        trimmed.pop()
    return Node(op, tuple(trimmed), made, tuple(dict.fromkeys(origin)), tuple(subgraphs))


def check_arity(infer: Infer) -> None:
    """Raises InvalidModel if the op does not take that many inputs."""
    least, most = infer.op.inputs
    given = len(infer.inputs)
    if given < least or (most is not None and given > most):
        allowed = f"{least}" if least == most else f"{least} to {'any number' if most is None else most}"
        infer.fail(f"takes {allowed} inputs, got {given}")


def _forget_uses(node: Node) -> None:
    for index, operand in enumerate(node.inputs):
        if operand is not None:
            operand.uses.pop((node, index), None)


def standing_symbols(fresh: Sequence[Symbol], types: Sequence[Type]) -> tuple[Symbol, ...]:
    """Those of the fresh symbols that the inferred types kept."""
    kept = {s.name for t in types for s in type_symbols(t)} if fresh else set()
    return tuple(s for s in fresh if s.name in kept)


def infer_types(infer: Infer) -> list[Type]:
    """The types of a node's outputs. Raises InvalidModel if the inputs do not fit, LimitExceeded("rank")."""
    try:
        inferred = infer.op.infer(infer)
    except (ValueError, OverflowError, ZeroDivisionError, IndexError) as error:
        infer.fail(str(error))
    types: list[Type] = [inferred] if not isinstance(inferred, Sequence) else list(inferred)
    if len(types) != infer.outputs:
        infer.fail(f"has {len(types)} outputs, {infer.outputs} were asked for")
    for type_ in types:
        if isinstance(type_, TensorType) and type_.shape is not None:
            _check_shape(infer, type_.shape)
    return types


def _check_shape(infer: Infer, shape: Sequence[int | SymInt]) -> None:
    if len(shape) > MAX_RANK:
        raise LimitExceeded("rank", len(shape), MAX_RANK, infer.where)
    for dim in shape:
        if not infer.at_most(0, dim):
            infer.fail(f"the result would have a negative dimension {dim}")


def known_content(infer: Infer, type_: Type) -> Content | None:
    """The elements of the only output of a node where the contents of its inputs determine them; type_: its type."""
    if not isinstance(type_, TensorType) or type_.dtype is DType.STRING or not infer.op.pure or infer.subgraphs:
        return None
    shape = type_.shape
    if shape is None or (0 not in shape and not all(isinstance(d, int) for d in shape)):
        return None
    elements = product(shape)
    if not isinstance(elements, int) or elements > CONTENT_LIMIT:
        return None
    contents = [None if v is None else v.content for v in infer.inputs]
    if any(v is not None and c is None for v, c in zip(infer.inputs, contents, strict=True)):
        return infer.op.propagate(infer) if infer.op.propagate is not None else None
    if any(c is not None and any(isinstance(x, SymInt) for x in c.flat) for c in contents):
        return infer.op.propagate(infer) if infer.op.propagate is not None else None
    if infer.op.propagate is not None:
        found = infer.op.propagate(infer)
        if found is not None:
            return found
    return _compute_content(infer, type_)


def _compute_content(infer: Infer, type_: TensorType) -> Content | None:
    """Run the NumPy meaning on small, wholly known inputs."""
    arguments = kernel_arguments(infer.attrs)
    if infer.op.numpy_missing or any(_is_symbolic(a) for a in arguments.values()):
        return None
    operands = [
        None if v is None or v.content is None else v.content.astype(_storage(v))
        for v in infer.inputs
        if v is None or isinstance(v.type, TensorType)
    ]
    if len(operands) != len(infer.inputs):
        return None
    try:
        result = infer.op.numpy(*operands, **arguments)
    except (ValueError, IndexError, ZeroDivisionError, OverflowError) as error:
        raise InvalidNode(f"{infer.op.name} at {infer.where}: {error}") from error
    if not isinstance(result, np.ndarray) or result.dtype != type_.dtype.numpy or result.size > CONTENT_LIMIT:
        return None
    return result.astype(object)


def _storage(value: Value) -> np.dtype:
    assert isinstance(value.type, TensorType)
    return value.type.dtype.numpy


def _is_symbolic(attribute: object) -> bool:
    if isinstance(attribute, tuple):
        return any(_is_symbolic(a) for a in attribute)
    return isinstance(attribute, SymInt)
