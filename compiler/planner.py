"""Graph -> plan: number the values, emit a kernel a node, decide where each value lives and how long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from fusible.compiler.backends.base import Backend, Emitted, Pending
from fusible.compiler.ir.constant import Constant
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.reinfer import bare_symbols
from fusible.compiler.ir.symbols import Dim, SymInt, dim_text, product
from fusible.compiler.ir.types import DType, SequenceType, TensorType, type_symbols
from fusible.errors import LoweringError
from fusible.kernels.aligned import aligned_array
from fusible.runtime.dims import DimText
from fusible.runtime.native.machine import usable_threads
from fusible.runtime.plan import Alloc, Buffer, Call, Copy, If, Launch, Loop, Plan, PlanValue, Step
from fusible.runtime.requirements import SizeRule

__all__ = ["Planned", "make_plan"]

_SMALL = 1 << 20  # bytes of an array that is copied to a cache line: the memory of a larger one is worth more
_WORTH_THREADS = 1 << 24  # bytes, beside which the time that threads take to start is nothing


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, the constants it numbers, the kernels it names, and the nodes that need no step."""

    plan: Plan
    constants: tuple[np.ndarray, ...]
    kernels: tuple[Emitted, ...]
    done: frozenset[Node] = frozenset()


@dataclass(slots=True)
class _Shared:
    """What all plans of one executable share."""

    backend: Backend
    constants: list[np.ndarray | Pending] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)  # id of the Constant -> its number
    keep: list[object] = field(default_factory=list)
    kernels: list[Emitted] = field(default_factory=list)
    reused: dict[str, str] = field(default_factory=dict)  # body of a kernel -> its name
    done: set[Node] = field(default_factory=set)  # nodes that need no step

    def constant(self, value: Value) -> int:
        assert value.constant is not None
        key = id(value.constant)
        if key not in self.numbers:
            self.numbers[key] = len(self.constants)
            self.keep.append(value.constant)
            constant = value.constant
            self.constants.append(Pending(constant.shape, constant.dtype, partial(_in_order, constant)))
        return self.numbers[key]

    def array(self, array: np.ndarray | Pending) -> int:
        """The number of a constant that no value of the graph has."""
        if id(array) not in self.numbers:
            self.numbers[id(array)] = len(self.constants)
            self.keep.append(array)
            self.constants.append(array)
        return self.numbers[id(array)]


def make_plan(graph: Graph, backend: Backend) -> Planned:
    """Plan a graph and its subgraphs. Raises LoweringError for a node the backend does not take."""
    shared = _Shared(backend)
    plan = _Planner(graph, shared).run()
    return Planned(plan, _computed(shared.constants), tuple(shared.kernels), frozenset(shared.done))


def _in_order(constant: Constant) -> np.ndarray:
    """Kernels read memory from its beginning: a folded transpose leaves an array that is not stored in order.

    One that has to be copied begins at a cache line, and so does a small one.
    """
    array = constant.array
    return array if array.flags.c_contiguous and array.nbytes > _SMALL else aligned_array(array)


def _computed(constants: Sequence[np.ndarray | Pending]) -> tuple[np.ndarray, ...]:
    """The arrays, those that wait copied and transposed by threads where they are large."""

    def array(one: np.ndarray | Pending) -> np.ndarray:
        return one.make() if isinstance(one, Pending) else one

    if sum(one.nbytes for one in constants if isinstance(one, Pending)) < _WORTH_THREADS:
        return tuple(map(array, constants))
    with ThreadPoolExecutor(usable_threads()) as pool:  # NumPy lets go of the interpreter while it copies
        return tuple(pool.map(array, constants))


