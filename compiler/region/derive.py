"""The value of a tensor at an index, derived by demand from the definitions of the nodes above it.

Element-wise nodes become maps, views change the index at which their operand is asked for, reductions and contractions
bring axes of their own (`folds.py`), composite ops are expanded, and what no node inside makes is loaded. Equal stages
are made once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from fusible.compiler.ir.definition import Composite, Contraction, Elementwise, Opaque, Positions, Reduce, Scan, View
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbol_values import substitute, symbols_of
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt, maximum, minimum
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region import folds
from fusible.compiler.region import region as parts
from fusible.compiler.region.expr import Arg, Convert, Expr, Literal, apply, replaced
from fusible.compiler.region.index import Bound, IndexMap
from fusible.compiler.region.region import Region, value_symbol
from fusible.compiler.region.tensors import NoRegion, buffer_of, holds, shape_of, type_of
from fusible.compiler.region.text import stage_key

__all__ = ["Derivation", "broadcast_index"]

_DEPTH = 150  # nodes from an output to a load; keeps the recursion within Python's limits


class Derivation:
    """A region in the making."""

    def __init__(self, nodes: Collection[Node], inputs: Sequence[Value], inline_scalars: bool) -> None:
        self.inside = set(nodes)
        self.inputs: list[Value] = list(inputs)
        self.buffers = {value: n for n, value in reversed(list(enumerate(inputs)))}
        self.inline_scalars = inline_scalars
        self.extents: list[Dim] = []
        self.stages: list[parts.Stage] = []
        self.dtypes: list[DType] = []
        self.made: dict[str, int] = {}  # canonical text of a stage -> its first value
        self.known: dict[tuple[Value, str], int] = {}
        self.formal: dict[Value, Value] = {}  # inputs of expanded graphs -> what they stand for
        self.expanded: dict[Node, Graph] = {}
        self.home: tuple[Dim, ...] = ()  # the index of the value whose axes the loops run over
        self.contracted: list[int] = []  # axes that contractions brought
        self.summed: tuple[int, ...] = ()  # axes of the contractions whose operands are being derived
        self.depth = 0

    def axis(self, number: int) -> SymInt:
        extent = self.extents[number]
        return SymInt.of(Symbol(f"i{number}", 0, max(extent - 1, 0) if isinstance(extent, int) else None))

    def new_axis(self, extent: Dim) -> int:
        self.extents.append(extent)
        return len(self.extents) - 1

    def folded_axis(self, extent: Dim, around: Collection[int], wish: Dim | None) -> Dim:
        """The axis of a reduction: one of that extent that nothing around varies over, else a new one."""
        if extent == 1:
            return 0
        free = [n for n, e in enumerate(self.extents) if e == extent and n not in around]
        wished = [n for n in free if wish is not None and self.axis(n) == wish]
        wished = [n for n in free if n in self.summed] or wished
        number = wished[0] if wished else free[-1] if free else self.new_axis(extent)
        return self.axis(number)

    def contracted_axis(self, extent: Dim, around: Collection[int]) -> SymInt:
        """The axis of a contraction: one that another contraction brought, of that extent and free, else a new one."""
        free = [n for n in self.contracted if self.extents[n] == extent and n not in around]
        if not free:
            free = [self.new_axis(extent)]
            self.contracted += free
        return self.axis(free[0])

    def emit(self, stage: parts.Stage, *dtypes: DType) -> int:
        key = stage_key(stage, dtypes)
        if key not in self.made:
            self.made[key] = len(self.dtypes)
            self.stages.append(stage)
            self.dtypes.extend(dtypes)
        return self.made[key]

    def map(self, expr: Expr, dtype: DType) -> int:
        """An expression's value; that of `Arg(n)` alone is value n if the types agree."""
        if isinstance(expr, Arg) and self.dtypes[expr.index] is dtype:
            return expr.index
        return self.emit(parts.Map(expr, dtype), dtype)

    def converted(self, value: int, dtype: DType) -> int:
        return value if self.dtypes[value] is dtype else self.map(Convert(Arg(value), dtype), dtype)

    def value(self, value: Value, index: Sequence[Dim], guard: tuple[Bound, ...] = ()) -> int:
        """The number of `value` at an index; where a bound of `guard` fails any value will do."""
        value = self.formal.get(value, value)
        key = (value, str(IndexMap(tuple(index), guard, 0)))
        if key not in self.known:
            self.depth += 1
            if self.depth > _DEPTH:
                raise NoRegion(f"more than {_DEPTH} nodes follow one another", value.producer)
            self.known[key] = self._value(value, index, guard)
            self.depth -= 1
        return self.known[key]

    def same(self, value: Value, place: IndexMap, number: int) -> None:
        """Say that `value` at a place, with or without its bounds for a guard, is value `number`."""
        self.known[value, str(IndexMap(place.components, (), 0))] = number
        self.known[value, str(IndexMap(place.components, place.bounds, 0))] = number

    def _value(self, value: Value, index: Sequence[Dim], guard: tuple[Bound, ...]) -> int:
        if value in self.buffers:
            return self.load(value, IndexMap(tuple(index), guard, 0 if guard else None))
        node = value.producer
        if node is not None and (node in self.inside or node in self.expanded):
            return self.node(node, value, index, guard)
        number = self.number(value)
        if number is not None:
            return self.emit(parts.Map(Literal(number), type_of(value).dtype), type_of(value).dtype)
        self.buffers[value] = len(self.inputs)
        self.inputs.append(value)
        return self.load(value, IndexMap(tuple(index), guard, 0 if guard else None))

    def load(self, value: Value, map_: IndexMap) -> int:
        return self.emit(parts.Load(self.buffers[value], map_), type_of(value).dtype)

    def load_of(self, number: int) -> parts.Load | None:
        first = 0
        for stage in self.stages:
            count = len(stage.dtypes) if isinstance(stage, (parts.Reduce, parts.Scan)) else 1
            if first == number:
                return stage if isinstance(stage, parts.Load) else None
            first += count
        return None

    def node(self, node: Node, value: Value, index: Sequence[Dim], guard: tuple[Bound, ...]) -> int:
        definition = node.op.definition(node)
        match definition:
            case Elementwise(expr):
                return self.elementwise(node, expr, index, guard)
            case Positions(expr):
                names: dict[str, Dim] = {f"i{n}": dim for n, dim in enumerate(index)}
                number = self.emit(parts.Index(substitute(expr, names)), DType.I64)
                return self.converted(number, type_of(value).dtype)
            case View():
                return self.view(definition, node, value, index, guard)
            case Reduce():
                return folds.derive_reduce(self, definition, node, index, guard)
            case Scan():
                return folds.derive_scan(self, definition, node, index, guard)
            case Contraction():
                return folds.derive_contraction(self, definition, node, index, guard)
            case Composite(build):
                graph = self.expanded.get(node) or build(node)
                return self.composite(node, graph, value, index, guard)
            case Opaque(reason):
                raise NoRegion(reason, node)

    def elementwise(self, node: Node, expr: Expr, index: Sequence[Dim], guard: tuple[Bound, ...]) -> int:
        shape = shape_of(node.outputs[0])
        operands: dict[int, Expr] = {}
        for position, operand in enumerate(node.inputs):
            if operand is not None:
                literal = self.literal(node, operand)
                at = broadcast_index(shape_of(operand), shape, index)
                operands[position] = literal if literal is not None else Arg(self.value(operand, at, guard))
        return self.map(replaced(expr, operands), type_of(node.outputs[0]).dtype)

    def literal(self, node: Node, operand: Value) -> Literal | None:
        """A constant of one element beside an operand of its type, from which a literal takes its own."""
        number = self.number(operand)
        others = [v for v in node.inputs if v is not None and v is not operand and self.number(v) is None]
        return Literal(number) if number is not None and any(v.type.dtype is type_of(operand).dtype for v in others
                                                             if isinstance(v.type, TensorType)) else None  # fmt: skip

    def number(self, value: Value) -> float | int | bool | None:
        """The number that a constant of one element is, if these are to become literals."""
        value = self.formal.get(value, value)
        if value.constant is None or not self.inline_scalars or value.constant.size != 1:
            return None
        number = value.constant.array.reshape(()).item()
        return number if isinstance(number, (bool, int, float)) else None

    def view(
        self, view: View, node: Node, value: Value, index: Sequence[Dim], guard: tuple[Bound, ...]
    ) -> int:
        if view.split:
            return self.viewed(node, view.operands[0], view.maps[value.index], index, guard)[0]
        result: int | None = None
        dtype = type_of(value).dtype
        for map_, which in reversed(list(zip(view.maps, view.operands, strict=True))):
            found, bounds = self.viewed(node, which, map_, index, guard)
            if bounds and result is None and map_.fill is not None:
                result = self.emit(parts.Map(Literal(map_.fill), dtype), dtype)
            if bounds and result is not None:
                test = self.emit(parts.Test(bounds), DType.BOOL)
                found = self.map(apply("select", Arg(test), Arg(found), Arg(result)), dtype)
            result = found
        assert result is not None
        return result

    def viewed(
        self, node: Node, which: int, map_: IndexMap, index: Sequence[Dim], guard: tuple[Bound, ...]
    ) -> tuple[int, tuple[Bound, ...]]:
        """The operand where a map says, and the bounds that are still to be tested: none if a load does it."""
        operand = node.inputs[which]
        assert operand is not None
        there = self.substituted(node, map_, index, guard)
        if not there.bounds:
            return self.value(operand, there.components, guard), ()
        found = self.value(operand, there.components, (*guard, *there.bounds))
        load = self.load_of(found)
        if load is not None and map_.fill is not None and not guard:
            return self.emit(parts.Load(load.buffer, replace(load.map, fill=map_.fill)), self.dtypes[found]), ()
        return found, there.bounds

    def substituted(self, node: Node, map_: IndexMap, index: Sequence[Dim], guard: tuple[Bound, ...]) -> IndexMap:
        """A definition's map with its axes replaced by an index, and its indirect reads by values."""
        names: dict[str, Dim] = {f"i{n}": dim for n, dim in enumerate(index)}
        for number, read in enumerate(map_.indirect):
            operand = node.inputs[read.operand]
            assert operand is not None
            known = self.number(operand)
            if known is not None:
                names[f"t{number}"] = int(known)
                continue
            place = tuple(substitute(c, names) for c in read.map.components)
            names[f"t{number}"] = value_symbol(self.value(operand, place, guard))
        bounds = tuple(Bound(*(substitute(d, names) for d in (b.expr, b.low, b.high))) for b in map_.bounds)
        kept = tuple(b for b in bounds if not holds(b, self.extents))
        return IndexMap(tuple(substitute(c, names) for c in map_.components), kept, map_.fill if kept else None)

    def composite(
        self, node: Node, graph: Graph, value: Value, index: Sequence[Dim], guard: tuple[Bound, ...]
    ) -> int:
        if node not in self.expanded:
            self.expanded[node] = graph
            for formal, given in zip(graph.inputs, [v for v in node.inputs if v is not None], strict=True):
                self.formal[formal] = self.formal.get(given, given)
            self.inside.update(graph)
        return self.value(graph.outputs[value.index], index, guard)

    def around(self, index: Sequence[Dim], guard: tuple[Bound, ...]) -> set[int]:
        """The axes that an index mentions, directly or through values in it."""
        found: set[int] = set()
        dims = [*index, *(d for b in guard for d in (b.expr, b.low, b.high))]
        for dim in dims:
            for symbol in symbols_of(dim):
                if symbol.name[0] == "i" and symbol.name[1:].isdigit():
                    found.add(int(symbol.name[1:]))
                elif symbol.name[0] == "v" and symbol.name[1:].isdigit():
                    found |= self.space(int(symbol.name[1:]))
        return found

    def space(self, number: int) -> frozenset[int]:
        region = Region(tuple(self.extents), tuple(buffer_of(v) for v in self.inputs), (), tuple(self.stages), ())
        return region.spaces[number]


def broadcast_index(own: Sequence[Dim], shape: Sequence[Dim], index: Sequence[Dim]) -> tuple[Dim, ...]:
    """The index of an operand that NumPy broadcasts to `shape`; a size of 1 or not takes its axis 0 or 1 times."""
    shift = len(shape) - len(own)
    found: list[Dim] = []
    for d, size in enumerate(own):
        if size == 1:
            found.append(0)
        elif size == shape[d + shift] or isinstance(size, int):
            found.append(index[d + shift])
        else:
            found.append(index[d + shift] * minimum(1, maximum(0, size - 1)))
    return tuple(found)
