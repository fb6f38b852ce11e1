"""What a region's contraction is: which axes are its batch, rows, columns and depth, and how its constants should lie.

Axes of both operands are the batch, those of the left one alone the rows, those of the right one alone the columns. An
axis that one operand divides, as grouped convolutions divide their output channels, is taken apart first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from fusible.compiler.backends.cpu.c_dims import coefficient, flat_offset
from fusible.compiler.backends.cpu.nest import Nest, NotPrintable, nest_of
from fusible.compiler.backends.triton.anonymous import anonymous
from fusible.compiler.backends.triton.f32_products import IEEE, TF32, TF32X3, multiplied_as
from fusible.compiler.backends.triton.tile import Tile, check_element_types, tile_over
from fusible.compiler.backends.triton.whole_numbers import exact_kind
from fusible.compiler.ir.symbol_values import symbols_of
from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.ir.types import DType
from fusible.compiler.region.digits import divisors_of, with_digits
from fusible.compiler.region.expr import functions_in
from fusible.compiler.region.phases import with_phases
from fusible.compiler.region.region import Contract, Load, Map, Reduce, Region, Scan, operands_of
from fusible.compiler.region.reorder import Order, reordered
from fusible.compiler.region.scales import FLOATS8

__all__ = ["Contraction", "Unsuited", "axes_of", "contraction_of", "stages_of", "sum_orders"]

_FLOATS = frozenset({DType.F32, DType.F16, DType.BF16})
_HEAVY = frozenset({"erf", "tanh", "exp", "sigmoid", "log", "pow", "sin", "cos", "atan", "expm1", "log1p"})
_ACCESS_BYTES = 16


class Unsuited(NotPrintable):
    """The contraction is no product of tiles: it may still be printed as a sum."""


@dataclass(frozen=True)
class Contraction:
    """tile: of the result, whose region has its symbols renamed, digits taken apart and `repacked` inputs reordered.

    symbols: what the new names stand for. position: of the contraction among the stages. left, right: the values it
    multiplies, as `kind`; sums are held as `accumulator`. depth: its axes, the slowest first. half: one more that has
    two indices, both taken in each step, if there is a packed operand. precision: how f32 is multiplied
    (`f32_products`).
    """

    tile: Tile
    symbols: dict[str, Dim]
    position: int
    left: int
    right: int
    kind: DType
    accumulator: DType
    batch: tuple[int, ...]
    depth: tuple[int, ...]
    repacked: Mapping[int, Order]
    half: int | None = None
    precision: str = IEEE

    @property
    def region(self) -> Region:
        """The region that is printed."""
        return self.tile.region

    @property
    def heavy(self) -> bool:
        """True if functions that take long are computed of each sum."""
        region = self.region
        stored = [v for store in region.stores for v in operands_of(store)]
        after = [region.stages[n] for n in stages_of(region, stored, self.position)]
        return any(isinstance(s, Map) and _HEAVY.intersection(functions_in(s.expr)) for s in after)

    @property
    def loads(self) -> tuple[int, int]:
        """How many blocks a step loads for the left and for the right operand: loads that vary along the depth."""
        return self._loads(self.left), self._loads(self.right)

    def _loads(self, operand: int) -> int:
        region, depth = self.region, set(self.depth)
        loads = [n for n in stages_of(region, [operand]) if isinstance(region.stages[n], Load)]
        return max(1, sum(bool(depth & region.spaces[region.first_values[n]]) for n in loads))

    def points(self, axes: Sequence[int]) -> Dim:
        """How many points some axes have."""
        return product(extent for a in axes if (extent := self.tile.nest.extents[a]) is not None)


@dataclass(frozen=True)
class _Roles:
    """The axes of more than one index by the operands that vary over them."""

    batch: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]


def contraction_of(
    region: Region,
    constants: Collection[int] = (),
    *,
    precision: str = IEEE,
    half: int | None = None,
    phases: bool = True,
) -> Contraction:
    """The contraction of a region that has one.

    constants: inputs that may be stored in another order. precision: how f32 is multiplied where it is worth it; the
    right operand of matrix units that read tf32 lies by depth. half: the axis that says in which half of a byte an
    element is. phases: those of a transposed convolution become a batch.
    Raises Unsuited where it is no product of tiles, NotPrintable for other reasons.
    """
    check_element_types(region)
    region, symbols = anonymous(region)
    (position,) = region.contractions
    contract = region.stages[position]
    assert isinstance(contract, Contract)
    if len(contract.args) != 2:
        raise Unsuited(f"its contraction multiplies {len(contract.args)} operands")
    kind = _kind(region, contract)
    _check_epilogue(region, position)
    region = _apart(with_phases(region, position) if phases else region, position)
    nest = nest_of(region, contraction=position)
    roles = _roles(nest, *contract.args)
    left, right = contract.args
    if _last(nest, roles) in roles.left:  # neighbours in the result are columns
        left, right = right, left
        roles = _Roles(roles.batch, roles.right, roles.left)
    depth = _depth_order(region, position, left, right, constants)
    precision = multiplied_as(precision, kind, _sides(nest, roles, depth))
    repacked = {
        **_repacked(region, left, depth, constants, True),
        **_repacked(region, right, depth, constants, precision == TF32, splits=precision == TF32X3),
    }
    repacked = {n: order for n, order in repacked.items() if order != tuple(range(len(order)))}
    nest = nest_of(reordered(region, repacked, {}), contraction=position, depths=depth)
    roles = _roles(nest, left, right)
    tile = tile_over(nest, _rows(nest, roles), roles.right)
    depth = tuple(a for a in nest.folded if nest.extents[a] not in (None, 1) and a != half)
    accumulator = DType.I32 if contract.dtype is DType.I32 else DType.F32
    operands = left, right, kind, accumulator
    return Contraction(tile, symbols, position, *operands, roles.batch, depth, repacked, half, precision)


def _kind(region: Region, contract: Contract) -> DType:
    """The type that operands are multiplied in. Raises Unsuited if matrix units have none such."""
    operands = [region.dtypes[v] for v in contract.args]
    kinds = set(operands)
    exact = exact_kind(region, contract.args) if contract.dtype is DType.I32 else None
    if exact is not None:
        return exact
    if len(kinds) == 1 and kinds <= FLOATS8 and contract.dtype is DType.F32:
        return kinds.pop()
    if not kinds <= _FLOATS or contract.dtype not in _FLOATS:
        raise Unsuited(f"products of {' and '.join(k.value for k in operands)} as {contract.dtype.value} are no tiles'")
    return kinds.pop() if len(kinds) == 1 else DType.F32


def stages_of(region: Region, values: Sequence[int], without: int = -1) -> list[int]:
    """The positions of the stages that values need, in order; `without`: a stage that is there already."""
    makers = {v: n for n, first in enumerate(region.first_values) for v in _results(region, n, first)}
    found: set[int] = set()
    waiting = list(values)
    while waiting:
        position = makers[waiting.pop()]
        if position not in found and position != without:
            found.add(position)
            waiting += operands_of(region.stages[position])
    return sorted(found)


def _results(region: Region, position: int, first: int) -> range:
    return range(first, first + len(region.results(region.stages[position])))


def _check_epilogue(region: Region, position: int) -> None:
    """Raise NotPrintable if what follows the contraction reads its depth, or says the same for several of its sums."""
    contract = region.stages[position]
    assert isinstance(contract, Contract)
    if any(isinstance(stage, Reduce | Scan) for stage in region.stages):
        raise NotPrintable("it folds something beside its contraction")
    outer = {n for n, e in enumerate(region.extents) if e != 1} - set(contract.axes)
    for store in region.stores:
        after = stages_of(region, operands_of(store), position)
        for stage in after:
            if region.spaces[region.first_values[stage]] & set(contract.axes):
                raise NotPrintable("what follows its contraction reads an operand of it")
        places = {n for c in store.map.components for n in axes_of(c)}
        if not outer <= places:
            raise NotPrintable("it stores something that is the same for several elements of its contraction")


def axes_of(dim: Dim) -> set[int]:
    """The axes that an expression mentions."""
    return {int(s.name[1:]) for s in symbols_of(dim) if s.name[0] == "i" and s.name[1:].isdigit()}


def _spaces(region: Region, position: int) -> tuple[set[int], set[int]]:
    contract = region.stages[position]
    assert isinstance(contract, Contract)
    many = {n for n, e in enumerate(region.extents) if e != 1} - set(contract.axes)
    left, right = (set(region.spaces[v]) & many for v in contract.args)
    return left, right


def _apart(region: Region, position: int) -> Region:
    """The region with axes of the batch taken apart, where one part then is of one operand only."""
    left, right = _spaces(region, position)
    for axis in sorted(left & right):
        for size in divisors_of(region, axis):
            divided = with_digits(region, axis, size)
            own_left, own_right = _spaces(divided, position)
            if not {axis, len(divided.extents) - 1} <= own_left & own_right:
                return _apart(divided, position)
    return region


def _roles(nest: Nest, left: int, right: int) -> _Roles:
    many = [a for a in nest.outer if nest.extents[a] not in (None, 1)]
    first, second = nest.spaces[left], nest.spaces[right]
    return _Roles(
        tuple(a for a in many if a in first and a in second),
        tuple(a for a in many if a in first and a not in second),
        tuple(a for a in many if a in second and a not in first),
    )


def _rows(nest: Nest, roles: _Roles) -> tuple[int, ...]:
    """The axes of rows: those of the left operand, and those of neither."""
    inside = (*roles.batch, *roles.left, *roles.right)
    return tuple(a for a in nest.outer if a in roles.left or a not in inside)


def _sides(nest: Nest, roles: _Roles, depth: Sequence[int]) -> tuple[Dim, Dim, Dim]:
    """The rows, columns and terms."""

    def points(axes: Sequence[int]) -> Dim:
        return product(extent for a in axes if (extent := nest.extents[a]) is not None)

    return points(_rows(nest, roles)), points(roles.right), points(depth)


def _last(nest: Nest, roles: _Roles) -> int:
    """The axis of rows or columns along which the result's elements are adjacent."""
    return next((a for a in reversed(nest.outer) if a in roles.left or a in roles.right), -1)