class _Planner:
    """Plans one graph."""

    def __init__(self, graph: Graph, shared: _Shared, outer: frozenset[str] | None = None) -> None:
        """outer: the symbols that have values around a nested graph, None for the outermost one."""
        self.graph, self.shared, self.nested = graph, shared, outer is not None
        self.values: list[PlanValue] = []
        self.number: dict[Value, int] = {}
        self.steps: list[Step] = []
        self.late = {s.name for node in graph for s in node.defines}
        given = {s.name for value in graph.inputs for s in bare_symbols(value.type)}
        self.symbols = frozenset(self.late | given | (outer or frozenset()))
        self.results = dict.fromkeys(v for v in graph.outputs)
        self.buffers: list[tuple[DimText, int, int]] = []
        self.planned: set[Node] = set()
        self.homes: dict[Value, int] = {}  # value that has blocks or a buffer of its own -> the buffer
        self.divided: set[int] = set()  # buffers in which several values live
        self.bases: dict[int, set[int]] = {}  # value -> the arena values whose memory it may share
        self.viewed: set[int] = set()
        self.last_use: dict[int, int] = {}

    def run(self) -> Plan:
        inputs = [self._define(v, "input") for v in self.graph.inputs]
        for node in self.graph:
            self._node(node)
            self.planned.add(node)
        outputs = [self._result(v, position) for position, v in enumerate(self.graph.outputs)]
        self._lifetimes(outputs)
        return Plan(
            tuple(self.values),
            self._buffers(outputs),
            tuple(inputs),
            tuple(outputs),
            tuple(self._with_frees(outputs)),
            _bounds(self.graph),
            self._rules(),
        )

    def _rules(self) -> tuple[SizeRule, ...]:
        """What the sizes must satisfy, as far as they have values here: passes may have done away with a symbol."""
        return tuple(
            SizeRule(str(r.relation), _text(r.left), _text(r.right), r.where)
            for r in self.graph.requirements
            if not r.known and self.symbols.issuperset(s.name for s in r.symbols)
        )

    # Values

    def _define(self, value: Value, kind: str, index: int = -1) -> int:
        number = len(self.values)
        type_ = value.type
        if isinstance(type_, TensorType):
            shape = None if type_.shape is None else tuple(_text(d) for d in type_.shape)
            self.values.append(PlanValue(value.name, kind, type_.dtype.value, shape, index))
        else:
            self.values.append(PlanValue(value.name, kind, "", None, index))
        self.number[value] = number
        self.bases[number] = set()
        return number

    def _use(self, value: Value | None) -> int | None:
        if value is None:
            return None
        if value not in self.number and value.constant is not None:
            return self._define(value, "constant", self.shared.constant(value))
        return self.number[value]

    def _replaced(self, array: np.ndarray | Pending) -> int:
        """A constant that a kernel wants instead of an operand."""
        number = len(self.values)
        shape = tuple(int(d) for d in array.shape)
        self.values.append(PlanValue("", "constant", DType.of(array.dtype).value, shape, self.shared.array(array)))
        self.bases[number] = set()
        return number

    def _is_late(self, value: Value) -> bool:
        return any(s.name in self.late for s in type_symbols(value.type))

    # Steps

    def _node(self, node: Node) -> None:
        support = self.shared.backend.supports(node)
        if not support.ok:
            raise LoweringError(f"{node.op.name} at {node.where}", {"numpy": support.reason})
        match node.op.name:
            case "if":
                self._if(node, tuple(self._use(v) for v in node.inputs))
            case "loop":
                self._loop(node, tuple(self._use(v) for v in node.inputs))
            case _:
                self._kernel(node)

    def _kernel(self, node: Node) -> None:
        if self.shared.backend.done(node):
            for value in node.outputs:
                self._place(value, self._define(value, "arena"))
            self.shared.done.add(node)
            return
        emitted = self._emit(node)
        read = node.inputs if emitted.inputs is None else emitted.inputs
        inputs = tuple(
            self._replaced(emitted.constants[n]) if n in emitted.constants else self._use(v) for n, v in enumerate(read)
        )
        dims = tuple(_text(d) for d in emitted.dims)
        if not emitted.writes:
            outputs = tuple(self._define(v, "returned") for v in node.outputs)
            shared = set().union(*(self.bases[i] for i in inputs if i is not None)) if inputs else set()
            for number in outputs:
                self.bases[number] |= shared
            self.viewed |= shared
            self.steps.append(Call(emitted.name, inputs, outputs, dims, node.origin, node.op.name, emitted.view))
            return
        outputs = tuple(self._define(v, self._kind(v)) for v in node.outputs)
        for value, number in zip(node.outputs, outputs, strict=True):
            if self.values[number].kind == "late":
                self.values[number] = self.values[number]._replace(order=self.shared.backend.order(value))
                self.steps.append(Alloc(number, node.origin))
            elif self.values[number].kind == "arena":
                self._place(value, number)
        self._try_inplace(emitted.inplace, node, read, inputs, outputs)
        self.steps.append(Launch(emitted.name, inputs, outputs, dims, node.origin, node.op.name))

    def _kind(self, value: Value) -> str:
        if self._is_late(value):
            return "late"
        return "output" if value in self.results else "arena"

    def _emit(self, node: Node) -> Emitted:
        name = f"step_{len(self.shared.kernels):03d}_{node.op.name.replace(':', '_')}"
        emitted = self.shared.backend.emit(node, _identifier(name))
        if not emitted.native:
            self.shared.kernels.append(emitted)
        return emitted

    def _place(self, value: Value, number: int) -> None:
        """Give an arena value its place: a buffer of its own, or a block of that of a larger value."""
        backend, old = self.shared.backend, self.values[number]
        block = backend.block(value)
        root = value if block is None else block.root
        if root not in self.homes:
            assert isinstance(root.type, TensorType) and root.type.shape is not None
            self.homes[root] = len(self.buffers)
            nbytes = product(root.type.shape) * root.type.dtype.numpy.itemsize
            self.buffers.append((_text(nbytes), len(self.steps), len(self.steps)))
        made = old._replace(kind="arena", index=self.homes[root], order=backend.order(value))
        if block is not None:
            self.divided.add(made.index)
            made = made._replace(whole=tuple(map(_text, block.whole)), corner=tuple(map(_text, block.corner)))
        self.values[number] = made
        self.bases[number] = {number}

    def _try_inplace(
        self,
        positions: Sequence[int],
        node: Node,
        read: Sequence[Value | None],
        inputs: Sequence[int | None],
        outputs: Sequence[int],
    ) -> None:
        """Let output 0 take over the buffer of an operand that dies here and that nothing else looks at."""
        if len(outputs) != 1 or self.values[outputs[0]].kind != "arena":
            return
        for position in positions:
            operand, number = read[position], inputs[position]
            if operand is None or number is None or self.values[number].kind != "arena":
                continue
            read_later = any(user is not node and user not in self.planned for user, _ in operand.uses)
            if read_later or operand in self.results or number in self.viewed:
                continue
            if self.values[number].shape != self.values[outputs[0]].shape:
                continue
            if self.values[number].order != self.values[outputs[0]].order:
                continue
            if self.values[number].index in self.divided or self.values[outputs[0]].index in self.divided:
                continue
            self.buffers.pop()
            self.homes[node.outputs[0]] = self.values[number].index
            self.values[outputs[0]] = self.values[outputs[0]]._replace(index=self.values[number].index)
            return

    def _if(self, node: Node, inputs: tuple[int | None, ...]) -> None:
        then, otherwise = (_Planner(g, self.shared, self.symbols).run() for g in node.subgraphs)
        outputs = tuple(self._define(v, "returned") for v in node.outputs)
        assert inputs[0] is not None
        self.steps.append(If(inputs[0], inputs[1:], outputs, then, otherwise, node.origin))

    def _loop(self, node: Node, inputs: tuple[int | None, ...]) -> None:
        body = _Planner(node.subgraphs[0], self.shared, self.symbols).run()
        outputs = tuple(self._define(v, "returned") for v in node.outputs)
        self.steps.append(Loop(inputs[0], inputs[1], inputs[2:], node.attrs.carried, outputs, body, node.origin))

    def _result(self, value: Value, position: int) -> int:
        """The number of an output: memory that the caller will own, so copied where it is anybody else's."""
        number = self._use(value)
        assert number is not None
        first = next(i for i, v in enumerate(self.graph.outputs) if v is value) == position
        kind = self.values[number].kind
        if first and (kind in ("output", "late") or (kind == "returned" and _fresh(value))):
            return number
        if self.nested and isinstance(value.type, SequenceType):
            # What enters a list is copied then, and lists never change: a loop that grows one need not copy it anew.
            return number
        copy = Value(value.type, value.name)
        target = self._define(copy, "returned")
        self.steps.append(Copy(number, target))
        return target

    # Lifetimes

    def _lifetimes(self, outputs: Iterable[int]) -> None:
        for position, step in enumerate(self.steps):
            for number in _reads(step):
                for base in self.bases[number]:
                    self.last_use[base] = position
                self.last_use[number] = position
            for number in _writes(step):
                self.last_use[number] = position  # a late one is allocated first, and may be read by nobody
        for number in outputs:
            self.last_use[number] = len(self.steps)

    def _buffers(self, outputs: Sequence[int]) -> tuple[Buffer, ...]:
        first = [b[1] for b in self.buffers]
        last = list(first)
        for number, value in enumerate(self.values):
            if value.kind == "arena":
                last[value.index] = max(last[value.index], self.last_use.get(number, 0))
        return tuple(Buffer(b[0], f, max(f, e)) for b, f, e in zip(self.buffers, first, last, strict=True))

    def _with_frees(self, outputs: Sequence[int]) -> list[Step]:
        keep = set(outputs)
        dying: dict[int, list[int]] = {}
        for number, value in enumerate(self.values):
            if value.kind in ("returned", "late") and number not in keep:
                dying.setdefault(self.last_use.get(number, 0), []).append(number)
        return [_freeing(s, tuple(dying.get(p, ()))) for p, s in enumerate(self.steps)]


