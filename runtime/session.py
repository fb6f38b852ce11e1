"""A session: the buffers and state of one user of an executable. Cheap; belongs to one thread at a time."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fusible.errors import ExecutionError, FusibleError, LimitExceeded, SignatureError
from fusible.runtime.dims import evaluate_dim, single_symbol
from fusible.runtime.memory import Placement, aligned_bytes, place
from fusible.runtime.native.program import Segment, address_of, segments
from fusible.runtime.plan import Alloc, Call, Copy, If, Launch, Loop, Plan, PlanValue, Step
from fusible.runtime.profile import Observer, profile_steps
from fusible.runtime.signature import DTYPES, bind_dims, check_input
from fusible.runtime.views import arena_view, shape_of, stored

if TYPE_CHECKING:
    from fusible.runtime.executable import Executable

__all__ = ["RunLimits", "Session"]

MAX_LAYOUTS = 16


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Bounds of a run: bytes of one tensor and of all planned buffers, iterations of one loop.

    unbounded_iterations holds for loops without a trip count, or with one above 2**31.
    """

    tensor_bytes: int = 16 * 2**30
    memory_bytes: int = 64 * 2**30
    loop_iterations: int = 100_000
    unbounded_iterations: int = 10_000


@dataclass(slots=True)
class _Layout:
    """What a plan's runs with one set of extents share.

    values: constants and arena views at their numbers, None elsewhere; views: the latter; outputs: the numbers and
    shapes of results to be allocated. For native steps: pointers, the addresses of values, and of each segment its dims
    and the values whose addresses change from run to run.
    """

    values: list[Any]
    views: dict[int, np.ndarray]
    outputs: list[tuple[int, tuple[int, ...]]]
    pointers: Any = None
    segments: dict[int, tuple[Any, tuple[int, ...]]] = field(default_factory=dict)


@dataclass(slots=True)
class _Frame:
    """What one plan needs between runs: its arena and the layouts made so far; sub-plans have frames of their own.

    bound: by the shapes of arguments and the symbols around, the symbols that they gave when they were checked.
    """

    plan: Plan
    arena: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))
    layouts: dict[tuple[Any, ...], _Layout] = field(default_factory=dict)
    bound: dict[tuple[Any, ...], dict[str, int]] = field(default_factory=dict)
    children: dict[tuple[int, str], _Frame] = field(default_factory=dict)
    segments: dict[int, Segment] | None = None

    def child(self, step: int, which: str, plan: Plan) -> _Frame:
        found = self.children.get((step, which))
        if found is None:
            found = self.children[step, which] = _Frame(plan)
        return found


