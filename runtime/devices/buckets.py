"""Buckets of sizes: runs whose symbols lie in the same ranges share memory, launches and captured graphs.

What makes that possible: kernels read their sizes from a table on the device (`DeviceKernel.sizes`), so nothing that a
run changes is baked into a launch but addresses. A bucket has the programs and the memory of the largest sizes in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fusible.errors import ExecutionError
from fusible.runtime.devices.code import DeviceKernel
from fusible.runtime.devices.residence import is_same_memory
from fusible.runtime.dims import evaluate_dim, symbols_of
from fusible.runtime.plan import Call, Launch, Plan, PlanValue
from fusible.runtime.ranges import Range, Ranges, range_of
from fusible.runtime.signature import DTYPES
from fusible.runtime.views import shape_of

__all__ = ["BucketPlan", "Filled", "block_start", "bucket_of", "bucket_plan", "bucket_ranges", "has_symbols", "unsized"]


def bucket_of(value: int, low: int, high: int) -> Range:
    """The bucket of a size between declared bounds: its smallest and largest size.

    Buckets end at powers of two, and the last one at the upper bound: 1, 2, 4, 8, ... So a bucket's memory is less than
    twice what a run needs along one symbol, and there are few. 0 is a bucket of its own, since other sizes may be
    divided by one that is not 0.
    """
    if value == 0:
        return 0, 0
    power = 1 << max(0, value - 1).bit_length()
    return max(low, power // 2 + 1 if power > 1 else 1), min(high, power)


def bucket_ranges(env: Mapping[str, int], bounds: Mapping[str, tuple[int, int | None]]) -> Ranges:
    """The bucket of each symbol; all of them are bounded."""
    found: dict[str, Range] = {}
    for symbol in sorted(env):
        low, high = bounds[symbol]
        assert high is not None
        found[symbol] = bucket_of(env[symbol], low, high)
    return found


@dataclass(frozen=True, slots=True)
class BucketPlan:
    """A plan that runs by buckets: one sequence of launches from inputs to outputs.

    launches: in order. roots: for each value that a launch uses the one in whose memory it lies, itself or what it is a
    view of. inputs: (position among the arguments, value) of those that launches read. moving: their values and the
    outputs', each once. tables: where the numbers of a launch begin in the table of sizes, by its dims; count: numbers
    of the table in all.
    """

    plan: Plan
    launches: tuple[Launch, ...]
    roots: Mapping[int, int]
    inputs: tuple[tuple[int, int], ...]
    moving: tuple[int, ...]
    tables: Mapping[tuple[int | str, ...], int]
    count: int

    def filled(self, env: Mapping[str, int]) -> Filled:
        """What a run with these sizes needs. Raises ExecutionError for sizes that cannot be."""
        table = np.empty(self.count, np.int64)
        for dims, start in self.tables.items():
            table[start : start + len(dims)] = [evaluate_dim(d, env) for d in dims]
        values = self.plan.values
        return Filled(
            dict(env), tuple(sorted(env.items())), table, tuple(shape_of(values[n], env) for n in self.plan.outputs)
        )

    def most_bytes(self, value: int, ranges: Ranges) -> int:
        """The bytes of the largest array that a value is in a bucket."""
        known = self.plan.values[value]
        sizes = (max(0, range_of(d, ranges)[1]) for d in known.shape or ())
        return math.prod(sizes) * DTYPES[known.dtype].itemsize


@dataclass(frozen=True, slots=True, eq=False)
class Filled:
    """One set of sizes. key: the same to look up. table: the numbers of all launches, int64. shapes: of the outputs."""

    env: dict[str, int]
    key: tuple[tuple[str, int], ...]
    table: np.ndarray
    shapes: tuple[tuple[int, ...], ...]


def bucket_plan(plan: Plan, kernels: Mapping[str, DeviceKernel]) -> BucketPlan | str:
    """How a plan runs by buckets; or the reason why its graphs are captured for exact sizes.

    kernels: those that the device runs. Whether they read their sizes from a table is `unsized`'s question.
    """
    steps = [step for step in plan.steps if isinstance(step, Launch) and step.kernel in kernels]
    reason = _host_step(plan, kernels) or _open_symbol(plan) or _divisor(plan) or _moved_block(plan)
    if reason := reason or _torch(steps, kernels):
        return reason
    roots = _roots(plan)
    used = dict.fromkeys(roots.get(n, n) for s in steps for n in (*s.inputs, *s.outputs) if n is not None)
    written = {roots.get(n, n) for step in steps for n in step.outputs}
    if len(set(plan.outputs)) < len(plan.outputs) or not set(plan.outputs) <= written:
        return "an output of it is an input, or another output, as it is"
    if any(plan.values[n].kind != "output" for n in plan.outputs):
        return "the memory of an output is not its own"
    inputs = tuple((place, n) for place, n in enumerate(plan.inputs) if n in used)
    tables: dict[tuple[int | str, ...], int] = {}
    count = 0
    for step in steps:
        if step.dims not in tables:
            tables[step.dims] = count
            count += len(step.dims)
    moving = (*(n for _, n in inputs), *plan.outputs)
    return BucketPlan(plan, tuple(steps), {n: roots.get(n, n) for n in roots}, inputs, moving, tables, count)


def unsized(plan: BucketPlan, kernels: Mapping[str, DeviceKernel]) -> str:
    """The reason why kernels of a plan cannot run by buckets as they are; "" if they can."""
    for step in plan.launches:
        if has_symbols(step) and kernels[step.kernel].sizes is None:
            return f"the kernel {step.kernel} takes its sizes as arguments"
    return ""


def has_symbols(step: Launch) -> bool:
    """True for a launch whose programs or numbers differ from run to run."""
    return any(symbols_of(dim) for dim in step.dims)


def _host_step(plan: Plan, kernels: Mapping[str, DeviceKernel]) -> str:
    """The first step that is no launch on the device, as a reason."""
    for step in plan.steps:
        if isinstance(step, Launch) and step.kernel in kernels:
            continue
        if isinstance(step, Call) and is_same_memory(step) and step.inputs[0] is not None:
            operand, value = plan.values[step.inputs[0]], plan.values[step.outputs[0]]
            if value.shape is not None and operand.order is None and operand.whole is None:
                continue
        what = getattr(step, "op", "") or type(step).__name__.lower()
        return f"{what} at {', '.join(repr(o) for o in step.origin) or 'a step made by the compiler'} is the host's"
    return "" if plan.steps else "it has no steps"


def _open_symbol(plan: Plan) -> str:
    """A reason where sizes are all fixed, have no upper bound, or are no input's."""
    given = {s for n in plan.inputs for d in plan.values[n].shape or () for s in symbols_of(d)}
    needed = {s for step in plan.steps if isinstance(step, Launch) for d in step.dims for s in symbols_of(d)}
    needed |= {s for value in plan.values for d in value.shape or () for s in symbols_of(d)}
    needed |= given
    if not needed:
        return "all its sizes are fixed"
    for symbol in sorted(needed):
        if symbol not in given:
            return f"the size {symbol} is known in a run only"
        if plan.bounds.get(symbol, (0, None))[1] is None:
            return f"the size {symbol} has no upper bound: declare one, as in shapes={{{symbol!r}: (1, 64)}}"
    return ""