def _fresh(value: Value) -> bool:
    """True for results that nobody else holds: the tensors of sub-plans (their lists may share what entered them)."""
    of_plan = value.producer is not None and value.producer.op.name in ("if", "loop")
    return of_plan and isinstance(value.type, TensorType)


def _freeing(step: Step, free: tuple[int, ...]) -> Step:
    return step._replace(free=free) if free else step


def _reads(step: Step) -> list[int]:
    found: list[int | None] = []
    match step:
        case Launch() | Call():
            found = [*step.inputs]
        case If():
            found = [step.condition, *step.inputs]
        case Loop():
            found = [step.trip, step.condition, *step.inputs]
        case Copy():
            found = [step.source]
    return [n for n in found if n is not None]


def _writes(step: Step) -> tuple[int, ...]:
    return (step.output,) if isinstance(step, (Copy, Alloc)) else step.outputs


def _text(dim: Dim) -> DimText:
    return dim_text(dim) if isinstance(dim, SymInt) else int(dim)


def _identifier(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name)


def _bounds(graph: Graph) -> dict[str, tuple[int, int | None]]:
    """Bounds of the symbols that this graph's inputs define, where they say more than `>= 0`."""
    return {s.name: (s.lower, s.upper) for s in graph.defines if (s.lower, s.upper) != (0, None)}
