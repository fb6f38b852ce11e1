"""A region around one contraction as a product by torch, and a kernel for what follows it.

Taken are products whose operands are loaded as they are and lie as matrices: one step along the rows, one along the
depth, one along the batch. A bias or a residual that is added to the sums before they are rounded is the library's to
add. What follows starts from there, rounded as the region has it, once. If nothing follows, torch writes the result
itself; else its product goes through memory of the session's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

from fusible.compiler.backends.cpu.c_dims import coefficient, flat_offset
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.contraction import Contraction
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.launch import POINTER_TYPES, Argument, LaunchRule
from fusible.compiler.backends.triton.printer import PrintedKernel, print_region
from fusible.compiler.backends.triton.schedule import schedule
from fusible.compiler.ir.symbol_values import substitute
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt
from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Arg, Convert, Expr, apply
from fusible.compiler.region.index import IndexMap
from fusible.compiler.region.prune import pruned
from fusible.compiler.region.region import Buffer, Contract, Load, Map, Region, Store, operands_of
from fusible.runtime.devices.product import Matrix, TorchProduct

__all__ = ["is_large", "print_library_product"]

_NAMES = {DType.F32: "float32", DType.F16: "float16", DType.BF16: "bfloat16"}
_LEAST_SIDE, _LEAST_WORK = 16, 1 << 20  # of products that a library may be expected to be good at


def is_large(contraction: Contraction) -> bool:
    """True for products that are worth the try: no side is short, and the sizes are known."""
    sides = [contraction.tile.row_points, contraction.tile.column_points, contraction.points(contraction.depth)]
    known = [side for side in sides if isinstance(side, int)]
    return len(known) == len(sides) and min(known) >= _LEAST_SIDE and prod(known) >= _LEAST_WORK


def print_library_product(contraction: Contraction, target: GpuTarget, precision: str) -> PrintedKernel:
    """The product and the kernel for what follows. precision: `ieee` or `tf32`, of products of f32.

    Raises NotPrintable for what torch has no one call for.
    """
    return _Printer(contraction, target, precision).printed()


@dataclass(frozen=True, slots=True)
class _Axes:
    """The region's axes by their role, each group in the order in which its points are counted."""

    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    depth: tuple[int, ...]

    @property
    def result(self) -> tuple[int, ...]:
        return (*self.batch, *self.rows, *self.columns)


