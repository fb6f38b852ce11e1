"""Runs by buckets: one captured graph for all sizes of a bucket, which reads the sizes of a run from a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fusible.errors import ExecutionError, LimitExceeded
from fusible.runtime.devices.array import DeviceArray, copy_arrays, device_view, row_major
from fusible.runtime.devices.buckets import (
    BucketPlan,
    Filled,
    block_start,
    bucket_plan,
    bucket_ranges,
    has_symbols,
    unsized,
)
from fusible.runtime.devices.device import Memory, Prepared, Span, Stream
from fusible.runtime.devices.frames import Capture, Record
from fusible.runtime.devices.program import DeviceProgram
from fusible.runtime.dims import evaluate_dim
from fusible.runtime.memory import Placement, place
from fusible.runtime.plan import Launch
from fusible.runtime.plan_session import MAX_LAYOUTS, RunLimits, where_of
from fusible.runtime.ranges import Ranges, range_of
from fusible.runtime.signature import DTYPES

if TYPE_CHECKING:
    from fusible.runtime.executable import Executable

__all__ = ["BucketRuns", "Wanted", "runs_by_buckets"]

_POISON = 0xFF
_MOST_GRAPHS = 8  # of one bucket; arrays that lie elsewhere then are copied to and from some that stay
_MOST_SIZES = 256  # that are kept filled in
_ITEM = np.dtype(np.int64).itemsize


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a session wants of a run.

    bound: outputs on the device by value. keeps: whether other outputs are the session's. held: identities of memory
    that inputs lie in. poison: fill everything that the run is to write.
    """

    bound: Mapping[int, DeviceArray]
    keeps: bool
    held: frozenset[int]
    poison: bool


@dataclass(slots=True)
class _Bucket:
    """Memory and graphs of a bucket.

    placement: of the arena. known: constants and arena values by number, for the largest sizes. table: the sizes of the
    next run; sent: which they are. staging: where inputs of the host are brought to. results: memory of
    outputs. steady: of inputs and outputs that lie elsewhere in each run. records: by the addresses of what moves.
    used: the sizes of runs so far, by symbol; seen: the same as keys.
    """

    ranges: Ranges
    placement: Placement
    arena: Memory
    known: dict[int, Span]
    table: Memory
    staging: dict[int, Memory] = field(default_factory=dict)
    results: dict[int, list[Memory]] = field(default_factory=dict)
    steady: list[Memory] = field(default_factory=list)
    records: dict[tuple[int, ...], Record] = field(default_factory=dict)
    sent: Filled | None = None
    used: list[Mapping[str, int]] = field(default_factory=list)
    seen: set[tuple[tuple[str, int], ...]] = field(default_factory=set)

    @property
    def nbytes(self) -> int:
        """The bytes that it has for itself: all but the arena."""
        results = (memory for pool in self.results.values() for memory in pool)
        return sum(memory.nbytes for memory in (self.table, *self.staging.values(), *results, *self.steady))


def runs_by_buckets(
    executable: Executable, program: DeviceProgram, stream: Stream, captures: list[Capture]
) -> tuple[str, BucketRuns | None]:
    """Runs of an executable by buckets; or none, and the reason why graphs are captured for exact sizes."""
    found = bucket_plan(executable.plan, program.kernels)
    reason = unsized(found, program.kernels) if isinstance(found, BucketPlan) else found
    if reason or not isinstance(found, BucketPlan):
        return reason, None
    constants = dict(executable.constants_of(executable.plan))
    return "", BucketRuns(found, constants, program, stream, executable.limits, captures)


