"""Runs that are one graph from beginning to end: what such a run does anew, settled once for each set of shapes.

Most models are a single segment of launches. Then a run needs the addresses of its inputs and outputs and the graph
that was captured for them; all else is the same as in the last run with these shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusible.runtime.devices.array import DeviceArray, copy_arrays, row_major
from fusible.runtime.devices.device import Device, Graph, Memory, Stream
from fusible.runtime.devices.frames import DeviceLayout
from fusible.runtime.devices.segments import DeviceSegment
from fusible.runtime.plan import Launch, Plan, PlanValue
from fusible.runtime.plan_session import MAX_LAYOUTS
from fusible.runtime.signature import DTYPES

__all__ = ["Output", "Shapes", "Steady", "Straight", "StraightRuns", "in_place", "shapes_of", "straight"]

Shapes = tuple[tuple[int, ...], ...]
"""The shapes of all arguments of a run."""


@dataclass(frozen=True, slots=True)
class Given:
    """addresses: of the inputs on the device. staged: arrays of the host's, each with the memory it is brought to."""

    addresses: list[int]
    staged: list[tuple[Memory, np.ndarray]]


@dataclass(frozen=True, slots=True)
class Output:
    """An output: its value in the plan, and the array that it is."""

    value: int
    shape: tuple[int, ...]
    dtype: np.dtype
    nbytes: int

    def over(self, device: Device, memory: Memory) -> DeviceArray:
        """The array over memory of its own."""
        return row_major(device, memory, self.dtype, self.shape)


@dataclass(frozen=True, slots=True)
class Steady:
    """Arrays of the session's own, that stay where they are: what kernels read and all outputs, in order."""

    inputs: list[DeviceArray]
    outputs: list[DeviceArray]


@dataclass(slots=True)
class Straight:
    """inputs: (position among the arguments, value) of those that kernels read. outputs: all, in order.

    sizes: bytes of the outputs. order: for each value that moves in the segment, its place among inputs and then
    outputs. steady: what stands for inputs and outputs that lie elsewhere in each run, once there were too many.
    """

    layout: DeviceLayout
    segment: DeviceSegment
    inputs: tuple[tuple[int, int], ...]
    outputs: tuple[Output, ...]
    sizes: tuple[int, ...]
    order: tuple[int, ...]
    steady: Steady | None = None

    def given(self, arguments: Sequence[Any]) -> Given | None:
        """Where the inputs lie; None if one of the host's has no memory yet that it is brought to."""
        addresses, staged = [], []
        for position, value in self.inputs:
            argument = arguments[position]
            if isinstance(argument, DeviceArray):
                addresses.append(argument.memory.address + argument.offset)
                continue
            memory = self.layout.staging.get(value)
            if memory is None or memory.nbytes < argument.nbytes:
                return None
            staged.append((memory, argument))
            addresses.append(memory.address)
        return Given(addresses, staged)

    def graph(self, addresses: Sequence[int]) -> Graph | None:
        """What was captured for the addresses of inputs and outputs, if anything was."""
        places = tuple([addresses[n] for n in self.order])
        record = self.layout.records.get((self.segment.first, self.segment.last, places, ()))
        return None if record is None else record.graph


class StraightRuns:
    """What a session knows of its runs, by the shapes of their arguments."""

    def __init__(self) -> None:
        self._known: dict[Shapes, tuple[object, Straight]] = {}

    def of(self, shapes: Shapes | None, layouts: Mapping[Any, DeviceLayout]) -> Straight | None:
        """How a run goes with these shapes, if that is settled and its layout still one of the session's."""
        key, found = (None, None) if shapes is None else self._known.get(shapes, (None, None))
        return found if found is not None and layouts.get(key) is found.layout else None

    def settle(self, shapes: Shapes, key: object, found: Straight | None) -> None:
        """Remember what was found in a run that ended well. key: of its layout."""
        if found is None:
            return
        self._known.pop(shapes, None)
        if len(self._known) >= MAX_LAYOUTS:
            self._known.pop(next(iter(self._known)))
        self._known[shapes] = key, found

    def clear(self) -> None:
        """Forget all, and with it the memory that graphs work in."""
        self._known.clear()


