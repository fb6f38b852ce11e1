"""What a device session keeps between runs, by plan and by sizes, and during one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fusible.errors import ExecutionError, LimitExceeded, SignatureError
from fusible.runtime.devices.array import DeviceArray, device_view
from fusible.runtime.devices.device import Device, Graph, Memory, Prepared
from fusible.runtime.devices.residence import Residence, is_same_memory
from fusible.runtime.devices.segments import DeviceSegment
from fusible.runtime.dims import evaluate_dim, symbols_of
from fusible.runtime.memory import Placement
from fusible.runtime.plan import Call, Plan
from fusible.runtime.plan_session import MAX_LAYOUTS, Frame, Layout, RunLimits
from fusible.runtime.views import arena_view, shape_of

__all__ = [
    "Capture",
    "DeviceFrame",
    "DeviceLayout",
    "Record",
    "RunValues",
    "arena_arrays",
    "check_staging",
    "copied_result",
    "still_view",
]

_SHOWN = 6  # sizes in a line of the log


@dataclass(frozen=True, slots=True)
class Capture:
    """A line of the log of captures: which steps became one graph, and for which shapes.

    steps: [first, last) in their plan. symbols: the values of symbolic dimensions when it was captured. addresses: how
    many of the arrays may lie elsewhere in another run, which then needs a graph of its own.

    bucket: from which to which size the graph serves for each symbol; None if only for those of `symbols`, for the
    reason `exact`. used: the sizes of runs in the bucket so far, of which the last ones are left out if there are many.
    """

    steps: tuple[int, int]
    launches: int
    symbols: Mapping[str, int]
    addresses: int
    bucket: Mapping[str, tuple[int, int]] | None = None
    used: Sequence[Mapping[str, int]] = ()
    exact: str = ""

    def __str__(self) -> str:
        what = f"steps {self.steps[0]} to {self.steps[1] - 1}, {self.launches} launches"
        if self.bucket is None:
            why = f" ({self.exact})" if self.exact else ""
            return f"{what}, for {_sizes(self.symbols) or 'all runs'}{why}"
        ranges = ", ".join(f"{name} {low} to {high}" for name, (low, high) in self.bucket.items())
        shown = "; ".join(map(_sizes, self.used[:_SHOWN]))
        more = f" and {len(self.used) - _SHOWN} more" if len(self.used) > _SHOWN else ""
        return f"{what}, for {ranges}; used for {shown}{more}"


def _sizes(symbols: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={value}" for name, value in symbols.items())


class RunValues(list[Any]):
    """The values of one run: host arrays, device arrays, lists; and what was brought to the other side meanwhile."""

    def __init__(self, layout: DeviceLayout) -> None:
        super().__init__(layout.values)
        self.layout = layout
        self.on_host: dict[int, np.ndarray] = {}
        self.on_device = dict(layout.constants)

    def __setitem__(self, number: Any, value: Any) -> None:
        super().__setitem__(number, value)
        self.on_host.pop(number, None)
        self.on_device.pop(number, None)


@dataclass(slots=True)
class Record:
    """A segment's launches for one set of addresses; a graph from the second run on."""

    launches: list[Prepared]
    graph: Graph | None = None


@dataclass(slots=True)
class DeviceLayout(Layout):
    """arena, staging: of its frame. host: arena values that live with the host. constants, known: those on the device,
    and all device arrays that stay where they are between runs. moving: of each segment, the others that it uses.
    records: by segment, addresses of what moves, and symbols that a run defines. graphs: how many each segment has.
    """

    plan: Plan
    arena: Memory
    staging: dict[int, Memory]
    host: list[np.ndarray]
    constants: dict[int, DeviceArray]
    known: dict[int, DeviceArray]
    moving: dict[int, tuple[int, ...]] = field(default_factory=dict)
    records: dict[tuple[Any, ...], Record] = field(default_factory=dict)
    graphs: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class DeviceFrame(Frame[DeviceLayout]):
    """arena, host_arena: memory of the plan on both sides. staging: where host values are brought to, by number.
    results: memory of outputs that the session keeps, by number and shape.
    """

    arena: Memory | None = None
    host_arena: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))
    staging: dict[int, Memory] = field(default_factory=dict)
    results: dict[tuple[int, tuple[int, ...]], list[DeviceArray]] = field(default_factory=dict)
    residence: Residence | None = None
    segments: Mapping[int, DeviceSegment] | None = None

    def forget_results(self, number: int) -> None:
        """Make room for an output's memory under another shape: it is kept for the last shapes only."""
        known = [key for key in self.results if key[0] == number]
        for key in known[: len(known) - MAX_LAYOUTS + 1]:
            del self.results[key]


def arena_arrays(
    device: Device, frame: DeviceFrame, on_device: Collection[int], placement: Placement, env: Mapping[str, int]
) -> tuple[dict[int, DeviceArray], dict[int, np.ndarray]]:
    """The arena values of a plan by number, those on the device and those of the host."""
    known: dict[int, DeviceArray] = {}
    host: dict[int, np.ndarray] = {}
    assert frame.arena is not None
    for number, value in enumerate(frame.plan.values):
        if value.kind == "arena" and number in on_device:
            known[number] = view = device_view(device, frame.arena, placement.offsets[value.index], value, env)
            end = view.offset - placement.offsets[value.index] + view.extent
            if end > (held := evaluate_dim(frame.plan.buffers[value.index].nbytes, env)):
                raise ExecutionError(value.name or f"value {number}", f"ends {end} bytes into a buffer of {held}")
        elif value.kind == "arena":
            host[number] = arena_view(frame.host_arena, placement.offsets[value.index], value, env)
    return known, host


def still_view(step: Call, plan: Plan, known: Mapping[int, DeviceArray], env: Mapping[str, int]) -> DeviceArray | None:
    """The result of a view of what stays where it is, unless a run has yet to define its sizes."""
    operand = known.get(step.inputs[0]) if is_same_memory(step) and step.inputs[0] is not None else None
    value = plan.values[step.outputs[0]] if step.outputs else None
    if operand is None or value is None or value.shape is None or not operand.contiguous:
        return None
    late = any(not symbols_of(dim) <= env.keys() for dim in value.shape)
    return None if late else operand.reshaped(shape_of(value, env))


def copied_result(name: str, result: Any, bound: np.ndarray) -> np.ndarray:
    """An output in the array that it is bound to. Raises SignatureError for another shape."""
    if bound.shape != np.shape(result):
        raise SignatureError(name, f"shape {np.shape(result)}", f"shape {bound.shape}", "output")
    np.copyto(bound, result)
    return bound


def check_staging(layout: DeviceLayout, number: int, nbytes: int, limits: RunLimits) -> None:
    """Raise LimitExceeded if the arena and what is staged, with an array for value `number`, are more than allowed."""
    name = layout.plan.values[number].name
    if nbytes > limits.tensor_bytes:
        raise LimitExceeded("tensor_bytes", nbytes, limits.tensor_bytes, name)
    others = sum(memory.nbytes for value, memory in layout.staging.items() if value != number)
    if (asked := layout.arena.nbytes + others + nbytes) > limits.memory_bytes:
        raise LimitExceeded("memory_bytes", asked, limits.memory_bytes, name)
