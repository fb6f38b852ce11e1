"""Runs that are one graph from beginning to end: what such a run does anew, settled once for each set of shapes.

Most models are a single segment of launches. Then a run needs the addresses of its inputs and outputs and the graph
that was captured for them; all else is the same as in the last run with these shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusible.runtime.devices.array import DeviceArray
from fusible.runtime.devices.device import Graph, Memory
from fusible.runtime.devices.frames import DeviceLayout
from fusible.runtime.devices.segments import DeviceSegment
from fusible.runtime.plan import Launch, Plan

__all__ = ["Shapes", "Straight", "shapes_of", "straight"]

Shapes = tuple[tuple[int, ...], ...]
"""The shapes of all arguments of a run."""


@dataclass(frozen=True, slots=True)
class Given:
    """addresses: of the inputs on the device. staged: arrays of the host's, each with the memory it is brought to."""

    addresses: list[int]
    staged: list[tuple[Memory, np.ndarray]]


@dataclass(frozen=True, slots=True)
class Straight:
    """inputs: (position among the arguments, value) of those that kernels read. outputs: (value, shape), in order.

    order: for each value that moves in the segment, its place among inputs and then outputs.
    """

    layout: DeviceLayout
    segment: DeviceSegment
    inputs: tuple[tuple[int, int], ...]
    outputs: tuple[tuple[int, tuple[int, ...]], ...]
    order: tuple[int, ...]

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
    outputs = tuple((value, shapes[value]) for value in plan.outputs)
    return Straight(layout, segment, inputs, outputs, tuple(places[value] for value in moving))
