"""Attention in a region: two products with a softmax between them, whatever the target.

Between the first product and the softmax may stand anything that is computed point by point (scale, mask, soft cap): a
kernel calls it for a tile of scores. What follows the second product is the kernel's epilogue.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from fusible.compiler.backends.cpu.c_dims import coefficient
from fusible.compiler.backends.cpu.nest import Access, NotPrintable
from fusible.compiler.ir.symbol_values import substitute, symbols_of
from fusible.compiler.ir.symbols import Call, Dim, Symbol, SymInt, dim_text, floordiv
from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Apply, Arg, Convert, Expr, Literal
from fusible.compiler.region.prune import moved_map, renamed_stage
from fusible.compiler.region.region import Contract, Index, Load, Map, Reduce, Region, Scan, operands_of

__all__ = [
    "Attention",
    "Guard",
    "Window",
    "attention_of",
    "heads_as_queries",
    "leading_to",
    "step_of",
    "window_of",
]

LARGEST_HEAD = 256


class Guard(Enum):
    """What a query gets that attends no key: NaN, as a softmax has it, or zeros, by one of two ways to say so."""

    NONE = "none"
    NEVER = "the largest score is -infinity"
    NAN = "the weights are not a number"


@dataclass(frozen=True)
class Attention:
    """The parts of attention: stages of q, k, v (loads), the two products, the softmax's operand, and the axes.

    query: the axis of the queries, None where there is one query only. leading: the axes of batch and head. turned: the
    stages, in order, that make q where it is no load but computed element by element, as rotary embedding does; q is
    the last of them.
    """

    region: Region
    q: int
    k: int
    v: int
    scores: int  # the first product
    softened: int  # the value that the softmax takes
    output: int  # the second product
    scale: float
    leading: tuple[int, ...]
    query: int | None
    key: int
    column: int
    size: int  # of a head
    guard: Guard
    turned: tuple[int, ...] = ()

    @property
    def others(self) -> tuple[int, ...]:
        """The axes that neither product has."""
        own = {*self.leading, self.query, self.key, self.column, self.size}
        return tuple(n for n in range(len(self.region.extents)) if n not in own)


@dataclass(frozen=True, slots=True)
class Window:
    """Keys that query r may attend: r + low <= key <= r + high; None: no such bound."""

    low: Dim | None = None
    high: Dim | None = None


def attention_of(
    region: Region, elements: Collection[DType] = (DType.F32,), *, computed: bool = False
) -> Attention:
    """The attention that a region is, with operands of these element types. Raises NotPrintable.

    computed: whether queries may be computed in the region, element by element, where no load is the operand. The
    region of the result is another one where heads lie side by side in the rows of the operands: they get an axis of
    their own.
    """
    if len(region.contractions) != 2:
        raise NotPrintable("it has several contractions")
    first, last = region.contractions
    scores, output = region.stages[first], region.stages[last]
    assert isinstance(scores, Contract) and isinstance(output, Contract)
    if output.dtype is not DType.F32 or scores.dtype is not DType.F32 or len(output.axes) != 1 or len(scores.axes) != 1:
        raise NotPrintable("it has several contractions, which are no attention in f32")
    finder = _Finder(region, frozenset(elements))
    key, size = output.axes[0], scores.axes[0]
    v, weights = finder.load_and_other(output)
    softened, softmax, guard = finder.softmax(weights, key)
    ahead, behind = sorted(scores.args, key=lambda value: key in region.spaces[value])
    if any(isinstance(s, Reduce | Scan) and n not in softmax for n, s in enumerate(region.stages)):
        raise NotPrintable("it folds something beside its softmax")
    k, k_scale = finder.scaled_load(behind)
    q, q_scale, turned = finder.queries(ahead, computed=computed)
    apart = _heads_apart(region, (q, k), v, finder)
    if apart is not None:
        return attention_of(apart, elements, computed=computed)
    space = region.spaces[region.first_values[last]]
    query, leading, column = finder.axes(q, k, v, key, size, space)
    finder.check_closed({first, last, q, k, v, *softmax, *finder.path})
    scale = q_scale * k_scale
    return Attention(
        region, q, k, v, first, softened, last, scale, leading, query, key, column, size, guard, turned
    )  # fmt: skip


def _heads_apart(region: Region, scored: Collection[int], v: int, finder: _Finder) -> Region | None:
    """The region with columns that are those of all heads as an axis of heads and one of columns; None for others.

    In rows [tokens, heads * size], as the operator Attention takes them, one axis of the result goes through both, and
    what the scores are made of tells the heads apart by dividing.
    """
    shared = finder.space(v) & frozenset().union(*map(finder.space, scored))
    if finder.space(v) - frozenset().union(*map(finder.space, scored)):
        return None
    for axis in sorted(shared):
        maps = [stage.map for stage in (region.stages[p] for p in scored) if isinstance(stage, Load)]
        widths = {w for map_ in maps for component in map_.components for w in _divisors(component, f"i{axis}")}
        width, extent = min(widths, default=1), region.extents[axis]
        if width > 1 and isinstance(extent, int) and extent % width == 0 and all(w % width == 0 for w in widths):
            return _split_axis(region, axis, width)
    return None


def _divisors(dim: Dim, name: str) -> Iterator[int]:
    """The numbers by which an expression divides a symbol, rounding down."""
    if isinstance(dim, int):
        return
    for atom in (atom for monomial, _ in dim.terms for atom in monomial):
        if isinstance(atom, Call):
            dividend, divisor = atom.args
            if atom.function == "floordiv" and isinstance(divisor, int) and dim_text(dividend) == name:
                yield divisor
            for argument in atom.args:
                yield from _divisors(argument, name)


def heads_as_queries(attention: Attention) -> Region | None:
    """For one query: the region with the query heads that share a key head as an axis of their own; None for no such.

    They become the queries of a block, so that the keys are read once for all of them.
    """
    region = attention.region
    for axis in attention.leading if attention.query is None else ():
        heads = region.extents[axis]
        for group in range(2, heads + 1 if isinstance(heads, int) else 0):
            if heads % group == 0 and _shared(attention, axis, group):
                return _split_axis(region, axis, group)
    return None


def _shared(attention: Attention, axis: int, group: int) -> bool:
    """True if keys and values belong to groups of so many indices of an axis."""
    region = attention.region
    heads = region.extents[axis]
    assert isinstance(heads, int)
    divided = floordiv(SymInt.of(Symbol(f"i{axis}", 0, heads - 1)), group)
    for position in (attention.k, attention.v):
        stage = region.stages[position]
        assert isinstance(stage, Load)
        own = [c for c in stage.map.components if any(s.name == f"i{axis}" for s in symbols_of(c))]
        if own != [divided]:
            return False
    return True


def _split_axis(region: Region, axis: int, size: int) -> Region:
    """The region with an axis cut into pieces of a size, whose places are a new last axis."""
    extent = region.extents[axis]
    assert isinstance(extent, int)
    new = len(region.extents)
    outer = SymInt.of(Symbol(f"i{axis}", 0, extent // size - 1))
    names: dict[str, Dim] = {f"i{axis}": outer * size + SymInt.of(Symbol(f"i{new}", 0, size - 1))}
    same = {v: v for v in range(len(region.dtypes))}
    axes = {a: a for a in range(new)}
    return replace(
        region,
        extents=(*(extent // size if a == axis else e for a, e in enumerate(region.extents)), size),
        stages=tuple(renamed_stage(stage, same, axes, names) for stage in region.stages),
        stores=tuple(replace(store, map=moved_map(store.map, names)) for store in region.stores),
    )


class _Finder:
    def __init__(self, region: Region, elements: frozenset[DType]) -> None:
        self.region, self.elements = region, elements
        self.positions = {v: p for p, f in enumerate(region.first_values) for v in range(f, f + self._count(p))}
        self.path: set[int] = set()

    def _count(self, position: int) -> int:
        return len(self.region.results(self.region.stages[position]))

    def space(self, position: int) -> frozenset[int]:
        return self.region.spaces[self.region.first_values[position]]

    def load_and_other(self, contract: Contract) -> tuple[int, int]:
        """(stage of the operand that is a load, value of the other one)."""
        if len(contract.args) == 2:
            for value, other in (contract.args, contract.args[::-1]):
                position = self.positions[self.converted(value)]
                if isinstance(self.region.stages[position], Load):
                    return self.checked(position), other
        raise NotPrintable("its second product reads no operand as it is")

    def checked(self, position: int) -> int:
        """The stage of an operand, which must be a load of elements that are taken."""
        stage = self.region.stages[position]
        assert isinstance(stage, Load)
        dtype = self.region.inputs[stage.buffer].dtype
        if dtype not in self.elements:
            raise NotPrintable(f"an operand of its product is {dtype.value}")
        return position

    def converted(self, value: int) -> int:
        """The value that another is under casts to types of the operands, or to f32, which the kernel computes in."""
        stage = self.region.stages[self.positions[value]]
        match stage:
            case Map(Convert(Arg(inner), dtype)) if dtype is DType.F32 or dtype in self.elements:
                self.path.add(self.positions[value])
                return self.converted(inner)
        return value

    def _expr(self, value: int) -> Expr:
        value = self.converted(value)
        stage = self.region.stages[self.positions[value]]
        if not isinstance(stage, Map) or (stage.dtype is not DType.F32 and stage.dtype not in self.elements):
            raise NotPrintable("what its products have between them is no softmax")
        self.path.add(self.positions[value])
        return stage.expr

    def _fold(self, value: int, combiner: str, key: int) -> int:
        stage = self.region.stages[self.positions[value]]
        if not isinstance(stage, Reduce) or stage.combiner != combiner or stage.axes != (key,):
            raise NotPrintable("what its products have between them is no softmax over the keys")
        return stage.args[0]

    def softmax(self, value: int, key: int) -> tuple[int, set[int], Guard]:
        """(the softmax's operand, its stages, what guards it)."""
        expr = self._expr(value)
        condition: Expr | None = None
        chosen: Expr | None = None
        if isinstance(expr, Apply) and expr.function == "select" and expr.args[1] == Literal(0.0):
            condition, chosen = expr.args[0], expr.args[2]
            expr = self._through(chosen)
        match expr:
            case Apply("div", (Arg(exponential), Arg(total))):
                pass
            case _:
                raise NotPrintable("what its products have between them is no softmax")
        raised = self._expr(exponential)
        inside = self._through(raised.args[0]) if isinstance(raised, Apply) and raised.function == "exp" else None
        match inside:
            case Apply("sub", (Arg(operand), Arg(top))):
                pass
            case _:
                raise NotPrintable("what its products have between them is no softmax")
        if self._fold(total, "sum", key) != exponential or self._fold(top, "max", key) != operand:
            raise NotPrintable("what its products have between them is no softmax")
        stages = {self.positions[v] for v in (exponential, total, top)}
        guard = self._guard(condition, chosen, top, stages)
        return operand, stages, guard

    def _guard(self, condition: Expr | None, chosen: Expr | None, top: int, stages: set[int]) -> Guard:
        """What the condition says under which the weights are zero."""
        if condition is None or chosen is None:
            return Guard.NONE
        if isinstance(condition, Arg):
            position = self.positions[condition.index]
            stages.add(position)
            stage = self.region.stages[position]
            condition = stage.expr if isinstance(stage, Map) else condition
        if condition == Apply("eq", (Arg(top), Literal(float("-inf")))):
            return Guard.NEVER
        if condition == Apply("isnan", (chosen,)):
            return Guard.NAN
        raise NotPrintable("its softmax is guarded in a way of its own")

    def _through(self, expr: Expr) -> Expr:
        """The expression that a lone argument stands for."""
        return self._expr(expr.index) if isinstance(expr, Arg) else expr

    def scaled_load(self, value: int) -> tuple[int, float]:
        """(stage, factor) of an operand that is a load, or a load times a number."""
        value = self.converted(value)
        stage = self.region.stages[self.positions[value]]
        if isinstance(stage, Load):
            return self.checked(self.positions[value]), 1.0
        match self._expr(value):
            case Apply("mul", (Arg(inner), Literal(number)) | (Literal(number), Arg(inner))):
                position, factor = self.scaled_load(inner)
                return position, factor * float(number)
            case Apply("div", (Arg(inner), Literal(number))) if number:
                position, factor = self.scaled_load(inner)
                return position, factor / float(number)
        raise NotPrintable("an operand of its first product is computed in the region")

    def queries(self, value: int, *, computed: bool) -> tuple[int, float, tuple[int, ...]]:
        """(stage, factor, stages that compute it) of the queries: a load, or what is computed element by element."""
        before = set(self.path)
        try:
            return *self.scaled_load(value), ()
        except NotPrintable:
            if not computed:
                raise
        self.path = before
        region = self.region
        match region.stages[self.positions[value]]:
            case Map(Convert(Arg(inner), DType.F32)) if region.dtypes[inner] in self.elements:
                self.path.add(self.positions[value])
                value = inner
        if region.dtypes[value] not in self.elements:
            raise NotPrintable(f"its queries are computed in {region.dtypes[value].value}")
        stages = leading_to(region, value, -1)
        return self.positions[value], 1.0, tuple(stages)

    def axes(
        self, q: int, k: int, v: int, key: int, size: int, space: frozenset[int]
    ) -> tuple[int | None, tuple[int, ...], int]:
        """(the queries' axis, those of batch and head, that of the columns)."""
        queries = self.space(q) - self.space(k) - self.space(v) - {size}
        columns = self.space(v) - self.space(q) - self.space(k)
        if len(columns) != 1 or not {size, key} <= self.space(k) or size not in self.space(q):
            raise NotPrintable("its queries, keys and columns are not an axis each")
        query, column = max(queries, default=None), next(iter(columns))
        leading = tuple(sorted(space - {query, column}))
        extent, width = self.region.extents[size], self.region.extents[column]
        if not isinstance(extent, int) or not isinstance(width, int) or max(extent, width) > LARGEST_HEAD:
            raise NotPrintable(f"the size of its heads is not known, or above {LARGEST_HEAD}")
        return query, leading, column

    def check_closed(self, stages: set[int]) -> None:
        """Raise NotPrintable if something outside reads what only these stages make."""
        region = self.region
        made = {region.first_values[p] for p in stages}
        first, last = (region.first_values[p] for p in region.contractions)
        for position, stage in enumerate(region.stages):
            if position not in stages and made & set(operands_of(stage)) - {first, last}:
                raise NotPrintable("a part of its softmax is used elsewhere in the region")
        if any(made & set(operands_of(store)) - {last} for store in region.stores):
            raise NotPrintable("a part of its softmax is stored")


def leading_to(region: Region, value: int, product: int) -> list[int]:
    """The stages that make a value of a product's result, in order. Raises NotPrintable if there is a fold among them.

    product: the value of the product.
    """
    positions = {v: p for p, v in enumerate(region.first_values)}
    found: set[int] = set()
    waiting = [value]
    while waiting:
        wanted = waiting.pop()
        if wanted == product or positions[wanted] in found:
            continue
        if isinstance(region.stages[positions[wanted]], (Reduce, Contract)):
            raise NotPrintable("its scores depend on a fold")
        found.add(positions[wanted])
        waiting += operands_of(region.stages[positions[wanted]])
    return sorted(found)


def step_of(access: Access, axis: int | None) -> Dim:
    """The distance in memory from one index of an axis to the next. Raises NotPrintable if it is not the same for all.

    It may depend on nothing but the sizes.
    """
    if axis is None:
        return 0
    step = coefficient(access.offset, axis)
    if step is None or any(s.name[0] == "i" and s.name[1:].isdigit() for s in symbols_of(step)):
        raise NotPrintable("an operand of its products does not lie in even steps")
    return step


def window_of(attention: Attention) -> Window:
    """The bounds on keys that conditions on indices give, as a causal mask does; others are found out key by key."""
    lows: list[Dim] = []
    highs: list[Dim] = []
    for near, far, strict in _ordered_places(attention):
        gap = _gap(attention, near, far)  # key <= query + gap
        if gap is not None:
            highs.append(gap - 1 if strict else gap)
        gap = _gap(attention, far, near)  # query + gap <= key, from the other side
        if gap is not None:
            lows.append(gap + 1 if strict else gap)
    return Window(lows[0] if lows else None, highs[0] if highs else None)


_ORDERS = {"le": (0, 1, False), "lt": (0, 1, True), "ge": (1, 0, False), "gt": (1, 0, True)}


def _ordered_places(attention: Attention) -> Iterator[tuple[Dim, Dim, bool]]:
    """(a, b, whether a < b and not only a <= b) of the conditions outside which a score is -infinity."""
    region = attention.region
    positions = {v: p for p, v in enumerate(region.first_values)}
    value = attention.softened
    while True:
        stage = region.stages[positions[value]]
        match stage:
            case Map(Convert(Arg(inner))):
                value = inner
            case Map(Apply("select", (condition, Arg(inner), Literal(number)))) if number == float("-inf"):
                value = inner
                if isinstance(condition, Arg):
                    known = region.stages[positions[condition.index]]
                    condition = known.expr if isinstance(known, Map) else condition
                match condition:
                    case Apply(function, (Arg(a), Arg(b))) if function in _ORDERS:
                        first, second, strict = _ORDERS[function]
                        places = [_place(region, positions, v) for v in (a, b)]
                        near, far = places[first], places[second]
                        if near is not None and far is not None:
                            yield near, far, strict
            case _:
                return


def _place(region: Region, positions: Mapping[int, int], value: int) -> Dim | None:
    """The expression over axes that a value is, if it is one, a number added or not."""
    match region.stages[positions[value]]:
        case Index(expr):
            return expr
        case Map(Apply("add" | "sub" as function, (Arg(inner), Literal(number)))) if isinstance(number, int):
            place = _place(region, positions, inner)
            return None if place is None else place + number if function == "add" else place - number
    return None


def _gap(attention: Attention, key: Dim, query: Dim) -> Dim | None:
    """query's constant part less key's, if the two are the place of a key and of a query."""
    place: Dim | None
    if attention.query is None:
        place = 0 if coefficient(query, attention.key) == 0 else None
    else:
        place = coefficient(query, attention.query)
        if place != 1 or coefficient(query, attention.key) != 0 or coefficient(key, attention.query) != 0:
            return None
    if place is None or coefficient(key, attention.key) != 1:
        return None
    gap = substitute(query, _zero(attention)) - substitute(key, _zero(attention))
    return None if any(s.name[0] == "i" and s.name[1:].isdigit() for s in symbols_of(gap)) else gap


def _zero(attention: Attention) -> dict[str, Dim]:
    axes = [a for a in (attention.query, attention.key) if a is not None]
    return {f"i{a}": 0 for a in axes}