def _loads(region: Region, value: int) -> list[Load]:
    return [s for n in stages_of(region, [value]) if isinstance(s := region.stages[n], Load)]


def _offset(region: Region, load: Load) -> Dim:
    return flat_offset(load.map.components, region.inputs[load.buffer].shape)


def _depth_order(region: Region, position: int, left: int, right: int, constants: Collection[int]) -> tuple[int, ...]:
    """The axes of the depth, those along which an operand has its elements closest together last.

    That operand is one that is computed in each run: constants are stored as it suits.
    """
    contract = region.stages[position]
    assert isinstance(contract, Contract)
    loads = [*_loads(region, left), *_loads(region, right)]
    reading = [s for s in loads if any(axes_of(c) & set(contract.axes) for c in s.map.components)]
    reading.sort(key=lambda s: s.buffer in constants)
    if not reading:
        return tuple(sorted(contract.axes))
    offset = _offset(region, reading[0])

    def apart(axis: int) -> tuple[int, int]:
        step = coefficient(offset, axis)
        return (-abs(step), axis) if isinstance(step, int) and step else (-(1 << 62), axis)

    return tuple(sorted(contract.axes, key=apart))


def _repacked(
    region: Region,
    value: int,
    depth: tuple[int, ...],
    constants: Collection[int],
    depth_last: bool,
    along: bool | None = None,
    *,
    splits: bool = False,
) -> dict[int, Order]:
    """The orders in which the constants of an operand should be stored: weights, and scales of blocks of terms.

    splits: matrix units read both parts of f32 by depth, but they come through registers, so that whole accesses count
    for more. Scales differ among blocks, but not along the last axis of the depth. along: whether their blocks are
    adjacent; None for columns, which is what a tile reads.
    """
    loads = [s for s in _loads(region, value) if any(axes_of(c) & set(depth) for c in s.map.components)]
    weights = [s for s in loads if any(axes_of(c) & set(depth[-1:]) for c in s.map.components)]
    found = _order(region, weights[0], depth, constants, depth_last, splits) if len(weights) == 1 else {}
    for scale in (s for s in loads if s not in weights):
        found |= _order(region, scale, depth, constants, along)
    return found