def _divisor(plan: Plan) -> str:
    """A reason where a size is divided by one that may be 0, or negative, though no symbol is 0."""
    dims: set[int | str] = {d for step in plan.steps if isinstance(step, Launch) for d in step.dims}
    dims.update(buffer.nbytes for buffer in plan.buffers)
    for value in plan.values:
        dims.update((*(value.shape or ()), *(value.whole or ()), *(value.corner or ())))
    bounds = _nonzero(plan)
    for dim in sorted(dims, key=str):
        try:
            range_of(dim, bounds)
        except ExecutionError as error:
            return str(error)
    return ""


def _nonzero(plan: Plan) -> Ranges:
    """The bounds of all symbols, but for 0, which is a bucket of its own."""
    known = {name: (low, high) for name, (low, high) in plan.bounds.items() if high is not None}
    return {name: (max(low, min(1, high)), high) for name, (low, high) in known.items()}


def _moved_block(plan: Plan) -> str:
    """The first value, as a reason, that begins elsewhere in its buffer for other sizes."""
    bounds: Ranges = {name: (low, high) for name, (low, high) in plan.bounds.items() if high is not None}
    for value in plan.values:
        if value.corner is None or value.kind != "arena":
            continue
        try:
            first = block_start(value, lambda dim: range_of(dim, bounds))
        except ExecutionError as error:
            return f"{value.name or 'a value'} begins at {error}"
        if first[0] != first[1]:
            return f"{value.name or 'a value'} begins elsewhere in what it is joined to for other sizes"
    return ""


def _torch(steps: list[Launch], kernels: Mapping[str, DeviceKernel]) -> str:
    for step in steps:
        if has_symbols(step) and kernels[step.kernel].product is not None:
            return f"{step.kernel} multiplies by torch, whose calls have fixed sizes"
    return ""


def block_start(value: PlanValue, size: Callable[[int | str], Range]) -> Range:
    """Elements from the beginning of its buffer to a block's first, at least and at most."""
    assert value.whole is not None and value.corner is not None
    order = tuple(range(len(value.whole))) if value.order is None else value.order
    low = high = 0
    least = most = 1
    for dim in reversed(order):
        corner, whole = size(value.corner[dim]), size(value.whole[dim])
        low, high = low + corner[0] * least, high + corner[1] * most
        least, most = least * max(0, whole[0]), most * max(0, whole[1])
    return low, high


def _roots(plan: Plan) -> dict[int, int]:
    """For each view the value in whose memory it lies."""
    roots: dict[int, int] = {}
    for step in plan.steps:
        if isinstance(step, Call) and step.inputs[0] is not None:
            roots[step.outputs[0]] = roots.get(step.inputs[0], step.inputs[0])
    return roots
