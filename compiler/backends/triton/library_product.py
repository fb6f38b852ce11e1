"""A region around one contraction as a product by torch, and a kernel for what follows it.

Taken are products whose operands are loaded as they are and lie as matrices: one step along the rows, one along the
depth, one along the batch. What follows starts from the product as the region has it, rounded to its type once. If
nothing follows, torch writes the result itself; else its product goes through memory of the session's.
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
from fusible.compiler.region.expr import Arg, Convert
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
        self.result = self._rounded() if contract.dtype is not contraction.kind else contraction.position
        self.left, self.right = self._load(contraction.left), self._load(contraction.right)
        self.axes = self._roles()

    def printed(self) -> PrintedKernel:
        axes = self.axes
        left = self._matrix(self.left, self.left.buffer, axes.rows, axes.depth)
        right = self._matrix(self.right, self.right.buffer, axes.depth, axes.columns)
        batch, rows, columns, depth = (self._points(a) for a in (axes.batch, axes.rows, axes.columns, axes.depth))
        kind, tf32 = _NAMES[self.contraction.kind], self.precision == "tf32"
        made = TorchProduct(kind, batch, rows, columns, depth, left, right, result=left, tf32=tf32)
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

    def _rounded(self) -> int:
        """The stage that rounds the sums to the operands' type, which nothing else may read."""
        sums, kind = self.region.first_values[self.contraction.position], self.contraction.kind
        reading = [n for n, stage in enumerate(self.region.stages) if sums in operands_of(stage)]
        stored = any(sums in operands_of(store) for store in self.region.stores)
        (found, *more) = reading or [-1]
        if stored or more or found < 0 or self.region.stages[found] != Map(Convert(Arg(sums), kind), kind):
            raise NotPrintable(f"torch's product is rounded to {kind.value}, and this one is not")
        return found

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
        value = self.region.first_values[self.result]
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
