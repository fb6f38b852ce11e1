"""A session whose arrays lie on a device where kernels there read or write them. Belongs to one thread at a time.

Steps that the device cannot run are the host's: what they read is brought to it, what they write is brought back. The
same code does so for every device; `residence.py` decides what never needs to travel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fusible.errors import ExecutionError, LimitExceeded, SignatureError
from fusible.kernels.aligned import aligned_bytes
from fusible.runtime.devices.array import DeviceArray, device_range, imported, is_stored, overlap_on_device, row_major
from fusible.runtime.devices.bucket_runs import Wanted, runs_by_buckets
from fusible.runtime.devices.device import Memory, Prepared
from fusible.runtime.devices.frames import (
    Capture,
    DeviceFrame,
    DeviceLayout,
    Record,
    RunValues,
    arena_arrays,
    check_staging,
    copied_result,
    still_view,
)
from fusible.runtime.devices.program import DeviceProgram
from fusible.runtime.devices.residence import Residence, is_same_memory, residence
from fusible.runtime.devices.segments import DeviceSegment, device_segments, single_segment
from fusible.runtime.devices.straight import Straight, StraightRuns, in_place, shapes_of, straight
from fusible.runtime.dims import evaluate_dim
from fusible.runtime.memory import Placement
from fusible.runtime.plan import Alloc, Call, Copy, If, Launch, Loop, Plan, PlanValue, Step
from fusible.runtime.plan_session import PlanSession, layout_key, where_of
from fusible.runtime.session import owned, poison
from fusible.runtime.signature import DTYPES, TensorSpec, check_input
from fusible.runtime.views import arranged, shape_of

if TYPE_CHECKING:
    from fusible.runtime.executable import Executable

__all__ = ["Capture", "DeviceSession"]

_POISON = 0xFF  # bytes of NaN in every float, -1 in integers
_MOST_RECORDS = 64  # of one layout: addresses that keep changing are not worth more
_MOST_GRAPHS = 8  # of one segment, for the same reason: a graph costs milliseconds and memory


class DeviceSession(PlanSession[DeviceFrame, DeviceLayout, DeviceSegment]):
    """Runs one executable again and again on a device, over memory and in a stream of its own.

    captures: the log of what became graphs.
    """

    _arrays = (np.ndarray, DeviceArray)
    _range = staticmethod(device_range)
    _shares = staticmethod(overlap_on_device)

    def __init__(self, executable: Executable) -> None:
        super().__init__(executable, DeviceFrame(executable.plan))
        assert executable.device is not None
        self._program: DeviceProgram = executable.device
        self._device = self._program.device
        with self._device.active():
            self._stream = self._device.stream()
        self._given_outputs: dict[str, Any] = {}
        self._keeps_results = True
        self._graphs = _MOST_GRAPHS
        self._held: frozenset[int] = frozenset()
        self._straight = StraightRuns()
        self.captures: list[Capture] = []
        self._exact, self._buckets = runs_by_buckets(executable, self._program, self._stream, self.captures)

    # Runs

    def run(self, inputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run once. inputs: NumPy arrays, or arrays on the device (`__dlpack__`), which are not copied.

        Outputs are NumPy arrays that the caller owns; bound ones are the bound arrays, wherever they are. Raises
        SignatureError, BoundsError, LimitExceeded, ExecutionError, DeviceError.
        """
        with self._working():
            named = self._run_named(inputs, keeps_results=True)
            found = {n: self._given_back(n, r if n in self._bound_outputs else self._host(r)) for n, r in named.items()}
            self._advance(named)
        return found

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Between what the caller has under way on the device, which is waited for, and the end of all that is done."""
        with self._device.active():
            self._stream.await_caller()
            try:
                yield
            finally:  # a failed run may still write what is bound
                self._stream.synchronise()

    def _given_back(self, name: str, result: Any) -> Any:
        """An output, or what it is bound to."""
        bound = self._bound_outputs.get(name)
        if isinstance(bound, np.ndarray):
            return copied_result(name, self._host(result), bound)
        return result if bound is None else self._given_outputs[name]

    def _advance(self, named: Mapping[str, Any]) -> None:
        """Outputs that are state become inputs of the next run."""
        for present, past in self._state.items():
            self._bound_inputs[past] = named[present]
            self._bound_outputs.pop(present, None)

    def run_on_device(self, inputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run once and leave the outputs where they are: arrays on the device (`__dlpack__`), owned by the caller.

        What the host computed is a NumPy array. Inputs, bound outputs and errors as for `run`.
        """
        with self._working():
            named = self._run_named(inputs, keeps_results=False)
            found = {name: self._given_back(name, result) for name, result in named.items()}
            self._advance(named)
        return found

    def bind(
        self,
        inputs: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        state: Mapping[str, str] | None = None,
    ) -> None:
        """Fix inputs, outputs and state, as other sessions do; arrays may lie on the device (`__dlpack__`).

        State never leaves the device.
        """
        with self._working():
            super().bind(inputs, outputs, state)
        self._given_outputs |= dict(outputs or {})

    def _run_named(self, inputs: Mapping[str, Any] | None, *, keeps_results: bool) -> dict[str, Any]:
        arguments = self._arguments(inputs)
        self._check_apart(arguments)
        self._keeps_results = keeps_results
        self._held = frozenset(id(a.memory) for a in arguments if isinstance(a, DeviceArray))
        results = self._run_main(arguments)
        return {spec.name: value for spec, value in zip(self._executable.outputs, results, strict=True)}

    def _run_main(self, arguments: list[Any]) -> list[Any]:
        plan = self._frame.plan
        on_device = {
            number: array
            for number, spec in zip(plan.outputs, self._executable.outputs, strict=True)
            if isinstance(array := self._bound_outputs.get(spec.name), DeviceArray)
        }
        shapes = shapes_of(arguments) if self._observer is None else None
        if self._buckets is not None and shapes is not None:
            env = self._environment(self._frame, arguments, {}, self._names)
            wanted = Wanted(on_device, self._keeps_results, self._held, self._poison)
            made = dict(zip(plan.outputs, self._buckets.run(env, arguments, wanted), strict=True))
            return [self._hand_over(made[n], on_device.get(n), plan.values[n]) for n in plan.outputs]
        shapes = None if self._poison else shapes
        known = self._straight.of(shapes, self._frame.layouts)
        if known is not None and (replayed := self._replayed(known, arguments, on_device)) is not None:
            return replayed
        results = self._run_generally(arguments, on_device)
        if shapes is not None and known is None:
            env = self._frame.bound[(shapes,)]
            found = straight(plan, self._segments(self._frame), self._layout(self._frame, env))
            self._straight.settle(shapes, layout_key(env), found)
        return results

    def _replayed(
        self, known: Straight, arguments: Sequence[Any], bound: Mapping[int, DeviceArray]
    ) -> list[Any] | None:
        """The outputs of a run that is one graph; None if no graph was captured for where its arrays lie."""
        fits = all(o.value not in bound or bound[o.value].shape == o.shape for o in known.outputs)
        given = known.given(arguments) if fits else None
        if given is None:
            return None
        fresh, made = list[Memory](), list[Any]()
        if bound or self._keeps_results:
            made = [self._output(self._frame, o.value, o.shape, bound.get(o.value)) for o in known.outputs]
            places = [r.memory.address + r.offset for r in made]
        else:
            fresh = self._stream.allocate_all(known.sizes)
            places = [memory.address for memory in fresh]
        graph = known.graph([*given.addresses, *places])
        if graph is not None:
            for memory, array in given.staged:
                if array.nbytes:
                    self._stream.upload(memory, 0, np.ascontiguousarray(array))
            graph.replay()
        results = made or [o.over(self._device, m) for o, m in zip(known.outputs, fresh, strict=True)]
        if graph is None:
            if len(known.layout.records) < _MOST_GRAPHS:  # arrays have lain in so many places, captured or not
                return None
            return in_place(known, arguments, results, self._device, self._stream, self._capture_once)
        return results

    def _capture_once(self, arguments: list[Any], on_device: Mapping[int, DeviceArray]) -> None:
        """A run whose arrays lie where they always will, so that it has a graph beyond those of wandering ones."""
        self._graphs = _MOST_GRAPHS + 1
        try:
            self._run_generally(arguments, on_device)
        finally:
            self._graphs = _MOST_GRAPHS

    def _run_generally(self, arguments: list[Any], on_device: Mapping[int, DeviceArray]) -> list[Any]:
        try:
            with np.errstate(all="ignore"):
                return self._execute(self._frame, arguments, {}, on_device, self._names)
        except MemoryError as error:
            raise ExecutionError("a run", f"out of memory: {error}") from error

    def _checked_input(self, spec: TensorSpec, value: Any) -> Any:
        if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack_device__"):
            return check_input(spec, value)
        array = value if self._is_here(value) else imported(self._device, self._stream, spec.name, value)
        if array.dtype != spec.dtype or (spec.shape is not None and array.ndim != len(spec.shape)):
            raise SignatureError(spec.name, str(spec), f"{array.dtype}{list(array.shape)}")
        return array

    def _is_here(self, value: Any) -> bool:
        """True for an array that a session on this device made, of whatever executable."""
        return isinstance(value, DeviceArray) and value.device.name == self._device.name

    def _checked_output(self, spec: TensorSpec, array: Any) -> Any:
        if isinstance(array, np.ndarray):
            return super()._checked_output(spec, array)
        is_here = self._is_here(array)
        found = array if is_here else imported(self._device, self._stream, spec.name, array, copies=False)
        if found.dtype != spec.dtype or not found.contiguous:
            raise SignatureError(spec.name, f"a row-major array of {spec.dtype}", repr(array)[:60], "output")
        return found

    # Memory

    def _make_layout(self, frame: DeviceFrame, env: dict[str, int], placement: Placement) -> DeviceLayout:
        homes = self._residence(frame)
        if frame.arena is None or placement.peak > frame.arena.nbytes:
            frame.layouts.clear()
            self._straight.clear()
            frame.arena = None  # before the new one, so that both need not fit
            frame.arena = self._stream.allocate(placement.peak)
            if homes.host_arena:
                frame.host_arena = aligned_bytes(placement.peak)
        known, on_host = arena_arrays(self._device, frame, homes.on_device, placement, env)
        values: list[Any] = [known.get(number, on_host.get(number)) for number in range(len(frame.plan.values))]
        for number, constant in self._executable.constants_of(frame.plan):
            values[number] = constant
            if number in homes.constants:
                index = frame.plan.values[number].index
                known[number] = self._program.constant(index, constant, self._stream)
        for step in frame.plan.steps:
            if isinstance(step, Call) and (view := still_view(step, frame.plan, known, env)) is not None:
                known[step.outputs[0]] = values[step.outputs[0]] = view
        outputs = [(n, shape_of(v, env)) for n, v in enumerate(frame.plan.values) if v.kind == "output"]
        constants = {n: known[n] for n in homes.constants}
        host, arena, staging = list(on_host.values()), frame.arena, frame.staging
        return DeviceLayout(values, outputs, frozenset(env), frame.plan, arena, staging, host, constants, known)

    def _fresh_values(self, layout: DeviceLayout) -> list[Any]:
        return RunValues(layout)

    def _residence(self, frame: DeviceFrame) -> Residence:
        if frame.residence is None:
            frame.residence = residence(frame.plan, self._program.names)
        return frame.residence

    def _poison_layout(self, layout: DeviceLayout) -> None:
        poison(layout.host)
        self._stream.fill(layout.arena, _POISON)

    def _output(self, frame: DeviceFrame, number: int, shape: tuple[int, ...], bound: DeviceArray | None) -> Any:
        if bound is not None and bound.shape == shape:
            return bound
        if number not in self._residence(frame).on_device or frame is not self._frame or not self._keeps_results:
            return self._new(frame, number, shape)
        return self._kept(frame, number, shape)

    def _kept(self, frame: DeviceFrame, number: int, shape: tuple[int, ...]) -> DeviceArray:
        """Memory for an output that stays the session's, so that it lies at the same address in each run.

        There are two where one is an input of the present run: state goes to and fro between them.
        """
        if (number, shape) not in frame.results:
            frame.forget_results(number)
        pool = frame.results.setdefault((number, shape), [])
        for array in pool:
            if id(array.memory) not in self._held:
                if self._poison:
                    self._stream.fill(array.memory, _POISON)
                return array
        pool.append(self._new(frame, number, shape))
        return pool[-1]

    def _new(self, frame: DeviceFrame, number: int, shape: tuple[int, ...]) -> Any:
        """Memory for a value, where it lives."""
        value = frame.plan.values[number]
        dtype = DTYPES[value.dtype]
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes > self._executable.limits.tensor_bytes:
            raise LimitExceeded("tensor_bytes", nbytes, self._executable.limits.tensor_bytes, value.name)
        if number not in self._residence(frame).on_device:
            fresh = arranged(np.empty(math.prod(shape), dtype), shape, value.order)
            if self._poison:
                poison([fresh])
            return fresh
        memory = self._stream.allocate(nbytes)
        if self._poison:
            self._stream.fill(memory, _POISON)
        return DeviceArray.whole(self._device, memory, value, shape)

    # Arrays that travel

    def _host(self, value: Any) -> Any:
        return value.download(self._stream).array if isinstance(value, DeviceArray) else value

    def _own(self, value: Any) -> Any:
        if not isinstance(value, DeviceArray):
            return owned(value)
        fresh = row_major(self._device, self._stream.allocate(value.nbytes), value.dtype, value.shape)
        value.copy_to(fresh, self._stream)
        return fresh

    def _on_host(self, values: list[Any], number: int) -> Any:
        """A value for the host, brought there once in a run."""
        value = values[number]
        if not isinstance(value, DeviceArray):
            return value
        assert isinstance(values, RunValues)
        if number not in values.on_host:
            values.on_host[number] = self._host(value)
        return values.on_host[number]

    def _on_device(self, values: RunValues, number: int) -> DeviceArray:
        """A value for a kernel, stored as that takes it, brought to the device once in a run."""
        value, known = values[number], values.layout.plan.values[number]
        if isinstance(value, DeviceArray) and is_stored(value, known):
            return value
        found = values.on_device.get(number)
        if found is None:
            array = self._on_host(values, number)
            if array is None or isinstance(array, list):  # an optional that is absent, a sequence
                raise ExecutionError(known.name or "a value", f"a kernel reads it, and it is {type(array).__name__}")
            staging = values.layout.staging
            if number not in staging or staging[number].nbytes < array.nbytes:
                check_staging(values.layout, number, array.nbytes, self._executable.limits)
                staging[number] = self._stream.allocate(array.nbytes)
            found = DeviceArray.whole(self._device, staging[number], known, array.shape)
            found.upload(array, self._stream)
            values.on_device[number] = found
        return found

    # Steps

    def _segments(self, frame: DeviceFrame) -> Mapping[int, DeviceSegment]:
        if frame.segments is None:
            frame.segments = device_segments(frame.plan, self._program.names, self._residence(frame).on_device)
        return frame.segments

    def _run_segment(
        self, segment: DeviceSegment, layout: DeviceLayout, values: list[Any], env: dict[str, int]
    ) -> None:
        assert isinstance(values, RunValues)
        for step in segment.steps:
            if isinstance(step, Call) and step.outputs[0] not in layout.known:
                self._view(step, layout.plan, values, env)
        if segment.first not in layout.moving:
            used = dict.fromkeys(n for step in segment.launches for n in (*step.inputs, *step.outputs) if n is not None)
            layout.moving[segment.first] = tuple(n for n in used if n not in layout.known)
        places = tuple(self._on_device(values, n).span.address for n in layout.moving[segment.first])
        late = tuple(evaluate_dim(s, env) for s in sorted(segment.symbols - layout.symbols))
        key = (segment.first, segment.last, places, late)
        record = layout.records.get(key)
        if record is None:
            self._first_run(segment, layout, values, env, key)
        elif record.graph is None and layout.graphs[segment.first] >= self._graphs:
            for launch in record.launches:
                launch.launch()
        elif record.graph is None:
            layout.graphs[segment.first] += 1
            record.graph = self._stream.capture(record.launches)
            symbols = {name: env[name] for name in sorted(layout.symbols | segment.symbols)}
            steps = (segment.first, segment.last)
            log = Capture(steps, len(record.launches), symbols, len(places), exact=self._exact if symbols else "")
            self.captures.append(log)
            record.graph.replay()
        else:
            record.graph.replay()

    def _first_run(
        self, segment: DeviceSegment, layout: DeviceLayout, values: RunValues, env: dict[str, int], key: tuple[Any, ...]
    ) -> None:
        """Launch step by step; what was settled is kept for the next run."""
        launches = []
        for step in segment.launches:
            prepared = self._prepared(step, layout, values, env)
            if prepared is not None:
                prepared.launch()
                launches.append(prepared)
        if len(layout.records) >= _MOST_RECORDS:
            layout.records.pop(next(iter(layout.records)))
        layout.records[key] = Record(launches)

    def _prepared(
        self, step: Launch, layout: DeviceLayout, values: RunValues, env: Mapping[str, int]
    ) -> Prepared | None:
        programs, *numbers = (evaluate_dim(d, env) for d in step.dims)
        if programs == 0:
            return None
        used = [n for n in (*step.inputs, *step.outputs) if n is not None]
        arrays = [layout.known[n] if n in layout.known else self._on_device(values, n) for n in used]
        spans = [array.span for array in arrays]
        return self._program.prepare(self._stream, step.kernel, programs, spans, numbers, where_of(step))

    def _view(self, step: Call, plan: Plan, values: list[Any], env: Mapping[str, int]) -> None:
        """The same memory under another shape."""
        assert step.inputs[0] is not None
        operand = values[step.inputs[0]]
        values[step.outputs[0]] = operand.reshaped(shape_of(plan.values[step.outputs[0]], env))

    def _timed(self, frame: DeviceFrame, position: int, step: Step, values: list[Any], env: dict[str, int]) -> float:
        if not isinstance(step, Launch) or step.kernel not in self._program.names:
            return super()._timed(frame, position, step, values, env)
        assert isinstance(values, RunValues)
        prepared = self._prepared(step, values.layout, values, env)
        self._stream.hold()
        before = self._stream.event()
        if prepared is not None:
            prepared.launch()
        return before.seconds_until(self._stream.event())

    def _step(self, frame: DeviceFrame, position: int, step: Step, values: list[Any], env: dict[str, int]) -> None:
        match step:
            case Launch() if step.kernel in self._program.names:
                assert isinstance(values, RunValues)
                self._run_segment(single_segment(position, step), values.layout, values, env)
            case Launch():
                self._host_launch(step, values, env)
            case Call() if self._is_view(step, frame, values):
                self._view(step, frame.plan, values, env)
            case Call():
                arguments = [None if i is None else self._on_host(values, i) for i in step.inputs]
                arguments.extend(evaluate_dim(d, env) for d in step.dims)
                result = self._invoke(step, arguments)
                results = result if isinstance(result, tuple) else (result,)
                self._receive(step.op, step.origin, step.outputs, results, frame.plan, values, env)
            case Alloc():
                values[step.output] = self._new(frame, step.output, shape_of(frame.plan.values[step.output], env))
            case Copy():
                self._copy_step(step, values)
            case If():
                self._if(frame, position, step, values, env)
            case Loop():
                self._loop(frame, position, step, values, env)

    def _is_view(self, step: Call, frame: DeviceFrame, values: list[Any]) -> bool:
        operand = values[step.inputs[0]] if is_same_memory(step) and step.inputs[0] is not None else None
        known = frame.plan.values[step.outputs[0]].shape is not None if step.outputs else False
        return isinstance(operand, DeviceArray) and operand.contiguous and known

    def _host_launch(self, step: Launch, values: list[Any], env: Mapping[str, int]) -> None:
        arguments = [None if i is None else self._on_host(values, i) for i in step.inputs]
        targets = [values[o] for o in step.outputs]
        twins = [t.writable_twin(self._stream) if isinstance(t, DeviceArray) else None for t in targets]
        arguments.extend(t if twin is None else twin.array for t, twin in zip(targets, twins, strict=True))
        arguments.extend(evaluate_dim(d, env) for d in step.dims)
        self._invoke(step, arguments)
        for target, twin in zip(targets, twins, strict=True):
            if twin is not None:
                target.upload_twin(twin, self._stream)

    def _copy_step(self, step: Copy, values: list[Any]) -> None:
        source, target = values[step.source], values[step.output]
        match source, target:
            case DeviceArray(), DeviceArray():
                source.copy_to(target, self._stream)
            case np.ndarray(), DeviceArray():
                target.upload(source, self._stream)
            case DeviceArray() | np.ndarray(), np.ndarray():
                np.copyto(target, self._on_host(values, step.source))
            case _:
                values[step.output] = self._own(source)

    def _hand_over(self, result: Any, bound: DeviceArray | None, value: PlanValue) -> Any:
        if bound is None or result is bound:
            return result
        if bound.shape != np.shape(result):
            raise SignatureError(value.name, f"shape {np.shape(result)}", f"shape {bound.shape}", "output")
        if isinstance(result, DeviceArray):
            result.copy_to(bound, self._stream)
        else:
            bound.upload(np.asarray(result), self._stream)
        return bound
