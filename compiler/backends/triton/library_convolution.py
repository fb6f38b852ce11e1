"""A region around one contraction as a convolution by torch (cuDNN), and a kernel for what follows it.

Nothing but index maps says what a convolution is: an operand whose indices are `stride * i + dilation * k - pad` along
the window's dimensions, zero outside, and one that is read by output channel, window and input channel. The product is
rounded to the operands' type, as torch rounds it. If nothing follows and the channels of the result are adjacent, torch
writes it where it belongs; else it goes through memory of the session's, and a kernel adds the bias and does the rest:
in half precision sums are then rounded once more than a kernel of our own would.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import prod

from fusible.compiler.backends.cpu.c_dims import coefficient, flat_offset, mentions
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.contraction import Contraction
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.launch import POINTER_TYPES, Argument, LaunchRule
from fusible.compiler.backends.triton.library_window import Window, WindowAxes, window_of
from fusible.compiler.backends.triton.printer import PrintedKernel, print_region
from fusible.compiler.backends.triton.schedule import schedule
from fusible.compiler.ir.symbol_values import substitute
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt
from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Arg, Convert
from fusible.compiler.region.index import IndexMap
from fusible.compiler.region.prune import moved_map, pruned, renamed_stage
from fusible.compiler.region.region import Buffer, Contract, Load, Map, Region, Stage, Store, operands_of, value_symbol
from fusible.compiler.region.reorder import Order, reordered
from fusible.runtime.devices.convolution import Placed, TorchConvolution

__all__ = ["print_library_convolution"]

_NAMES = {DType.F32: "float32", DType.F16: "float16", DType.BF16: "bfloat16"}


def print_library_convolution(
    contraction: Contraction, constants: Collection[int], target: GpuTarget, precision: str
) -> PrintedKernel:
    """The convolution and the kernel for what follows.

    contraction: whose phases are no batch. constants: inputs that may be stored in another order. precision: `ieee` or
    `tf32`, of f32. Raises NotPrintable for what torch has no one call for.
    """
    return _Printer(contraction, constants, target, precision).printed()


@dataclass(frozen=True, slots=True)
class _Result:
    """Where the value stands that torch computes. converted: what follows wants it in f32."""

    position: int
    converted: bool


class _Printer:
    def __init__(
        self, contraction: Contraction, constants: Collection[int], target: GpuTarget, precision: str
    ) -> None:
        self.contraction, self.target, self.precision = contraction, target, precision
        if contraction.symbols or not all(isinstance(e, int) for e in contraction.region.extents):
            raise NotPrintable("torch's convolution is for known sizes")
        if contraction.kind not in _NAMES or contraction.half is not None:
            raise NotPrintable(f"torch's convolutions are not those of {contraction.kind.value}")
        self.region, self.repacked = contraction.region, dict(contraction.repacked)
        self.window, self.weight = self._operands(constants)
        self.result = self._rounded()

    def printed(self) -> PrintedKernel:
        """See the function."""
        window, axes = self.window, self.window.axes
        weight = Placed(
            self.weight.buffer, *self._start(self.weight),
            (window.groups * self._extent(axes.column), self._extent(axes.channel), *window.sizes),
            tuple(self._step(self.weight, a) for a in (axes.column, axes.channel, *axes.taps)),
        )  # fmt: skip
        made = TorchConvolution(
            _NAMES[self.contraction.kind], window.image, weight, window.image, window.strides, window.dilations,
            window.pads, window.groups, self.precision == "tf32",
        )  # fmt: skip
        direct = self._direct()
        if direct is not None:
            rule = LaunchRule("", self._arguments(), {}, (), ((1, 1),), 1, 1)
            return PrintedKernel("", rule, self.repacked, product=replace(made, result=direct))
        shape = self._result_shape()
        steps = tuple(prod(shape[n + 1 :]) for n in range(len(shape)))
        sizes = (shape[0], shape[-1], *shape[1:-1])
        place = Placed(len(self.region.inputs), 0, sizes, (steps[0], 1, *steps[1:-1]))
        rest = self._rest(shape)
        printed = print_region(rest, schedule(rest, self.target))
        nbytes = prod(shape) * self.contraction.kind.numpy.itemsize
        return replace(printed, repacked=self.repacked, product=replace(made, result=place, scratch=nbytes))

    # Operands

    def _operands(self, constants: Collection[int]) -> tuple[Window, Load]:
        """The window over the image, and the load of the weight, which is stored as torch wants it."""
        left, right = self.contraction.left, self.contraction.right
        why: NotPrintable | None = None
        for image, weight in ((left, right), (right, left)):
            try:
                found = window_of(self.region, self.contraction.position, self._load(image), image, weight)
                return found, self._weight(self._load(weight), found.axes, constants)
            except NotPrintable as refusal:
                why = why or refusal
        assert why is not None
        raise why

    def _load(self, value: int) -> Load:
        """The load that an operand is, with nothing done to it."""
        region = self.region
        stage = next((s for s, v in zip(region.stages, region.first_values, strict=True) if v == value), None)
        if not isinstance(stage, Load) or stage.map.indirect:
            raise NotPrintable("an operand is not loaded as it is")
        if region.inputs[stage.buffer].dtype is not self.contraction.kind:
            raise NotPrintable("an operand is converted")
        return stage

    def _weight(self, load: Load, axes: WindowAxes, constants: Collection[int]) -> Load:
        """The load of the weight; of a constant with its dimensions by output channel, window and input channel."""
        if load.map.bounds:
            raise NotPrintable("its weight has a border")
        read = [s for s in self.region.stages if isinstance(s, Load) and s.buffer == load.buffer]
        if load.buffer in constants and len(read) == 1:
            places = {axes.group: 0, axes.column: 0, axes.channel: len(axes.taps) + 1}
            places |= {a: n for n, a in enumerate(axes.taps, 1) if a is not None}
            named = [min((p for a, p in places.items() if _varies(c, a)), default=0) for c in load.map.components]
            order = tuple(sorted(range(len(named)), key=named.__getitem__))
            self._store_anew(load.buffer, order)
            load = next(s for s in self.region.stages if isinstance(s, Load) and s.buffer == load.buffer)
        for a in (axes.group, axes.column, axes.channel, *axes.taps):
            if self._step(load, a) < 0:
                raise NotPrintable("its window is read backwards")
        own = self._step(load, axes.column) * self._extent(axes.column)
        if axes.group is not None and self._step(load, axes.group) != own:
            raise NotPrintable("the weights of its groups do not lie one behind the other")
        return load

    def _store_anew(self, buffer: int, order: Order) -> None:
        before = self.repacked.get(buffer, tuple(range(len(order))))
        self.region = reordered(self.region, {buffer: order}, {})
        self.repacked[buffer] = tuple(before[d] for d in order)
        if self.repacked[buffer] == tuple(range(len(order))):
            del self.repacked[buffer]

    def _offset(self, access: Load | Store) -> Dim:
        buffers = self.region.inputs if isinstance(access, Load) else self.region.outputs
        return flat_offset(access.map.components, buffers[access.buffer].shape)

    def _start(self, access: Load | Store) -> tuple[int]:
        found = substitute(self._offset(access), {f"i{a}": 0 for a in range(len(self.region.extents))})
        if not isinstance(found, int):
            raise NotPrintable("an operand does not begin at a known element")
        return (found,)

    def _step(self, access: Load | Store, axis: int | None) -> int:
        step = 0 if axis is None else coefficient(self._offset(access), axis)
        if not isinstance(step, int):
            raise NotPrintable("an operand has no one step along an axis")
        return step

    def _extent(self, axis: int | None) -> int:
        extent = 1 if axis is None else self.region.extents[axis]
        assert isinstance(extent, int)
        return extent

    # The result

    def _rounded(self) -> _Result:
        """The sums, or where they are rounded to the operands' type."""
        region, position, kind = self.region, self.contraction.position, self.contraction.kind
        contract = region.stages[position]
        assert isinstance(contract, Contract)
        if contract.dtype is kind:
            return _Result(position, False)
        value = region.first_values[position]
        reading = [n for n, stage in enumerate(region.stages) if value in operands_of(stage)]
        stored = any(value in operands_of(store) for store in region.stores)
        if len(reading) == 1 and not stored and region.stages[reading[0]] == Map(Convert(Arg(value), kind), kind):
            return _Result(reading[0], False)
        return _Result(position, True)

    def _result_shape(self) -> tuple[int, ...]:
        """Batch, sizes, channels."""
        axes = self.window.axes
        sizes = (self._extent(a) for a in (axes.batch, *axes.points))
        return (*sizes, self.window.groups * self._extent(axes.column))

    def _direct(self) -> Placed | None:
        """Where torch writes the result if that is all there is to do, and channels are adjacent there."""
        axes, (store, *more) = self.window.axes, self.region.stores
        value = self.region.first_values[self.result.position]
        if more or self.result.converted or store.value != value or store.map.bounds or store.map.indirect:
            return None
        if self.region.outputs[store.buffer].dtype is not self.contraction.kind:
            return None
        shape, argument = self._result_shape(), len(self.region.inputs) + store.buffer
        try:
            steps = [self._step(store, a) for a in (axes.batch, *axes.points, axes.column)]
            groups, start = self._step(store, axes.group), self._start(store)
        except NotPrintable:
            return None
        wanted = [prod(shape[n + 1 :]) for n in range(len(shape))]
        dense = all(size == 1 or step == want for size, step, want in zip(shape, steps, wanted, strict=True))
        if not dense or (axes.group is not None and groups != self._extent(axes.column)):
            return None
        return Placed(argument, *start, (shape[0], shape[-1], *shape[1:-1]), (wanted[0], 1, *wanted[1:-1]))

    def _rest(self, shape: Sequence[int]) -> Region:
        """What follows the convolution, whose result it loads from one more input."""
        region, axes, position = self.region, self.window.axes, self.result.position
        channel = self._axis(axes.column) + self._axis(axes.group) * self._extent(axes.column)
        places = (*(self._axis(a) for a in (axes.batch, *axes.points)), channel)
        load = Load(len(region.inputs), IndexMap(places))
        inputs = (*region.inputs, Buffer(self.contraction.kind, tuple(shape)))
        if not self.result.converted:
            stages = (*region.stages[:position], load, *region.stages[position + 1 :])
            return pruned(Region(region.extents, inputs, region.outputs, stages, region.stores))
        value = region.first_values[position]
        moved = {v: v if v < value else v + 1 for v in range(len(region.dtypes))}
        names: dict[str, Dim] = {f"v{old}": value_symbol(new) for old, new in moved.items() if old != new}
        same = {a: a for a in range(len(region.extents))}
        contract = region.stages[position]
        assert isinstance(contract, Contract)
        made: list[Stage] = [load, Map(Convert(Arg(value), contract.dtype), contract.dtype)]
        after = (renamed_stage(stage, moved, same, names) for stage in region.stages[position + 1 :])
        stores = tuple(Store(s.buffer, moved_map(s.map, names), moved[s.value]) for s in region.stores)
        stages = (*region.stages[:position], *made, *after)
        return pruned(Region(region.extents, inputs, region.outputs, stages, stores))

    def _axis(self, number: int | None) -> Dim:
        return 0 if number is None else SymInt.of(Symbol(f"i{number}", 0, self._extent(number) - 1))

    def _arguments(self) -> tuple[Argument, ...]:
        found = [Argument(f"x{n}", POINTER_TYPES[b.dtype], None, 16) for n, b in enumerate(self.region.inputs)]
        found += [Argument(f"y{n}", POINTER_TYPES[b.dtype], None, 16) for n, b in enumerate(self.region.outputs)]
        return tuple(found)


def _varies(component: Dim, axis: int | None) -> bool:
    return axis is not None and mentions(component, f"i{axis}")
