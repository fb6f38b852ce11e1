"""What every session does with a plan: arguments, symbols, layouts, branches, loops. Kinds differ in where arrays live.

A session interprets the steps of a plan over a list of values. `Session` has all of them in the process's memory;
`devices.session.DeviceSession` has on a device what kernels there read and write.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from fusible.errors import ExecutionError, FusibleError, LimitExceeded, SignatureError
from fusible.runtime.dims import evaluate_dim, single_symbol
from fusible.runtime.memory import Placement, are_apart, place
from fusible.runtime.plan import Call, If, Launch, Loop, Plan, PlanValue, Step
from fusible.runtime.profile import Observer, profile_steps
from fusible.runtime.requirements import check_rules, rules_of
from fusible.runtime.signature import DTYPES, TensorSpec, bind_dims, check_input

if TYPE_CHECKING:
    from fusible.runtime.executable import Executable

__all__ = ["Frame", "Layout", "PlanSession", "RunLimits", "where_of"]

MAX_LAYOUTS = 16


class RunLimits(NamedTuple):
    """Bounds of a run: bytes of one tensor and of all planned buffers, iterations of one loop.

    On devices planned buffers are also what inputs are brought to, and what buckets of sizes keep between runs.
    unbounded_iterations holds for loops without a trip count, or with one above 2**31.
    """

    tensor_bytes: int = 16 * 2**30
    memory_bytes: int = 64 * 2**30
    loop_iterations: int = 100_000
    unbounded_iterations: int = 10_000


@dataclass(slots=True, eq=False, repr=False)
class Layout:
    """What a plan's runs with one set of extents share.

    values: constants and arena views at their numbers, None elsewhere; outputs: the numbers and shapes of results to be
    allocated; symbols: those whose values are the same in all of these runs.
    """

    values: list[Any]
    outputs: list[tuple[int, tuple[int, ...]]]
    symbols: frozenset[str]


LayoutT = TypeVar("LayoutT", bound=Layout)


@dataclass(slots=True, eq=False, repr=False)
class Frame(Generic[LayoutT]):
    """What one plan needs between runs; sub-plans have frames of their own.

    bound: by the shapes of arguments and the symbols around, the symbols that they gave when they were checked.
    """

    plan: Plan
    layouts: dict[tuple[Any, ...], LayoutT] = field(default_factory=dict)
    bound: dict[tuple[Any, ...], dict[str, int]] = field(default_factory=dict)
    children: dict[tuple[int, str], Self] = field(default_factory=dict)

    def child(self, step: int, which: str, plan: Plan) -> Self:
        """The frame of a sub-plan."""
        found = self.children.get((step, which))
        if found is None:
            found = self.children[step, which] = type(self)(plan)
        return found


FrameT = TypeVar("FrameT", bound=Frame[Any])


class Segment(Protocol):
    """Steps that are run as one: those before `last`."""

    @property
    def last(self) -> int:
        """The first step after it."""
        ...


SegmentT = TypeVar("SegmentT", bound=Segment)


class PlanSession(ABC, Generic[FrameT, LayoutT, SegmentT]):
    """Runs one executable again and again over buffers of its own. Belongs to one thread at a time."""

    _arrays: ClassVar[tuple[type[Any], ...]] = (np.ndarray,)  # the types of a tensor's value

    def __init__(self, executable: Executable, frame: FrameT) -> None:
        self._executable = executable
        self._frame = frame
        self._bound_inputs: dict[str, Any] = {}
        self._bound_outputs: dict[str, Any] = {}
        self._state: dict[str, str] = {}
        self._observer: Observer | None = None
        self._poison = False
        self._names = tuple(spec.name for spec in executable.inputs)

    def bind(
        self,
        inputs: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
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
            self._bound_inputs[name] = self._checked_input(specs_in[name], value)
        for name, array in (outputs or {}).items():
            if name not in specs_out:
                raise SignatureError(name, f"one of the outputs {', '.join(specs_out)}", "an unknown name", "output")
            self._bound_outputs[name] = self._checked_output(specs_out[name], array)
        for present, past in (state or {}).items():
            if present not in specs_out or past not in specs_in:
                raise SignatureError(past, "state={output name: input name}", f"{present!r}: {past!r}")
            self._state[present] = past

    def run(self, inputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run once. Outputs are owned by the caller (bound ones are the bound arrays).

        Raises SignatureError, BoundsError, LimitExceeded, ExecutionError.
        """
        arguments = self._arguments(inputs)
        self._check_apart(arguments)
        results = self._run_main(arguments)
        named = {spec.name: value for spec, value in zip(self._executable.outputs, results, strict=True)}
        for present, past in self._state.items():
            self._bound_inputs[past] = named[present]
            self._bound_outputs.pop(present, None)
        return named

    def _arguments(self, inputs: Mapping[str, Any] | None) -> list[Any]:
        """The inputs in the plan's order, checked one by one."""
        executable = self._executable
        given = {**self._bound_inputs, **(inputs or {})}
        arguments = []
        for spec in executable.inputs:
            if spec.name not in given:
                raise SignatureError(spec.name, str(spec), "nothing; the input is missing")
            arguments.append(self._checked_input(spec, given.pop(spec.name)))
        if given:
            names = ", ".join(s.name for s in executable.inputs)
            raise SignatureError(next(iter(given)), f"one of the inputs {names}", "an unknown name")
        return arguments

    def _checked_input(self, spec: TensorSpec, value: Any) -> Any:
        """An input as plans take it. Raises SignatureError."""
        return check_input(spec, value)

    def _checked_output(self, spec: TensorSpec, array: Any) -> Any:
        """An array that is to be an output. Raises SignatureError."""
        if not array.flags.writeable or array.dtype != spec.dtype:
            raise SignatureError(spec.name, f"a writeable array of {spec.dtype}", f"{array!r:.60}", "output")
        return array

    def _check_apart(self, arguments: Sequence[Any]) -> None:
        """Raise SignatureError for a bound output over memory of an input or of another one: it is still read."""
        if not self._bound_outputs or are_apart(
            [self._range(array) for array in arguments], [self._range(array) for array in self._bound_outputs.values()]
        ):
            return
        given = [(f"the input {n!r}", array) for n, array in zip(self._names, arguments, strict=True)]
        for name, bound in self._bound_outputs.items():
            for what, other in given:
                if self._shares(bound, other):
                    raise SignatureError(name, "memory of its own", f"an array that overlaps {what}", "output")
            given.append((f"the output {name!r}", bound))

    def _range(self, array: Any) -> tuple[int, int]:
        """The addresses that an array lies in, from the first to behind the last; (0, 0) for what has none."""
        if not isinstance(array, np.ndarray) or not array.size:
            return 0, 0
        if array.flags.c_contiguous:
            begin = array.__array_interface__["data"][0]
            return begin, begin + array.nbytes
        return np.lib.array_utils.byte_bounds(array)

    def _shares(self, bound: Any, other: Any) -> bool:
        """True if a bound output lies over another array."""
        if not isinstance(other, np.ndarray) or not np.may_share_memory(bound, other):
            return False
        return bool(np.shares_memory(bound, other))

    # What differs between kinds

    @abstractmethod
    def _run_main(self, arguments: list[Any]) -> list[Any]:
        """The outputs for checked inputs."""

    @abstractmethod
    def _make_layout(self, frame: FrameT, env: dict[str, int], placement: Placement) -> LayoutT:
        """Buffers where the placement has them."""

    def _fresh_values(self, layout: LayoutT) -> list[Any]:
        """The values of a run that begins."""
        return layout.values.copy()

    @abstractmethod
    def _poison_layout(self, layout: LayoutT) -> None:
        """Fill buffers, so that reads of what nobody wrote show."""

    @abstractmethod
    def _output(self, frame: FrameT, number: int, shape: tuple[int, ...], bound: Any) -> Any:
        """Memory for an output; `bound`: what the caller wants it to be, or None."""

    @abstractmethod
    def _hand_over(self, result: Any, bound: Any, value: PlanValue) -> Any:
        """An output as it leaves a plan."""

    @abstractmethod
    def _segments(self, frame: FrameT) -> Mapping[int, SegmentT]:
        """By the position of their first step, the steps that are run as one."""

    @abstractmethod
    def _run_segment(self, segment: SegmentT, layout: LayoutT, values: list[Any], env: dict[str, int]) -> None:
        """Run steps as one."""

    @abstractmethod
    def _step(self, frame: FrameT, position: int, step: Step, values: list[Any], env: dict[str, int]) -> None:
        """Run one step."""

    @abstractmethod
    def _host(self, value: Any) -> Any:
        """A value for code that runs on the host."""

    @abstractmethod
    def _own(self, value: Any) -> Any:
        """A copy that shares no memory."""

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
        frame: FrameT,
        arguments: list[Any],
        outer: Mapping[str, int],
        owned: Mapping[int, Any],
        names: Sequence[str] = (),
    ) -> list[Any]:
        plan = frame.plan
        env = self._environment(frame, arguments, outer, names)
        layout = self._layout(frame, env)
        values = self._fresh_values(layout)
        for number, argument in zip(plan.inputs, arguments, strict=True):
            values[number] = argument
        if self._poison:
            self._poison_layout(layout)
        for number, shape in layout.outputs:
            values[number] = self._output(frame, number, shape, owned.get(number))
        self._steps(frame, layout, values, env)
        return [self._hand_over(values[n], owned.get(n), plan.values[n]) for n in plan.outputs]

    def _steps(self, frame: FrameT, layout: LayoutT, values: list[Any], env: dict[str, int]) -> None:
        """All steps in order; native ones that follow each other in one call, unless each is to be observed."""
        steps, position = frame.plan.steps, 0
        native = self._segments(frame) if self._observer is None else {}
        while position < len(steps):
            segment = native.get(position)
            if segment is not None:
                self._run_segment(segment, layout, values, env)
                following = segment.last
            else:
                if self._observer is None:
                    self._step(frame, position, steps[position], values, env)
                else:
                    self._observer(steps[position], self._timed(frame, position, steps[position], values, env))
                following = position + 1
            for step in steps[position:following]:
                for number in step.free:
                    values[number] = None
            position = following

    def _timed(self, frame: FrameT, position: int, step: Step, values: list[Any], env: dict[str, int]) -> float:
        """Run one step; the seconds it took."""
        started = time.perf_counter()
        self._step(frame, position, step, values, env)
        return time.perf_counter() - started

    def _environment(
        self, frame: FrameT, arguments: Sequence[Any], outer: Mapping[str, int], names: Sequence[str]
    ) -> dict[str, int]:
        """The symbols for these arguments, a copy. Shapes that were checked in an earlier run are not checked again."""
        shapes = tuple([a.shape if isinstance(a, self._arrays) else None for a in arguments])
        key = (shapes, *outer.items())
        found: dict[str, int] | None = frame.bound.get(key)
        if found is None:
            found = self._bind_arguments(frame.plan, arguments, outer, names)
            if len(frame.bound) >= MAX_LAYOUTS:
                frame.bound.pop(next(iter(frame.bound)))
            frame.bound[key] = found
        return found.copy()

    def _bind_arguments(
        self, plan: Plan, arguments: Sequence[Any], outer: Mapping[str, int], names: Sequence[str]
    ) -> dict[str, int]:
        env = dict(outer)
        tensors = [
            (plan.values[n], a, names[i] if names else plan.values[n].name)
            for i, (n, a) in enumerate(zip(plan.inputs, arguments, strict=True))
            if isinstance(a, self._arrays) and plan.values[n].shape is not None
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
        check_rules(rules_of(plan.rules, env), env)
        return env

    def _layout(self, frame: FrameT, env: dict[str, int]) -> LayoutT:
        key = layout_key(env)
        found: LayoutT | None = frame.layouts.get(key)
        if found is None:
            found = self._make_layout(frame, env, self.placement(frame.plan, env))
            if len(frame.layouts) >= MAX_LAYOUTS:
                frame.layouts.pop(next(iter(frame.layouts)))
            frame.layouts[key] = found
        return found

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

    def _invoke(self, step: Launch | Call, arguments: list[Any]) -> Any:
        try:
            return self._executable.kernel(step.kernel)(*arguments)
        except FusibleError:
            raise
        except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError) as error:
            raise ExecutionError(where_of(step), str(error)) from error

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
        if len(numbers) != len(results):
            raise ExecutionError(f"{op} at {', '.join(origin)}", f"gave {len(results)} results, not {len(numbers)}")
        found = len(env)
        for number, result in zip(numbers, results, strict=True):
            values[number] = result
            value = plan.values[number]
            if not isinstance(result, self._arrays) or value.shape is None:
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
        if plan.rules and len(env) > found:
            check_rules(rules_of(plan.rules, env, list(env)[found:]), env)

    def _if(self, frame: FrameT, position: int, step: If, values: list[Any], env: dict[str, int]) -> None:
        taken = bool(np.asarray(self._host(values[step.condition])).reshape(-1)[0])
        branch = frame.child(position, "then", step.then) if taken else frame.child(position, "else", step.otherwise)
        arguments = [None if i is None else values[i] for i in step.inputs]
        results = self._execute(branch, arguments, env, {})
        self._receive("if", step.origin, step.outputs, results, frame.plan, values, env)

    def _loop(self, frame: FrameT, position: int, step: Loop, values: list[Any], env: dict[str, int]) -> None:
        body = frame.child(position, "body", step.body)
        trip = None if step.trip is None else int(np.asarray(self._host(values[step.trip])).reshape(-1)[0])
        going = True if step.condition is None else bool(np.asarray(self._host(values[step.condition])).reshape(-1)[0])
        arguments = [None if i is None else values[i] for i in step.inputs]
        carried, captures = arguments[: step.carried], arguments[step.carried :]
        scans: list[list[np.ndarray]] = [[] for _ in step.outputs[step.carried :]]
        limit, iteration, gathered = self._executable.limits, 0, 0
        while going and (trip is None or iteration < trip):
            if iteration >= limit.unbounded_iterations:
                _check_iterations(limit, trip, iteration, ", ".join(step.origin))
            inputs = [np.asarray(iteration, np.int64), np.asarray(going), *carried, *captures]
            results = self._execute(body, inputs, env, {})
            going = bool(np.asarray(self._host(results[0])).reshape(-1)[0])
            carried = results[1 : 1 + step.carried]
            for scan, result in zip(scans, results[1 + step.carried :], strict=True):
                scan.append(self._host(result))
                gathered += result.nbytes
            if gathered > limit.memory_bytes:
                raise LimitExceeded("memory_bytes", gathered, limit.memory_bytes, ", ".join(step.origin))
            iteration += 1
        final = [self._own(c) for c in carried] if iteration == 0 else list(carried)
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


def layout_key(env: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """By what a frame knows its layouts: the values of all symbols."""
    return tuple(sorted(env.items()))


def where_of(step: Launch | Call) -> str:
    """A step as errors name it."""
    return f"{step.op} at {', '.join(repr(o) for o in step.origin) or 'a step made by the compiler'}"


def _check_iterations(limit: RunLimits, trip: int | None, iteration: int, where: str) -> None:
    """Raise LimitExceeded if a loop has run for too long."""
    if trip is None or trip > 2**31:
        asked = "more, without a trip count" if trip is None else trip
        raise LimitExceeded("unbounded_iterations", asked, limit.unbounded_iterations, where)
    if iteration >= limit.loop_iterations:
        raise LimitExceeded("loop_iterations", trip, limit.loop_iterations, where)
