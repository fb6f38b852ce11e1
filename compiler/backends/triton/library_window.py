"""The window of a convolution, read off the index map of its image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusible.compiler.backends.cpu.c_dims import coefficient, flat_offset
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.ir.symbol_values import substitute
from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.region.index import Bound
from fusible.compiler.region.region import Contract, Load, Region
from fusible.runtime.devices.convolution import Placed

__all__ = ["Window", "WindowAxes", "window_of"]

_MOST = 3  # dimensions of a window


@dataclass(frozen=True, slots=True)
class WindowAxes:
    """The region's axes by their role; None for those of one index.

    points: of the result, taps: of the window, both by dimension. column: channels of the result within a group.
    """

    batch: int | None
    group: int | None
    column: int | None
    channel: int | None
    points: tuple[int | None, ...]
    taps: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """What torch is told of a window. sizes: of the window; all others as of a `TorchConvolution`."""

    axes: WindowAxes
    image: Placed
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int


@dataclass(frozen=True, slots=True)
class _Dimension:
    """One dimension of the image's buffer: index = sum of steps[axis] * axis + start, within bound if there is one."""

    number: int
    steps: Mapping[int, int]
    start: int
    bound: Bound | None


@dataclass(frozen=True, slots=True)
class _Side:
    """A dimension that a window runs over. size: elements of it that are the image."""

    dimension: int
    point: int | None
    tap: int | None
    first: int
    size: int
    stride: int
    dilation: int
    pad: int


def window_of(region: Region, position: int, load: Load, image: int, weight: int) -> Window:
    """The window of a convolution.

    position: of the contraction; load: of the image; image, weight: the values that are multiplied. Sizes are known.
    Raises NotPrintable.
    """
    return _Reader(region, position, load, image, weight).window()


