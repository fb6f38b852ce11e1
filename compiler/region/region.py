"""Regions: one loop nest in static single assignment. The form below the graph: immutable, its text is its key.

A region has axes `i0`, `i1`, ... with extents, buffers it reads (`x0`, ...) and writes (`y0`, ...), and stages that
define values `v0`, `v1`, ... A value varies over some of the axes, its *space*, and is the same for all indices of the
others; a reduction takes axes away, and a later stage may run over them again. So softmax, norms and attention are one
nest, and what a printer makes of it (loops, blocks, vectors) is the printer's business.

`Load` reads a buffer through an index map, `Index` and `Test` turn axes into numbers and truth values, `Map` computes
one expression, `Reduce` folds axes with a combiner, `Scan` keeps the partial results, `Contract` is a sum of products
over axes: the anchor, for which kernels exist; what it reads is its prologue, what reads it the epilogue. Every stage
rounds its result to its own type, so that fusing moves no rounding. A `Group` is a sequence of regions with local
buffers between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeAlias

from fusible.compiler.ir.symbol_values import symbols_of
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt
from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Expr, arguments
from fusible.compiler.region.index import Bound, IndexMap

__all__ = [
    "Buffer",
    "Contract",
    "Group",
    "Index",
    "Load",
    "Map",
    "Reduce",
    "Region",
    "Scan",
    "Stage",
    "Step",
    "Store",
    "Test",
    "axes_of",
    "operands_of",
    "value_symbol",
]


@dataclass(frozen=True, slots=True)
class Buffer:
    """A tensor that is read or written: element type and shape, row-major."""

    dtype: DType
    shape: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """The element of input buffer `buffer` at `map`, or the map's fill where its bounds fail.

    Components and bounds may mention earlier integer values as symbols `v3` (gathers).
    """

    buffer: int
    map: IndexMap


@dataclass(frozen=True, slots=True)
class Index:
    """An expression over axes and shape symbols, as an integer value."""

    expr: Dim
    dtype: DType = DType.I64


@dataclass(frozen=True, slots=True)
class Test:
    """True where all the bounds hold."""

    bounds: tuple[Bound, ...]


@dataclass(frozen=True, slots=True)
class Map:
    """One expression a point; `Arg(n)` is value n. Small floats are computed in fp32 and rounded to `dtype` once."""

    expr: Expr
    dtype: DType


@dataclass(frozen=True, slots=True)
class Reduce:
    """Fold `args` over `axes` with a combiner (`combiners.py`); it gives one value for each of `dtypes`."""

    combiner: str
    axes: tuple[int, ...]
    args: tuple[int, ...]
    dtypes: tuple[DType, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """The partial results of a fold along one axis, up to and including each index (`exclusive`: without it)."""

    combiner: str
    axis: int
    args: tuple[int, ...]
    dtypes: tuple[DType, ...]
    exclusive: bool = False
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Contract:
    """The sum over `axes` of the product of `args`, accumulated at least in fp32 (integers: in `dtype`)."""

    axes: tuple[int, ...]
    args: tuple[int, ...]
    dtype: DType


@dataclass(frozen=True, slots=True)
class Store:
    """Write value `value` to output buffer `buffer` at `map`, where the map's bounds hold."""

    buffer: int
    map: IndexMap
    value: int


Stage: TypeAlias = "Load | Index | Test | Map | Reduce | Scan | Contract"


@dataclass(frozen=True)
class Region:
    """A loop nest. `extents[k]` is that of axis `ik`; the k-th result of the stages, in order, is value `vk`."""

    extents: tuple[Dim, ...]
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    stages: tuple[Stage, ...]
    stores: tuple[Store, ...]

    @cached_property
    def dtypes(self) -> tuple[DType, ...]:
        """The element type of each value."""
        return tuple(dtype for stage in self.stages for dtype in self.results(stage))

    def results(self, stage: Stage) -> tuple[DType, ...]:
        """The element types of what a stage gives."""
        match stage:
            case Load(buffer, _):
                return (self.inputs[buffer].dtype,)
            case Test():
                return (DType.BOOL,)
            case Index() | Map() | Contract():
                return (stage.dtype,)
        return stage.dtypes

    @cached_property
    def first_values(self) -> tuple[int, ...]:
        """The number of the first value of each stage."""
        numbers, total = [], 0
        for stage in self.stages:
            numbers.append(total)
            total += len(self.results(stage))
        return tuple(numbers)

    @cached_property
    def spaces(self) -> tuple[frozenset[int], ...]:
        """The axes over which each value varies."""
        found: list[frozenset[int]] = []
        for stage in self.stages:
            space = self._space(stage, found)
            found.extend([space] * len(self.results(stage)))
        return tuple(found)

    @staticmethod
    def _space(stage: Stage, known: Sequence[frozenset[int]]) -> frozenset[int]:
        space = frozenset(axes_of(stage)).union(*(known[v] for v in operands_of(stage)))
        match stage:
            case Reduce(axes=axes) | Contract(axes=axes):
                return space - frozenset(axes)
            case Scan(axis=axis):
                return space | {axis}
        return space

    @property
    def contractions(self) -> tuple[int, ...]:
        """The positions of the contractions among the stages."""
        return tuple(n for n, stage in enumerate(self.stages) if isinstance(stage, Contract))


@dataclass(frozen=True, slots=True)
class Step:
    """One region of a group: which of the group's buffers its inputs and outputs are."""

    region: Region
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Regions in order. `buffers`: the inputs first, then the outputs, then the local ones."""

    inputs: int
    outputs: int
    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]

    @staticmethod
    def of(region: Region) -> Group:
        """The group of one region."""
        count = len(region.inputs), len(region.outputs)
        step = Step(region, tuple(range(count[0])), tuple(range(count[0], sum(count))))
        return Group(*count, (*region.inputs, *region.outputs), (step,))


@lru_cache(maxsize=4096)
def value_symbol(number: int) -> SymInt:
    """The symbol by which an index map mentions value `number`; it may be negative."""
    return SymInt.of(Symbol(f"v{number}", lower=-(2**63)))


def _map_symbols(map_: IndexMap) -> Iterator[str]:
    yield from _symbol_names(map_.components)
    for bound in map_.bounds:
        yield from _symbol_names((bound.expr, bound.low, bound.high))


def _symbol_names(dims: Sequence[Dim]) -> Iterator[str]:
    for dim in dims:
        for symbol in symbols_of(dim):
            yield symbol.name


def _mentioned(stage: Stage | Store) -> Iterator[str]:
    match stage:
        case Load(_, map_) | Store(_, map_, _):
            yield from _map_symbols(map_)
        case Index(expr):
            yield from _symbol_names((expr,))
        case Test(bounds):
            yield from _map_symbols(IndexMap((), bounds))


def _numbers(names: Iterator[str], letter: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(int(n[1:]) for n in names if n[0] == letter and n[1:].isdigit()))


def axes_of(stage: Stage | Store) -> tuple[int, ...]:
    """The axes that a stage itself mentions in maps and expressions."""
    return _numbers(_mentioned(stage), "i")


def operands_of(stage: Stage | Store) -> tuple[int, ...]:
    """The values that a stage reads, those in index maps included."""
    match stage:
        case Map(expr):
            return tuple(sorted(arguments(expr)))
        case Reduce(args=args) | Scan(args=args) | Contract(args=args):
            return args
        case Store(value=value):
            return (value, *_numbers(_mentioned(stage), "v"))
    return _numbers(_mentioned(stage), "v")