def shapes_of(arguments: Sequence[Any]) -> Shapes | None:
    """The shapes of arguments; None if one is no tensor, or lies on the device with gaps."""
    shapes = []
    for argument in arguments:
        if not isinstance(argument, np.ndarray) and not (isinstance(argument, DeviceArray) and argument.contiguous):
            return None
        shapes.append(argument.shape)
    return tuple(shapes)


def straight(plan: Plan, segments: Mapping[int, DeviceSegment], layout: DeviceLayout) -> Straight | None:
    """How a plan runs as one graph; None if it is more than one segment, or values move in it that no caller gives."""
    segment = segments.get(0)
    if segment is None or segment.last != len(plan.steps) or segment.first not in layout.moving:
        return None
    views = [step for step in segment.steps if not isinstance(step, Launch)]
    if segment.symbols - layout.symbols or any(view.outputs[0] not in layout.known for view in views):
        return None
    moving = layout.moving[segment.first]
    inputs = tuple((n, value) for n, value in enumerate(plan.inputs) if value in moving)
    places = {value: place for place, value in enumerate([*(value for _, value in inputs), *plan.outputs])}
    alone = len(places) == len(inputs) + len(plan.outputs) and set(moving) <= places.keys()
    shapes = dict(layout.outputs)
    if not alone or not set(plan.outputs) <= set(moving) & shapes.keys():  # others are the host's
        return None
    outputs = tuple(_output(plan.values[value], value, shapes[value]) for value in plan.outputs)
    sizes = tuple(output.nbytes for output in outputs)
    return Straight(layout, segment, inputs, outputs, sizes, tuple(places[value] for value in moving))


def in_place(
    known: Straight,
    arguments: Sequence[Any],
    results: list[Any],
    device: Device,
    stream: Stream,
    capture: Callable[[list[Any], Mapping[int, DeviceArray]], None],
) -> list[Any]:
    """A run for arrays whose addresses keep changing: copied to and from others that stay, which have a graph.

    A copy on the device takes microseconds, and so does each launch that a graph saves. capture: runs with arguments
    and outputs (by value) that stay, until there is a graph for them.
    """
    if known.steady is None:
        known.steady = _steady_arrays(known, arguments, results, device, stream)
    steady, replaced = known.steady, list(arguments)
    moved = list[tuple[DeviceArray, DeviceArray]]()
    for (position, _), array in zip(known.inputs, steady.inputs, strict=True):
        given, replaced[position] = arguments[position], array
        if isinstance(given, DeviceArray):
            moved.append((given, array))
        else:
            array.upload(given, stream)
    copy_arrays(moved, stream)
    graph = known.graph([a.memory.address for a in (*steady.inputs, *steady.outputs)])
    if graph is not None:
        graph.replay()
    else:
        capture(replaced, {o.value: array for o, array in zip(known.outputs, steady.outputs, strict=True)})
    copy_arrays(zip(steady.outputs, results, strict=True), stream)
    return results


def _steady_arrays(
    known: Straight, arguments: Sequence[Any], results: Sequence[DeviceArray], device: Device, stream: Stream
) -> Steady:
    """Memory for a run's inputs and outputs."""
    given = [arguments[position] for position, _ in known.inputs]
    memories = stream.allocate_all([*(a.nbytes for a in given), *(o.nbytes for o in known.outputs)])
    arrays = [row_major(device, m, a.dtype, a.shape) for m, a in zip(memories, [*given, *results], strict=True)]
    inputs, outputs = arrays[: len(given)], arrays[len(given) :]
    return Steady(inputs, outputs)


def _output(known: PlanValue, value: int, shape: tuple[int, ...]) -> Output:
    dtype = DTYPES[known.dtype]
    return Output(value, shape, dtype, math.prod(shape) * dtype.itemsize)