class _Printer:
    def __init__(self, contraction: Contraction, target: GpuTarget, precision: str) -> None:
        self.contraction, self.target, self.precision = contraction, target, precision
        self.region = contraction.region
        if contraction.symbols or not all(isinstance(e, int) for e in self.region.extents):
            raise NotPrintable("torch's product is for known sizes")
        contract = self.region.stages[contraction.position]
        assert isinstance(contract, Contract)
        if contraction.kind not in _NAMES:
            raise NotPrintable(f"torch's products are not those of {contraction.kind.value}")
        self.contract = contract
        self.left, self.right = self._load(contraction.left), self._load(contraction.right)
        self.axes = self._roles()
        self.result, self.added = self._result()

    def printed(self) -> PrintedKernel:
        axes = self.axes
        left = self._matrix(self.left, self.left.buffer, axes.rows, axes.depth)
        right = self._matrix(self.right, self.right.buffer, axes.depth, axes.columns)
        batch, rows, columns, depth = (self._points(a) for a in (axes.batch, axes.rows, axes.columns, axes.depth))
        kind, tf32 = _NAMES[self.contraction.kind], self.precision == "tf32"
        made = TorchProduct(kind, batch, rows, columns, depth, left, right, result=left, tf32=tf32, added=self.added)
        direct = self._direct()
        if direct is not None:
            rule = LaunchRule("", self._arguments(), {}, (), ((1, 1),), 1, 1)
            return PrintedKernel("", rule, self.contraction.repacked, product=replace(made, result=direct))
        place = Matrix(len(self.region.inputs), 0, rows * columns, columns, 1)
        nbytes = batch * rows * columns * self.contraction.kind.numpy.itemsize
        rest = self._rest()
        printed = print_region(rest, schedule(rest, self.target))
        product = replace(made, result=place, scratch=nbytes)
        return replace(printed, repacked=self.contraction.repacked, product=product)

    def _result(self) -> tuple[int, Matrix | None]:
        """The stage that torch computes last, and what is added on the way there."""
        position, kind = self.contraction.position, self.contraction.kind
        added = self._added(position)
        last = position if added is None else added[0]
        if self.contract.dtype is not kind:
            rounding = self._only_reader(last)
            if rounding is None or self.region.stages[rounding] != Map(Convert(Arg(self._value(last)), kind), kind):
                raise NotPrintable(f"torch's product is rounded to {kind.value}, and this one is not")
            last = rounding
        return last, None if added is None else added[1]

    def _added(self, position: int) -> tuple[int, Matrix] | None:
        """The stage that adds to the sums something that is loaded as it is, a bias or a residual, and that."""
        reader, sums = self._only_reader(position), self._value(position)
        stage = None if reader is None else self.region.stages[reader]
        if reader is None or not isinstance(stage, Map) or stage.dtype is not self.contract.dtype:
            return None
        for value in operands_of(stage):
            if value != sums and stage.expr in (_sum(sums, value), _sum(value, sums)):
                try:
                    load = self._load(self._before_conversion(value))
                    return reader, self._matrix(load, load.buffer, self.axes.rows, self.axes.columns)
                except NotPrintable:  # the kernel behind the product adds it
                    return None
        return None

    def _before_conversion(self, value: int) -> int:
        """What a value is made of if all that is done is to convert it from the operands' type."""
        for stage, made in zip(self.region.stages, self.region.first_values, strict=True):
            if made == value and isinstance(stage, Map) and len(read := operands_of(stage)) == 1:
                return read[0] if stage.expr == Convert(Arg(read[0]), self.contract.dtype) else value
        return value

    def _value(self, position: int) -> int:
        return self.region.first_values[position]

    def _only_reader(self, position: int) -> int | None:
        """The stage that reads a stage's value, if nothing else does."""
        value = self._value(position)
        reading = [n for n, stage in enumerate(self.region.stages) if value in operands_of(stage)]
        stored = any(value in operands_of(store) for store in self.region.stores)
        return reading[0] if len(reading) == 1 and not stored else None

    def _load(self, value: int) -> Load:
        """The load that an operand is, with nothing done to it."""
        stage = next((s for s, v in zip(self.region.stages, self.region.first_values, strict=True) if v == value), None)
        if not isinstance(stage, Load) or stage.map.bounds or stage.map.indirect:
            raise NotPrintable("an operand is not loaded as it is")
        if self.region.inputs[stage.buffer].dtype is not self.contraction.kind:
            raise NotPrintable("an operand is converted")
        return stage

    def _roles(self) -> _Axes:
        many = [a for a, extent in enumerate(self.region.extents) if extent != 1]
        depth = set(self.contract.axes)
        first, second = (set(self.region.spaces[v]) for v in (self.contraction.left, self.contraction.right))
        outer = [a for a in many if a not in depth]
        if any(a not in first and a not in second for a in outer):
            raise NotPrintable("its result is broadcast")
        return _Axes(
            self._by_step(self.left, (a for a in outer if a in first and a in second)),
            self._by_step(self.left, (a for a in outer if a in first and a not in second)),
            self._by_step(self.right, (a for a in outer if a in second and a not in first)),
            self._by_step(self.left, (a for a in many if a in depth)),
        )

    def _by_step(self, load: Load, axes: Iterable[int]) -> tuple[int, ...]:
        return tuple(sorted(axes, key=lambda a: (-self._step(load, a), a)))

    def _offset(self, access: Load | Store) -> Dim:
        buffers = self.region.inputs if isinstance(access, Load) else self.region.outputs
        ones: dict[str, Dim] = {f"i{a}": 0 for a, extent in enumerate(self.region.extents) if extent == 1}
        return substitute(flat_offset(access.map.components, buffers[access.buffer].shape), ones)

    def _step(self, access: Load | Store, along: int) -> int:
        step = coefficient(self._offset(access), along)
        if not isinstance(step, int):
            raise NotPrintable("an operand is no matrix")
        return step

    def _matrix(self, access: Load | Store, argument: int, rows: tuple[int, ...], columns: tuple[int, ...]) -> Matrix:
        nothing: dict[str, Dim] = {f"i{a}": 0 for a in range(len(self.region.extents))}
        offset = substitute(self._offset(access), nothing)
        if not isinstance(offset, int):
            raise NotPrintable("an operand is no matrix")
        groups = (self.axes.batch, rows, columns)
        return Matrix(argument, offset, *(self._one_step(access, group) for group in groups))

    def _one_step(self, access: Load | Store, axes: tuple[int, ...]) -> int:
        """The step along axes that are counted as one."""
        if not axes:
            return 0
        step = self._step(access, axes[-1])
        for n, a in enumerate(axes):
            if self._step(access, a) != step * self._points(axes[n + 1 :]):
                raise NotPrintable("an operand is no matrix with one step along its rows and columns")
        return step

    def _points(self, axes: Sequence[int]) -> int:
        return prod(e for a in axes if isinstance(e := self.region.extents[a], int))

    # The result

    def _direct(self) -> Matrix | None:
        """Where torch writes the result if that is all there is to do."""
        value = self._value(self.result)
        (store, *more) = self.region.stores
        if more or store.value != value or store.map.bounds or store.map.indirect:
            return None
        if self.region.outputs[store.buffer].dtype is not self.contraction.kind:
            return None
        try:
            return self._matrix(store, len(self.region.inputs) + store.buffer, self.axes.rows, self.axes.columns)
        except NotPrintable:
            return None

    def _rest(self) -> Region:
        """What follows the product, which it loads from one more input."""
        region, position = self.region, self.result
        shape = tuple(region.extents[a] for a in self.axes.result)
        stages = list(region.stages)
        stages[position] = Load(len(region.inputs), IndexMap(tuple(self._axis(a) for a in self.axes.result)))
        inputs = (*region.inputs, Buffer(self.contraction.kind, shape))
        return pruned(Region(region.extents, inputs, region.outputs, tuple(stages), region.stores))

    def _axis(self, number: int) -> SymInt:
        return SymInt.of(Symbol(f"i{number}", 0, self._points((number,)) - 1))

    def _arguments(self) -> tuple[Argument, ...]:
        found = [Argument(f"x{n}", POINTER_TYPES[b.dtype], None, 16) for n, b in enumerate(self.region.inputs)]
        found += [Argument(f"y{n}", POINTER_TYPES[b.dtype], None, 16) for n, b in enumerate(self.region.outputs)]
        return tuple(found)


def _sum(a: int, b: int) -> Expr:
    return apply("add", Arg(a), Arg(b))