class Session:
    """Runs one executable again and again over buffers of its own."""

    def __init__(self, executable: Executable) -> None:
        self._executable = executable
        self._frame = _Frame(executable.plan)
        self._bound_inputs: dict[str, Any] = {}
        self._bound_outputs: dict[str, np.ndarray] = {}
        self._state: dict[str, str] = {}
        self._observer: Observer | None = None
        self._poison = False
        self._names = tuple(spec.name for spec in executable.inputs)
        launches = [step for step in executable.plan.steps if not isinstance(step, Copy | Alloc)]
        self._native = all(isinstance(s, Launch) and executable.is_native(s.kernel) for s in launches)

    def bind(
        self,
        inputs: Mapping[str, Any] | None = None,
        outputs: Mapping[str, np.ndarray] | None = None,
        state: Mapping[str, str] | None = None,
    ) -> None:
        """Fix inputs (arrays read at each run), outputs (arrays written at each run) and state.

        state maps an output to the input that takes its value at the next run (past <- present): the buffers stay
        where they are. Raises SignatureError for unknown names or arrays that cannot be used.
        """
        specs_in = {s.name: s for s in self._executable.inputs}
        specs_out = {s.name: s for s in self._executable.outputs}
        for name, value in (inputs or {}).items():
            if name not in specs_in:
                raise SignatureError(name, f"one of the inputs {', '.join(specs_in)}", "an unknown name")
            self._bound_inputs[name] = check_input(specs_in[name], value)
        for name, array in (outputs or {}).items():
            if name not in specs_out:
                raise SignatureError(name, f"one of the outputs {', '.join(specs_out)}", "an unknown name")
            if not array.flags.writeable or array.dtype != specs_out[name].dtype:
                raise SignatureError(name, f"a writeable array of {specs_out[name].dtype}", f"{array!r:.60}")
            self._bound_outputs[name] = array
        for present, past in (state or {}).items():
            if present not in specs_out or past not in specs_in:
                raise SignatureError(past, "state={output name: input name}", f"{present!r}: {past!r}")
            self._state[present] = past

    def run(self, inputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run once. Outputs are owned by the caller (bound ones are the bound arrays).

        Raises SignatureError, BoundsError, LimitExceeded, ExecutionError.
        """
        executable = self._executable
        given = {**self._bound_inputs, **(inputs or {})}
        arguments = []
        for spec in executable.inputs:
            if spec.name not in given:
                raise SignatureError(spec.name, str(spec), "nothing; the input is missing")
            arguments.append(check_input(spec, given.pop(spec.name)))
        if given:
            names = ", ".join(s.name for s in executable.inputs)
            raise SignatureError(next(iter(given)), f"one of the inputs {names}", "an unknown name")
        results = self._run_main(arguments)
        named = {spec.name: value for spec, value in zip(executable.outputs, results, strict=True)}
        for present, past in self._state.items():
            self._bound_inputs[past] = named[present]
            self._bound_outputs.pop(present, None)
        return named

    def _run_main(self, arguments: Sequence[Any]) -> list[Any]:
        plan = self._executable.plan
        owned = {
            plan.outputs[i]: self._bound_outputs[spec.name]
            for i, spec in enumerate(self._executable.outputs)
            if spec.name in self._bound_outputs
        }
        try:
            if self._native:
                return self._execute(self._frame, list(arguments), {}, owned, self._names)
            with np.errstate(all="ignore"):
                return self._execute(self._frame, list(arguments), {}, owned, self._names)
        except MemoryError as error:
            raise ExecutionError("a run", f"out of memory: {error}") from error

    def profile(self, inputs: Mapping[str, Any], repeat: int = 3) -> list[dict[str, Any]]:
        """Time each step: rows with kernel, op, origin, seconds (least of `repeat` runs), calls and bytes moved."""
        return profile_steps(self._observed, inputs, repeat)

    def _observed(self, inputs: Mapping[str, Any], observer: Observer) -> None:
        """Run once with every step by itself, and tell the observer how long each took."""
        self._observer = observer
        try:
            self.run(inputs)
        finally:
            self._observer = None

    # Execution

    def _execute(
        self,
        frame: _Frame,
        arguments: list[Any],
        outer: Mapping[str, int],
        owned: Mapping[int, np.ndarray],
        names: Sequence[str] = (),
    ) -> list[Any]:
        plan = frame.plan
        env = self._environment(frame, arguments, outer, names)
        layout = self._layout(frame, env)
        values = layout.values.copy()
        for number, argument in zip(plan.inputs, arguments, strict=True):
            values[number] = argument
        if self._poison:
            _poison(layout.views.values())
        for number, shape in layout.outputs:
            values[number] = self._output(plan.values[number], shape, owned.get(number))
        self._steps(frame, layout, values, env)
        return [self._hand_over(values[n], owned.get(n), plan.values[n]) for n in plan.outputs]

    def _steps(self, frame: _Frame, layout: _Layout, values: list[Any], env: dict[str, int]) -> None:
        """All steps in order; native ones that follow each other in one call, unless each is to be observed."""
        steps, position = frame.plan.steps, 0
        native = self._segments(frame) if self._observer is None else {}
        while position < len(steps):
            segment = native.get(position)
            if segment is not None:
                self._run_segment(segment, layout, values, env)
                following = segment.last
            else:
                started = time.perf_counter() if self._observer is not None else 0.0
                self._step(frame, position, steps[position], values, env)
                if self._observer is not None:
                    self._observer(steps[position], time.perf_counter() - started)
                following = position + 1
            for step in steps[position:following]:
                for number in step.free:
                    values[number] = None
            position = following

    def _environment(
        self, frame: _Frame, arguments: Sequence[Any], outer: Mapping[str, int], names: Sequence[str]
    ) -> dict[str, int]:
        """The symbols for these arguments, a copy. Shapes that were checked in an earlier run are not checked again."""
        shapes = tuple([a.shape if isinstance(a, np.ndarray) else None for a in arguments])
        key = (shapes, *outer.items())
        found = frame.bound.get(key)
        if found is None:
            found = self._bind_arguments(frame.plan, arguments, outer, names)
            if len(frame.bound) >= MAX_LAYOUTS:
                frame.bound.pop(next(iter(frame.bound)))
            frame.bound[key] = found
        return found.copy()

    def _segments(self, frame: _Frame) -> dict[int, Segment]:
        program = self._executable.program
        if frame.segments is None:
            frame.segments = {} if program is None else segments(program, frame.plan.steps)
        return frame.segments

    def _run_segment(self, segment: Segment, layout: _Layout, values: list[Any], env: dict[str, int]) -> None:
        program = self._executable.program
        assert program is not None
        if segment.first not in layout.segments:
            self._prepare_segment(segment, layout, env)
        dims, moving = layout.segments[segment.first]
        pointers = layout.pointers
        held: list[np.ndarray] = []  # copies that must live until the call is over
        copied: list[tuple[np.ndarray, np.ndarray]] = []
        for number in moving:
            array = values[number]
            if not array.flags.c_contiguous:
                held.append(np.ascontiguousarray(array))
                if number in segment.written:
                    copied.append((array, held[-1]))
                array = held[-1]
            pointers[number] = address_of(array)
        segment.run(program, pointers, dims)
        for target, source in copied:
            np.copyto(target, source)

    @staticmethod
    def _prepare_segment(segment: Segment, layout: _Layout, env: Mapping[str, int]) -> None:
        """Addresses of what does not move between runs, the segment's dims, and the numbers of what does move."""
        if layout.pointers is None:
            layout.pointers = (ctypes.c_void_p * len(layout.values))()
            for number, array in enumerate(layout.values):
                if array is not None and array.dtype != object:
                    layout.pointers[number] = array.ctypes.data
        used = dict.fromkeys((*segment.read, *segment.written))
        moving = tuple(number for number in used if layout.values[number] is None)
        layout.segments[segment.first] = segment.evaluated(env), moving

    def _bind_arguments(
        self, plan: Plan, arguments: Sequence[Any], outer: Mapping[str, int], names: Sequence[str]
    ) -> dict[str, int]:
        env = dict(outer)
        tensors = [
            (plan.values[n], a, names[i] if names else plan.values[n].name)
            for i, (n, a) in enumerate(zip(plan.inputs, arguments, strict=True))
            if isinstance(a, np.ndarray) and plan.values[n].shape is not None
        ]
        for value, array, name in tensors:
            assert value.shape is not None
            if array.ndim != len(value.shape):
                raise SignatureError(name, f"rank {len(value.shape)}", f"shape {array.shape}")
            bare = [(d, e) for d, e in zip(value.shape, array.shape, strict=True) if single_symbol(d)]
            bind_dims(name, [d for d, _ in bare], [e for _, e in bare], env, plan.bounds)
        for value, array, name in tensors:
            assert value.shape is not None
            bind_dims(name, value.shape, array.shape, env, plan.bounds)
        return env

    def _layout(self, frame: _Frame, env: dict[str, int]) -> _Layout:
        key = tuple(sorted(env.items()))
        found = frame.layouts.get(key)
        if found is not None:
            return found
        placement = self.placement(frame.plan, env)
        if placement.peak > frame.arena.nbytes:
            frame.layouts.clear()
            frame.arena = aligned_bytes(placement.peak)
        if len(frame.layouts) >= MAX_LAYOUTS:
            frame.layouts.pop(next(iter(frame.layouts)))
        views: dict[int, np.ndarray] = {}
        for number, value in enumerate(frame.plan.values):
            if value.kind == "arena":
                views[number] = arena_view(frame.arena, placement.offsets[value.index], value, env)
        values: list[Any] = [None] * len(frame.plan.values)
        for number, array in (*views.items(), *self._executable.constants_of(frame.plan)):
            values[number] = array
        outputs = [(n, shape_of(v, env)) for n, v in enumerate(frame.plan.values) if v.kind == "output"]
        frame.layouts[key] = _Layout(values, views, outputs)
        return frame.layouts[key]

    def placement(self, plan: Plan, env: Mapping[str, int]) -> Placement:
        """Offsets of the plan's buffers for these extents. Raises LimitExceeded."""
        limits = self._executable.limits
        sizes = [evaluate_dim(b.nbytes, env) for b in plan.buffers]
        for size in sizes:
            if size > limits.tensor_bytes:
                raise LimitExceeded("tensor_bytes", size, limits.tensor_bytes)
        placement = place(sizes, [(b.first, b.last) for b in plan.buffers])
        if placement.peak > limits.memory_bytes:
            raise LimitExceeded("memory_bytes", placement.peak, limits.memory_bytes)
        return placement

    def _output(self, value: PlanValue, shape: tuple[int, ...], bound: np.ndarray | None) -> np.ndarray:
        if bound is not None and bound.shape == shape and bound.flags.c_contiguous:
            return bound
        return self._new(value, shape)

    def _new(self, value: PlanValue, shape: tuple[int, ...]) -> np.ndarray:
        dtype = DTYPES[value.dtype]
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes > self._executable.limits.tensor_bytes:
            raise LimitExceeded("tensor_bytes", nbytes, self._executable.limits.tensor_bytes, value.name)
        fresh = np.empty(shape, dtype)
        if self._poison:
            _poison([fresh])
        return fresh

    @staticmethod
    def _hand_over(result: Any, bound: np.ndarray | None, value: PlanValue) -> Any:
        if bound is None or result is bound:
            return result
        if bound.shape != np.shape(result):
            raise SignatureError(value.name, f"a bound output of shape {np.shape(result)}", f"shape {bound.shape}")
        np.copyto(bound, result)
        return bound

    def _step(self, frame: _Frame, position: int, step: Step, values: list[Any], env: dict[str, int]) -> None:
        match step:
            case Launch():
                arguments = [None if i is None else values[i] for i in step.inputs]
                arguments.extend(values[o] for o in step.outputs)
                if self._executable.is_native(step.kernel):
                    numbers = [*step.inputs, *step.outputs]
                    known = [None if n is None else frame.plan.values[n] for n in numbers]
                    arguments = [stored(a, value) for a, value in zip(arguments, known, strict=True)]
                arguments.extend(evaluate_dim(d, env) for d in step.dims)
                self._invoke(step, arguments)
            case Call():
                arguments = [None if i is None else values[i] for i in step.inputs]
                arguments.extend(evaluate_dim(d, env) for d in step.dims)
                result = self._invoke(step, arguments)
                results = result if isinstance(result, tuple) else (result,)
                self._receive(step.op, step.origin, step.outputs, results, frame.plan, values, env)
            case Alloc():
                value = frame.plan.values[step.output]
                values[step.output] = self._new(value, shape_of(value, env))
            case Copy():
                target = values[step.output]
                source = values[step.source]
                if target is None or not isinstance(source, np.ndarray):
                    values[step.output] = _owned(source)
                else:
                    np.copyto(target, source)
            case If():
                self._if(frame, position, step, values, env)
            case Loop():
                self._loop(frame, position, step, values, env)

    def _invoke(self, step: Launch | Call, arguments: list[Any]) -> Any:
        try:
            return self._executable.kernel(step.kernel)(*arguments)
        except FusibleError:
            raise
        except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError) as error:
            where = ", ".join(repr(o) for o in step.origin) or "a step made by the compiler"
            raise ExecutionError(f"{step.op} at {where}", str(error)) from error

    def _receive(
        self,
        op: str,
        origin: Sequence[str],
        numbers: Sequence[int],
        results: Sequence[Any],
        plan: Plan,
        values: list[Any],
        env: dict[str, int],
    ) -> None:
        """Store results, bind the symbols that their shapes define; a shape that contradicts the plan is an error."""
        for number, result in zip(numbers, results, strict=True):
            values[number] = result
            value = plan.values[number]
            if not isinstance(result, np.ndarray) or value.shape is None:
                continue
            if result.ndim != len(value.shape):
                raise ExecutionError(f"{op} at {', '.join(origin)}", f"gave rank {result.ndim}, not {len(value.shape)}")
            if result.nbytes > self._executable.limits.tensor_bytes:
                raise LimitExceeded("tensor_bytes", result.nbytes, self._executable.limits.tensor_bytes, value.name)
            for dim, extent in zip(value.shape, result.shape, strict=True):
                symbol = single_symbol(dim)
                if symbol is not None and symbol not in env:
                    env[symbol] = extent
                elif evaluate_dim(dim, env) != extent:
                    where = f"{op} at {', '.join(repr(o) for o in origin)}"
                    raise ExecutionError(where, f"gave shape {result.shape}, the compiler expected {value.shape}")

    def _if(self, frame: _Frame, position: int, step: If, values: list[Any], env: dict[str, int]) -> None:
        taken = bool(np.asarray(values[step.condition]).reshape(-1)[0])
        branch = frame.child(position, "then", step.then) if taken else frame.child(position, "else", step.otherwise)
        arguments = [None if i is None else values[i] for i in step.inputs]
        results = self._execute(branch, arguments, env, {})
        self._receive("if", step.origin, step.outputs, results, frame.plan, values, env)

    def _loop(self, frame: _Frame, position: int, step: Loop, values: list[Any], env: dict[str, int]) -> None:
        body = frame.child(position, "body", step.body)
        trip = None if step.trip is None else int(np.asarray(values[step.trip]).reshape(-1)[0])
        going = True if step.condition is None else bool(np.asarray(values[step.condition]).reshape(-1)[0])
        arguments = [None if i is None else values[i] for i in step.inputs]
        carried, captures = arguments[: step.carried], arguments[step.carried :]
        scans: list[list[np.ndarray]] = [[] for _ in step.outputs[step.carried :]]
        limit, iteration, gathered = self._executable.limits, 0, 0
        while going and (trip is None or iteration < trip):
            if iteration >= limit.unbounded_iterations:
                _check_iterations(limit, trip, iteration, ", ".join(step.origin))
            inputs = [np.asarray(iteration, np.int64), np.asarray(going), *carried, *captures]
            results = self._execute(body, inputs, env, {})
            going = bool(np.asarray(results[0]).reshape(-1)[0])
            carried = results[1 : 1 + step.carried]
            for scan, result in zip(scans, results[1 + step.carried :], strict=True):
                scan.append(result)
                gathered += result.nbytes
            if gathered > limit.memory_bytes:
                raise LimitExceeded("memory_bytes", gathered, limit.memory_bytes, ", ".join(step.origin))
            iteration += 1
        final = [_owned(c) for c in carried] if iteration == 0 else list(carried)
        stacked = [self._stack(s, step, n, frame.plan, env) for n, s in enumerate(scans)]
        self._receive("loop", step.origin, step.outputs, [*final, *stacked], frame.plan, values, env)

    @staticmethod
    def _stack(items: list[np.ndarray], step: Loop, number: int, plan: Plan, env: Mapping[str, int]) -> np.ndarray:
        if items:
            if any(i.shape != items[0].shape for i in items):
                raise ExecutionError(f"loop at {', '.join(step.origin)}", "a scan output changes its shape")
            return np.stack(items)
        value = plan.values[step.outputs[step.carried + number]]
        rest = (value.shape or (0,))[1:]
        return np.empty((0, *(d if isinstance(d, int) else env.get(str(d), 0) for d in rest)), DTYPES[value.dtype])


def _check_iterations(limit: RunLimits, trip: int | None, iteration: int, where: str) -> None:
    """Raise LimitExceeded if a loop has run for too long."""
    if trip is None or trip > 2**31:
        asked = "more, without a trip count" if trip is None else trip
        raise LimitExceeded("unbounded_iterations", asked, limit.unbounded_iterations, where)
    if iteration >= limit.loop_iterations:
        raise LimitExceeded("loop_iterations", trip, limit.loop_iterations, where)


def _owned(value: Any) -> Any:
    if isinstance(value, list):
        return [_owned(element) for element in value]
    return np.array(value, copy=True) if isinstance(value, np.ndarray) else value


def _poison(arrays: Any) -> None:
    """Fill buffers with NaN (or a conspicuous number), so that reads of unwritten memory show."""
    for array in arrays:
        if array.dtype.kind in "fc" or array.dtype.name == "bfloat16":
            array.fill(np.nan)
        elif array.dtype.kind in "iu":
            array.fill(np.iinfo(array.dtype).max // 3)