class _Reader:
    def __init__(self, region: Region, position: int, load: Load, image: int, weight: int) -> None:
        self.region, self.load = region, load
        contract = region.stages[position]
        assert isinstance(contract, Contract)
        many = {a for a, extent in enumerate(region.extents) if extent != 1}
        first, second = (set(region.spaces[v]) & many for v in (image, weight))
        self.depth = set(contract.axes) & many
        self.groups, self.points = (first & second) - self.depth, first - second - self.depth
        self.columns = second - first - self.depth
        if many - first - second:
            raise NotPrintable("its result is broadcast")
        if len(self.groups) > 1 or len(self.columns) > 1 or not self.depth <= first & second:
            raise NotPrintable("it is no convolution: its axes are more than groups, channels and a window")

    def window(self) -> Window:
        """See the function."""
        dimensions = [self._dimension(n) for n in range(len(self.load.map.components))]
        dimensions = [d for d in dimensions if d.steps]
        channels = self._channels(dimensions)
        channel = next((a for a in channels.steps if a in self.depth), None)
        others = [d for d in dimensions if d is not channels]
        batch = next((d for d in others if self._is_batch(d)), None)
        sides = [self._side(d) for d in others if d is not batch]
        if not 1 <= len(sides) <= _MOST:
            raise NotPrintable(f"its window has {len(sides)} dimensions")
        group, column = next(iter(self.groups), None), next(iter(self.columns), None)
        axis = None if batch is None else next(iter(batch.steps))
        axes = WindowAxes(
            axis, group, column, channel, tuple(s.point for s in sides), tuple(s.tap for s in sides)
        )  # fmt: skip
        groups = self._extent(group)
        place = self._image(sides, axis, channels, groups * self._extent(channel))
        return Window(
            axes, place, tuple(self._extent(s.tap) for s in sides), tuple(s.stride for s in sides),
            tuple(s.dilation for s in sides), tuple(s.pad for s in sides), groups,
        )  # fmt: skip

    def _dimension(self, number: int) -> _Dimension:
        component = self.load.map.components[number]
        nothing: dict[str, Dim] = {f"i{a}": 0 for a in range(len(self.region.extents))}
        start, steps = substitute(component, nothing), {}
        for a in sorted(self.depth | self.groups | self.points):
            step = coefficient(component, a)
            if not isinstance(step, int):
                raise NotPrintable("the places of its image are no sums of indices")
            if step:
                steps[a] = step
        bounds = [b for b in self.load.map.bounds if b.expr == component]
        if not isinstance(start, int) or len(bounds) > 1:
            raise NotPrintable("the places of its image are not known")
        if self.load.map.bounds and self.load.map.fill != 0:
            raise NotPrintable("what stands around its image is not 0")
        return _Dimension(number, steps, start, bounds[0] if bounds else None)

    def _channels(self, dimensions: Sequence[_Dimension]) -> _Dimension:
        """The dimension of the channels: the innermost that points of the result are not in."""
        bounded = {d.number for d in dimensions if d.bound is not None}
        if any(all(b.expr != c for c in self.load.map.components) for b in self.load.map.bounds):
            raise NotPrintable("a condition on its image is none on one dimension")
        found = [d for d in dimensions if not set(d.steps) & self.points and d.number not in bounded]
        grouped = [d for d in dimensions if set(d.steps) & self.groups]
        if len(grouped) > 1 or (grouped and grouped[0] not in found) or not found:
            raise NotPrintable("its channels are no dimension of its image")
        chosen = grouped[0] if grouped else found[-1]
        deep = [a for a in chosen.steps if a in self.depth]
        wanted = dict.fromkeys(deep, 1) | {a: self._extent(deep[0] if deep else None) for a in self.groups}
        if len(deep) > 1 or dict(chosen.steps) != wanted:
            raise NotPrintable("its channels do not lie one behind the other")
        return chosen

    def _is_batch(self, dimension: _Dimension) -> bool:
        (axis, *more) = dimension.steps
        return not more and axis in self.points and dimension.steps[axis] == 1 and dimension.bound is None

    def _side(self, dimension: _Dimension) -> _Side:
        points = [a for a in dimension.steps if a in self.points]
        taps = [a for a in dimension.steps if a in self.depth]
        if len(points) > 1 or len(taps) > 1 or min(dimension.steps.values()) < 1:
            raise NotPrintable("it is no window that runs over a dimension")
        point, tap = (found[0] if found else None for found in (points, taps))
        stride, dilation = dimension.steps.get(point, 1), dimension.steps.get(tap, 1)  # type: ignore[arg-type]
        count, span = self._extent(point), dilation * (self._extent(tap) - 1) + 1
        needed = (count - 1) * stride + span
        if dimension.bound is None:
            return _Side(dimension.number, point, tap, dimension.start, needed, stride, dilation, 0)
        low, high, pad = dimension.bound.low, dimension.bound.high, -dimension.start
        if low != 0 or high != self._size(dimension.number) or pad < 0 or not isinstance(high, int):
            raise NotPrintable("its image is a part of what is there, with a border")
        made = (high + 2 * pad - span) // stride + 1
        size = min(high, needed) if pad == 0 else high
        if made != count and (size + 2 * pad - span) // stride + 1 != count:
            raise NotPrintable("its border is not the same on both sides")
        return _Side(dimension.number, point, tap, 0, size if made != count else high, stride, dilation, pad)

    def _image(self, sides: Sequence[_Side], batch: int | None, channels: _Dimension, count: int) -> Placed:
        shape, start = self.region.inputs[self.load.buffer].shape, list(self.load.map.components)
        nothing: dict[str, Dim] = {f"i{a}": 0 for a in range(len(self.region.extents))}
        places = [substitute(component, nothing) for component in start]
        for side in sides:
            places[side.dimension] = side.first
        offset = flat_offset(places, shape)
        along = [product(shape[n + 1 :]) for n in range(len(shape))]
        step = 0 if batch is None else coefficient(flat_offset(start, shape), batch)
        steps = [step, along[channels.number], *(along[s.dimension] for s in sides)]
        if not isinstance(offset, int) or not all(isinstance(s, int) for s in steps):
            raise NotPrintable("its image does not lie at known places")
        sizes = (self._extent(batch), count, *(s.size for s in sides))
        if batch is None:
            steps[0] = product(shape)
        return Placed(self.load.buffer, offset, sizes, tuple(s for s in steps if isinstance(s, int)))

    def _extent(self, axis: int | None) -> int:
        extent = 1 if axis is None else self.region.extents[axis]
        assert isinstance(extent, int)
        return extent

    def _size(self, dimension: int) -> Dim:
        return self.region.inputs[self.load.buffer].shape[dimension]