def _order(
    region: Region,
    load: Load,
    depth: tuple[int, ...],
    constants: Collection[int],
    depth_last: bool | None,
    splits: bool = False,
) -> dict[int, Order]:
    """The order in which a constant should be stored. depth_last: None for columns adjacent, whatever fits.

    splits: as of `_repacked`.
    """
    if load.buffer not in constants:
        return {}
    others = [s for s in region.stages if isinstance(s, Load) and s is not load and s.buffer == load.buffer]
    if others or operands_of(load):
        return {}
    inner: list[tuple[int, int]] = []
    outer: list[int] = []
    for dimension, component in enumerate(load.map.components):
        summed = axes_of(component) & set(depth)
        if not summed:
            outer.append(dimension)
        elif len(summed) == 1 or axes_of(component) <= set(depth):  # digits of one axis
            inner.append((min(depth.index(a) for a in summed), dimension))
        else:
            return {}
    by_depth = [dimension for _, dimension in sorted(inner)]
    shape, item = region.inputs[load.buffer].shape, region.inputs[load.buffer].dtype.numpy.itemsize
    narrow = _is_narrow(shape, by_depth, item)
    if depth_last is None:
        return {load.buffer: (*by_depth, *outer)}
    last = depth_last or (not narrow and (item == 1 or _is_narrow(shape, outer, item)))  # so matrix units read bytes
    if last or (splits and (not narrow or _is_narrow(shape, outer, item))):
        return {load.buffer: (*outer, *by_depth)}
    return {load.buffer: (*by_depth, *outer)}


def sum_orders(region: Region, constants: Collection[int]) -> dict[int, Order]:
    """The orders in which constants should be stored for a contraction that is printed as a sum.

    The depth is last where the other operand has its neighbours along it (a matrix by a vector), else first.
    """
    found: dict[int, Order] = {}
    for position in region.contractions:
        contract = region.stages[position]
        assert isinstance(contract, Contract)
        for value, other in (contract.args[:2], contract.args[1::-1]) if len(contract.args) == 2 else ():
            depth = _depth_order(region, position, other, value, constants)
            along = any(coefficient(_offset(region, s), a) == 1 for s in _loads(region, other) for a in depth)
            found |= _repacked(region, value, depth, constants, along, along)
    return {n: order for n, order in found.items() if order != tuple(range(len(order)))}


def _is_narrow(shape: Sequence[Dim], dimensions: Sequence[int], item: int) -> bool:
    """True if rows of these dimensions do not begin at multiples of the widest access."""
    row = product(shape[d] for d in dimensions)
    return not isinstance(row, int) or row * item % _ACCESS_BYTES != 0