class BucketRuns:
    """What a session has for runs by buckets. Belongs to one thread at a time."""

    def __init__(
        self, plan: BucketPlan, constants: Mapping[int, np.ndarray], program: DeviceProgram, stream: Stream,
        limits: RunLimits, captures: list[Capture],
    ) -> None:  # fmt: skip
        """Take a plan, its constants by number, what runs it, and the session's log of captures."""
        self._plan, self._constants, self._program, self._stream = plan, constants, program, stream
        self._limits, self._captures, self._device = limits, captures, program.device
        self._values = plan.plan.values
        self._buckets: dict[tuple[tuple[str, tuple[int, int]], ...], _Bucket] = {}
        self._filled: dict[tuple[tuple[str, int], ...], Filled] = {}
        self._arena: Memory | None = None
        self._pinned: np.ndarray | None = None

    def run(self, env: Mapping[str, int], arguments: Sequence[Any], wanted: Wanted) -> list[DeviceArray]:
        """The outputs, in order, of a run with these sizes. env: all symbols. arguments: checked arrays.

        An output that is bound is the bound array if that has its shape. Raises ExecutionError, LimitExceeded.
        """
        filled = self._of_sizes(env)
        bucket = self._bucket(bucket_ranges(env, self._plan.plan.bounds))
        if filled.key not in bucket.seen and len(bucket.used) < _MOST_SIZES:
            bucket.seen.add(filled.key)
            bucket.used.append(filled.env)
        self._send(bucket, filled)
        if wanted.poison:
            self._stream.fill(bucket.arena, _POISON)
        inputs = [self._input(bucket, n, arguments[place], wanted.poison) for place, n in self._plan.inputs]
        outputs = self._outputs(bucket, filled, wanted)
        arrays = [*inputs, *outputs]
        key = tuple(array.span.address for array in arrays)
        if key in bucket.records or len(bucket.records) < _MOST_GRAPHS:
            self._launch(bucket, key, arrays, filled)
        else:
            self._in_place(bucket, inputs, outputs, filled)
        return outputs

    # Sizes

    def _of_sizes(self, env: Mapping[str, int]) -> Filled:
        key = tuple(sorted(env.items()))
        found = self._filled.get(key)
        if found is None:
            found = self._plan.filled(env)
            for number, shape in zip(self._plan.plan.outputs, found.shapes, strict=True):
                self._check_bytes(math.prod(shape) * DTYPES[self._values[number].dtype].itemsize, number)
            if len(self._filled) >= _MOST_SIZES:
                self._filled.pop(next(iter(self._filled)))
            self._filled[key] = found
        return found

    def _check_bytes(self, nbytes: int, number: int) -> None:
        if nbytes > self._limits.tensor_bytes:
            raise LimitExceeded("tensor_bytes", nbytes, self._limits.tensor_bytes, self._values[number].name)

    def _send(self, bucket: _Bucket, filled: Filled) -> None:
        """Let the bucket's table hold the sizes of this run. The run before has ended: the host's copy is free."""
        if bucket.sent is filled:
            return
        if self._pinned is None:
            self._pinned = self._stream.pinned(_ITEM * self._plan.count)
        self._pinned[...] = filled.table.view(np.uint8)
        bucket.sent = None
        self._stream.send(bucket.table, self._pinned)
        bucket.sent = filled

    # Memory

    def _bucket(self, ranges: Ranges) -> _Bucket:
        key = tuple(ranges.items())
        found = self._buckets.get(key)
        if found is None:
            found = self._made(ranges)
            if len(self._buckets) >= MAX_LAYOUTS:
                self._buckets.pop(next(iter(self._buckets)))
            self._buckets[key] = found
        return found

    def _made(self, ranges: Ranges) -> _Bucket:
        placement = self._placement(ranges)
        if self._arena is None or placement.peak > self._arena.nbytes:
            self._buckets.clear()  # their graphs work in the smaller one
            self._arena = None  # before the new one, so that both need not fit
            self._arena = self._stream.allocate(placement.peak)
        known = {}
        for number in {n for step in self._plan.launches for n in self._used(step)}:
            value = self._values[number]
            if value.kind == "constant":
                known[number] = self._program.constant(value.index, self._constants[number], self._stream).span
            elif value.kind == "arena":
                known[number] = self._span(number, self._arena, placement, ranges)
        table = self._stream.allocate(_ITEM * self._plan.count)
        return _Bucket(ranges, placement, self._arena, known, table)

    def _allocate(self, bucket: _Bucket, numbers: Sequence[int]) -> list[Memory]:
        """Memory of a bucket for the largest arrays that values are in it, within what the session may have in all.

        Other buckets go if there is no room: they are made anew when they are wanted.
        """
        sizes = [self._plan.most_bytes(number, bucket.ranges) for number in numbers]
        others = [key for key, known in self._buckets.items() if known is not bucket]
        while (asked := self._held() + sum(sizes)) > self._limits.memory_bytes:
            if not others:
                names = ", ".join(name for number in numbers if (name := self._values[number].name))
                raise LimitExceeded("memory_bytes", asked, self._limits.memory_bytes, names)
            del self._buckets[others.pop(0)]
        return self._stream.allocate_all(sizes)

    def _held(self) -> int:
        """The bytes that the session has on the device for runs by buckets."""
        arena = 0 if self._arena is None else self._arena.nbytes
        return arena + sum(bucket.nbytes for bucket in self._buckets.values())

    def _placement(self, ranges: Ranges) -> Placement:
        buffers = self._plan.plan.buffers
        sizes = [max(0, range_of(b.nbytes, ranges)[1]) for b in buffers]
        for size in sizes:
            if size > self._limits.tensor_bytes:
                raise LimitExceeded("tensor_bytes", size, self._limits.tensor_bytes)
        found = place(sizes, [(b.first, b.last) for b in buffers])
        if found.peak > self._limits.memory_bytes:
            raise LimitExceeded("memory_bytes", found.peak, self._limits.memory_bytes)
        return found

    def _span(self, number: int, arena: Memory, placement: Placement, ranges: Ranges) -> Span:
        """An arena value, as large as it can be."""
        value = self._values[number]
        size = DTYPES[value.dtype].itemsize
        first = 0 if value.corner is None else size * block_start(value, lambda dim: range_of(dim, ranges))[0]
        most = max(0, range_of(self._plan.plan.buffers[value.index].nbytes, ranges)[1])
        if first + self._plan.most_bytes(number, {name: (high, high) for name, (_, high) in ranges.items()}) > most:
            raise ExecutionError(value.name or f"value {number}", f"does not fit its buffer, which has {most} bytes")
        return Span(arena.address + placement.offsets[value.index] + first, most - first, size)

    def _input(self, bucket: _Bucket, number: int, given: Any, poison: bool) -> DeviceArray:
        """An input where kernels can read it."""
        if isinstance(given, DeviceArray):
            return given
        self._check_bytes(given.nbytes, number)
        if number not in bucket.staging:
            (bucket.staging[number],) = self._allocate(bucket, [number])
        memory = bucket.staging[number]
        if poison:
            self._stream.fill(memory, _POISON)
        array = row_major(self._device, memory, given.dtype, given.shape)
        if given.nbytes:
            array.upload(np.ascontiguousarray(given), self._stream)
        return array

    def _outputs(self, bucket: _Bucket, filled: Filled, wanted: Wanted) -> list[DeviceArray]:
        found = []
        for number, shape in zip(self._plan.plan.outputs, filled.shapes, strict=True):
            bound = wanted.bound.get(number)
            if bound is not None and bound.shape == shape:
                found.append(bound)
                continue
            dtype = DTYPES[self._values[number].dtype]
            nbytes = math.prod(shape) * dtype.itemsize
            memory = self._kept(bucket, number, wanted.held) if wanted.keeps else self._stream.allocate(nbytes)
            if wanted.poison:
                self._stream.fill(memory, _POISON)
            found.append(row_major(self._device, memory, dtype, shape))
        return found

    def _kept(self, bucket: _Bucket, number: int, held: frozenset[int]) -> Memory:
        """Memory for an output that stays the session's. There are two where one is an input of the present run."""
        pool = bucket.results.setdefault(number, [])
        free = [memory for memory in pool if id(memory) not in held]
        if not free:
            free = self._allocate(bucket, [number])
            pool += free
        return free[0]

    # Launches

    def _launch(self, bucket: _Bucket, key: tuple[int, ...], arrays: Sequence[DeviceArray], filled: Filled) -> None:
        """All launches, over these inputs and outputs: one by one, and from the second time on as a graph."""
        record = bucket.records.get(key)
        fresh = record is None
        if record is None:
            record = bucket.records[key] = Record(self._prepared(bucket, arrays))
        elif record.graph is None:
            record.graph = self._stream.capture(record.launches)
            steps, ranges = (0, len(self._plan.plan.steps)), dict(bucket.ranges)
            self._captures.append(Capture(steps, len(record.launches), filled.env, len(key), ranges, bucket.used))
        if self._device.checked:
            self._confine(bucket, record.launches, arrays, filled)
        if record.graph is not None and not fresh:
            record.graph.replay()
            return
        for launch in record.launches:
            launch.launch()

    def _in_place(
        self, bucket: _Bucket, inputs: Sequence[DeviceArray], outputs: Sequence[DeviceArray], filled: Filled
    ) -> None:
        """A run whose arrays lie elsewhere each time: by copies to and from arrays that stay."""
        given = [*inputs, *outputs]
        if not bucket.steady:
            bucket.steady = self._allocate(bucket, self._plan.moving)
        arrays = [row_major(self._device, m, a.dtype, a.shape) for m, a in zip(bucket.steady, given, strict=True)]
        copy_arrays(zip(inputs, arrays, strict=False), self._stream)
        self._launch(bucket, tuple(array.span.address for array in arrays), arrays, filled)
        copy_arrays(zip(arrays[len(inputs) :], outputs, strict=True), self._stream)

    def _prepared(self, bucket: _Bucket, arrays: Sequence[DeviceArray]) -> list[Prepared]:
        """All launches, with the programs and the memory of the largest sizes; but for those that never have any."""
        moving = {
            number: Span(a.span.address, self._plan.most_bytes(number, bucket.ranges), a.dtype.itemsize)
            for number, a in zip(self._plan.moving, arrays, strict=True)
        }
        found = []
        for step, programs in self._working(bucket):
            spans = [moving.get(n) or bucket.known[n] for n in self._used(step)]
            if not has_symbols(step):
                numbers = [evaluate_dim(d, {}) for d in step.dims[1:]]
                where = where_of(step)
                found.append(self._program.prepare(self._stream, step.kernel, programs, spans, numbers, where))
                continue
            for end in (0, 1):
                extremes = [range_of(d, bucket.ranges)[end] for d in step.dims[1:]]
                self._program.check(step.kernel, len(spans), extremes, where_of(step))
            start = bucket.table.address + _ITEM * self._plan.tables[step.dims]
            table = Span(start, _ITEM * len(step.dims), _ITEM)
            found.append(self._program.prepare_sized(self._stream, step.kernel, programs, spans, table, where_of(step)))
        return found

    def _working(self, bucket: _Bucket) -> Iterator[tuple[Launch, int]]:
        """The launches that may have work for sizes of a bucket, and how many programs at most."""
        for step in self._plan.launches:
            programs = range_of(step.dims[0], bucket.ranges)[1]
            if programs > 0:
                yield step, programs

    def _used(self, step: Launch) -> list[int]:
        """The values whose memory a launch is given."""
        return [self._plan.roots.get(n, n) for n in (*step.inputs, *step.outputs) if n is not None]

    def _confine(
        self, bucket: _Bucket, launches: Sequence[Prepared], arrays: Sequence[DeviceArray], filled: Filled
    ) -> None:
        """Tell launches that check their accesses how large arrays are in this run."""
        true = {number: array.span for number, array in zip(self._plan.moving, arrays, strict=True)}
        for (step, _), launch in zip(self._working(bucket), launches, strict=True):
            for number in self._used(step):
                value = self._values[number]
                if number not in true and value.kind == "arena":
                    start = bucket.placement.offsets[value.index]
                    true[number] = device_view(self._device, bucket.arena, start, value, filled.env).span
            launch.confine([true.get(n) or bucket.known[n] for n in self._used(step)])
