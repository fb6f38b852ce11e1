"""A region as a tile of points: rows are points of the parallel axes, columns those of the axes that are folded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from fusible.compiler.backends.cpu.c_dims import coefficient
from fusible.compiler.backends.cpu.nest import Access, Nest, NotPrintable, check_repetition, check_stores, nest_of
from fusible.compiler.ir.symbol_values import substitute, symbols_of
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt, bounds_of, product
from fusible.compiler.ir.types import DType
from fusible.compiler.region.index import Bound
from fusible.compiler.region.region import Index, Reduce, Region, Scan, Test

__all__ = ["ELEMENT_TYPES", "Tile", "check_element_types", "exceeds_32_bits", "is_value", "tile_of", "tile_over"]

ELEMENT_TYPES = {
    DType.F64: "float64",
    DType.F32: "float32",
    DType.F16: "float16",
    DType.BF16: "bfloat16",
    DType.I64: "int64",
    DType.I32: "int32",
    DType.I16: "int16",
    DType.I8: "int8",
    DType.U64: "uint64",
    DType.U32: "uint32",
    DType.U16: "uint16",
    DType.U8: "uint8",
    DType.I4: "int8",
    DType.U4: "uint8",
    DType.F8E4M3FN: "uint8",
    DType.F8E5M2: "uint8",
    DType.BOOL: "int1",
}
"""What the language calls the element types that kernels take; of 4-bit integers and 8-bit floats, their bytes."""

_BYTES_ALONE = frozenset({DType.I4, DType.U4, DType.F8E4M3FN, DType.F8E5M2})
_NARROW = 2**31 - 2**17  # positions that fit 32 bits with a block behind the last


@dataclass(frozen=True)
class Tile:
    """rows, columns: the axes that are left after collapsing, the slowest first; *_points: how many points they have.

    wide: positions may exceed 32 bits. names: what symbols of axes are known to be, 0 where an axis has one index.
    """

    nest: Nest
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    row_points: Dim
    column_points: Dim
    wide: bool
    names: dict[str, Dim]
    _known: dict[Dim, Dim] = field(default_factory=dict, repr=False, compare=False)  # what `known` found

    @property
    def region(self) -> Region:
        """The region as it was built."""
        return self.nest.region

    @property
    def folds(self) -> bool:
        """True if something is folded or scanned."""
        return bool(self.nest.folded)

    @property
    def blocks(self) -> bool:
        """True if it has two dimensions."""
        return self.folds or bool(self.columns)

    def across(self, axis: int) -> Tile:
        """The tile of a region without folds, with one axis as its columns. Raises NotPrintable if it has none such."""
        if self.folds or axis not in self.rows or len(self.rows) < 2:
            raise NotPrintable(f"i{axis} cannot be the columns of its tile")
        return self.over(tuple(a for a in self.rows if a != axis), (axis,))

    def over(self, rows: tuple[int, ...], columns: tuple[int, ...]) -> Tile:
        """The tile of the same nest with other axes as its rows and columns."""
        points = _points(self.nest, rows), _points(self.nest, columns)
        return replace(self, rows=rows, columns=columns, row_points=points[0], column_points=points[1])

    def named(self, names: Mapping[str, Dim]) -> Tile:
        """The tile that knows more of its axes; what it found by what it knew before, it forgets."""
        return replace(self, names=self.names | dict(names), _known={})

    @property
    def scans(self) -> bool:
        """True if something is scanned."""
        return any(isinstance(stage, Scan) for stage in self.region.stages)

    def known(self, dim: Dim) -> Dim:
        """The expression over axes that know their extents."""
        found = self._known.get(dim)
        if found is None:
            found = self._known[dim] = substitute(dim, self.names)
        return found

    def varies(self, value: int) -> tuple[bool, bool]:
        """Whether a value differs among rows, and among columns."""
        space = self.nest.spaces[value]
        return bool(space & set(self.rows)), bool(space & set(self.columns))

    def spread(
        self, dims: tuple[Dim, ...], values: Callable[[int], tuple[bool, bool]] | None = None
    ) -> tuple[bool, bool]:
        """Whether expressions differ among rows, and among columns. values: how those that they mention do."""
        found = [self._spread(s.name, values or self.varies) for dim in dims for s in symbols_of(self.known(dim))]
        return any(rows for rows, _ in found), any(columns for _, columns in found)

    def _spread(self, name: str, values: Callable[[int], tuple[bool, bool]]) -> tuple[bool, bool]:
        if is_value(name):
            return values(int(name[1:]))
        if name[0] == "i" and name[1:].isdigit():
            return int(name[1:]) in self.rows, int(name[1:]) in self.columns
        return False, False

    def step(self, access: Access, axis: int) -> Dim | None:
        """What an access moves by along an axis; None where no one number says it."""
        if access.checked:
            return None
        return coefficient(self.known(access.offset), axis)


def is_value(name: str) -> bool:
    """True for the symbol of a value."""
    return name[0] == "v" and name[1:].isdigit()


def tile_of(region: Region) -> Tile:
    """The tile of a region without contractions whose folds run over the same axes. Raises NotPrintable."""
    check_element_types(region)
    nest = nest_of(region, scans=True)
    check_repetition(nest)
    check_stores(nest)
    tile = tile_over(nest, nest.outer, nest.folded)
    _check_order(tile)
    return tile


def check_element_types(region: Region) -> None:
    """Raise NotPrintable for element types that Triton lacks."""
    for buffer in (*region.inputs, *region.outputs):
        if buffer.dtype not in ELEMENT_TYPES:
            raise NotPrintable(f"a buffer holds {buffer.dtype.value}")
    for dtype in region.dtypes:
        if dtype not in ELEMENT_TYPES:
            raise NotPrintable(f"it computes in {dtype.value}")
    for stage in region.stages:
        if isinstance(stage, (Reduce, Scan)) and _BYTES_ALONE.intersection(stage.dtypes):
            raise NotPrintable(f"it folds numbers of type {stage.dtypes[0].value}")


def tile_over(nest: Nest, outer: tuple[int, ...], folded: tuple[int, ...]) -> Tile:
    """The tile of a nest with these axes as rows and columns; those of one index are left out."""
    names: dict[str, Dim] = {}
    for axis, extent in enumerate(nest.extents):
        most = bounds_of(extent)[1] if extent is not None else None
        if extent in (0, 1):
            names[f"i{axis}"] = 0
        elif most is not None:
            names[f"i{axis}"] = SymInt.of(Symbol(f"i{axis}", 0, max(most - 1, 0)))
    rows = tuple(a for a in outer if nest.extents[a] not in (None, 1))
    columns = tuple(a for a in folded if nest.extents[a] not in (None, 1))
    row_points, column_points = _points(nest, rows), _points(nest, columns)
    tile = Tile(nest, rows, columns, row_points, column_points, False, names)
    wide = any(exceeds_32_bits(dim) for dim in (row_points, column_points, *_positions(tile)))
    return replace(tile, wide=wide)


def _points(nest: Nest, axes: tuple[int, ...]) -> Dim:
    return product(extent for a in axes if (extent := nest.extents[a]) is not None)


def exceeds_32_bits(dim: Dim) -> bool:
    """True if positions up to a number need 64 bits, or if it is not known."""
    low, high = bounds_of(dim)
    return low is None or high is None or low < -_NARROW or high > _NARROW


def _positions(tile: Tile) -> Iterator[Dim]:
    """Sizes of buffers, and the expressions over axes that a kernel computes."""
    region = tile.region
    for buffer in (*region.inputs, *region.outputs):
        yield product(buffer.shape)
    for access in tile.nest.accesses():
        yield from _affine(tile, (access.offset, *_dims(access.bounds)))
    for stage in region.stages:
        match stage:
            case Index(expr):
                yield from _affine(tile, (expr,))
            case Test(bounds):
                yield from _affine(tile, _dims(bounds))


def _affine(tile: Tile, dims: tuple[Dim, ...]) -> Iterator[Dim]:
    """Expressions without what data give: that is of 64 bits anyway."""
    for dim in dims:
        if not any(is_value(s.name) or s.name[0] == "w" for s in symbols_of(dim)):
            yield tile.known(dim)


def _dims(bounds: tuple[Bound, ...]) -> tuple[Dim, ...]:
    return tuple(dim for bound in bounds for dim in (bound.expr, bound.low, bound.high))


def _check_order(tile: Tile) -> None:
    """Positions of extremes are told apart by their index, so the index must grow with the place."""
    region = tile.region
    kinds = {region.first_values[n]: stage for n, stage in enumerate(region.stages)}
    for stage in region.stages:
        if isinstance(stage, (Reduce, Scan)) and stage.combiner.startswith("arg"):
            index = kinds.get(stage.args[1])
            axes = stage.axes if isinstance(stage, Reduce) else (stage.axis,)
            step = coefficient(index.expr, axes[0]) if isinstance(index, Index) and len(axes) == 1 else None
            if not isinstance(step, int) or step <= 0:
                raise NotPrintable(f"{stage.combiner} keeps something else than the place of what it finds")
