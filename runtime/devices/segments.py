"""Steps of a plan that a device runs one after the other, with nothing for the host in between."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fusible.runtime.devices.residence import is_same_memory
from fusible.runtime.dims import symbols_of
from fusible.runtime.plan import Call, Launch, Plan, Step

__all__ = ["DeviceSegment", "device_segments", "single_segment"]


@dataclass(frozen=True, slots=True)
class DeviceSegment:
    """The steps [first, last) of a plan: launches, and views of what lies on the device.

    symbols: those that the launches' dims name.
    """

    first: int
    last: int
    steps: tuple[Launch | Call, ...]
    symbols: frozenset[str]

    @property
    def launches(self) -> tuple[Launch, ...]:
        """The steps that run kernels."""
        return tuple(step for step in self.steps if isinstance(step, Launch))


def single_segment(position: int, step: Launch) -> DeviceSegment:
    """One launch by itself."""
    symbols = frozenset[str]().union(*(symbols_of(dim) for dim in step.dims))
    return DeviceSegment(position, position + 1, (step,), symbols)


def device_segments(plan: Plan, kernels: Collection[str], on_device: Collection[int]) -> Mapping[int, DeviceSegment]:
    """The longest segments by their first step. on_device: the values that live there and do not move."""
    found: dict[int, DeviceSegment] = {}
    known = set(on_device)
    position = 0
    while position < len(plan.steps):
        steps: list[Launch | Call] = []
        while (step := _device_step(plan, position + len(steps), kernels, known)) is not None:
            steps.append(step)
        if any(isinstance(step, Launch) for step in steps):
            last = position + len(steps)
            symbols = frozenset[str]().union(*(symbols_of(dim) for step in steps for dim in step.dims))
            found[position] = DeviceSegment(position, last, tuple(steps), symbols)
        position += max(1, len(steps))
    return found


def _device_step(plan: Plan, position: int, kernels: Collection[str], known: set[int]) -> Launch | Call | None:
    """The step if the device alone runs it; a view joins the values that are known to be there."""
    step: Step | None = plan.steps[position] if position < len(plan.steps) else None
    if isinstance(step, Launch) and step.kernel in kernels:
        return step
    if isinstance(step, Call) and is_same_memory(step) and step.inputs[0] is not None and step.inputs[0] in known:
        operand, value = plan.values[step.inputs[0]], plan.values[step.outputs[0]]
        if value.shape is not None and operand.order is None and operand.whole is None:
            known.update(step.outputs)
            return step
    return None
