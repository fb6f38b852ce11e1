"""A session whose arrays all lie in the process's memory. Cheap; belongs to one thread at a time."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fusible.errors import ExecutionError, LimitExceeded, SignatureError
from fusible.kernels.aligned import aligned_bytes
from fusible.runtime.dims import evaluate_dim, symbols_of
from fusible.runtime.memory import Placement
from fusible.runtime.native.program import Segment, address_of, segments
from fusible.runtime.plan import Alloc, Call, Copy, If, Launch, Loop, Plan, PlanValue, Step
from fusible.runtime.plan_session import Frame, Layout, PlanSession, RunLimits
from fusible.runtime.signature import DTYPES
from fusible.runtime.views import arena_view, arranged, shape_of, stored

if TYPE_CHECKING:
    from fusible.runtime.executable import Executable

__all__ = ["RunLimits", "Session", "owned", "poison"]

_LARGE = 16_384  # bytes of results that begin at a cache line: stores of whole lines gain more than that costs


@dataclass(slots=True, eq=False, repr=False)
class _Layout(Layout):
    """plan: of the values. views: the arena's part of them.

    For native steps: pointers, the addresses of values, and of each segment its dims (None if a run has yet to define a
    symbol in them) and the values whose addresses change from run to run.
    """

    plan: Plan
    views: dict[int, np.ndarray] = field(default_factory=dict)
    pointers: Any = None
    segments: dict[int, tuple[Any, tuple[tuple[int, PlanValue], ...]]] = field(default_factory=dict)


@dataclass(slots=True, eq=False, repr=False)
class _Frame(Frame[_Layout]):
    """arena: the memory of one plan."""

    arena: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))
    segments: dict[int, Segment] | None = None


class Session(PlanSession[_Frame, _Layout, Segment]):
    """Runs one executable again and again over buffers of its own."""

    def __init__(self, executable: Executable) -> None:
        super().__init__(executable, _Frame(executable.plan))
        launches = [step for step in executable.plan.steps if not isinstance(step, Copy | Alloc)]
        self._native = all(isinstance(s, Launch) and executable.is_native(s.kernel) for s in launches)

    def _run_main(self, arguments: list[Any]) -> list[Any]:
        plan = self._executable.plan
        owned = {
            plan.outputs[i]: self._bound_outputs[spec.name]
            for i, spec in enumerate(self._executable.outputs)
            if spec.name in self._bound_outputs
        }
        try:
            if self._native:
                return self._execute(self._frame, arguments, {}, owned, self._names)
            with np.errstate(all="ignore"):
                return self._execute(self._frame, arguments, {}, owned, self._names)
        except MemoryError as error:
            raise ExecutionError("a run", f"out of memory: {error}") from error

    def _segments(self, frame: _Frame) -> Mapping[int, Segment]:
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
        if dims is None:
            dims = segment.evaluated(env)
        pointers = layout.pointers
        held: list[np.ndarray] = []  # copies that must live until the call is over
        copied: list[tuple[np.ndarray, np.ndarray]] = []
        for number, value in moving:
            array = values[number]
            if value.order is not None:
                array = array.transpose(value.order)
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
        moving = tuple((number, layout.plan.values[number]) for number in used if layout.values[number] is None)
        stable = all(symbols_of(dim) <= layout.symbols for dim in segment.dims)
        layout.segments[segment.first] = segment.evaluated(env) if stable else None, moving

    def _make_layout(self, frame: _Frame, env: dict[str, int], placement: Placement) -> _Layout:
        if placement.peak > frame.arena.nbytes:
            frame.layouts.clear()
            frame.arena = aligned_bytes(placement.peak)
        views: dict[int, np.ndarray] = {}
        for number, value in enumerate(frame.plan.values):
            if value.kind == "arena":
                views[number] = arena_view(frame.arena, placement.offsets[value.index], value, env)
        values: list[Any] = [None] * len(frame.plan.values)
        for number, array in (*views.items(), *self._executable.constants_of(frame.plan)):
            values[number] = array
        outputs = [(n, shape_of(v, env)) for n, v in enumerate(frame.plan.values) if v.kind == "output"]
        return _Layout(values, outputs, frozenset(env), frame.plan, views)

    def _poison_layout(self, layout: _Layout) -> None:
        poison(layout.views.values())

    def _output(self, frame: _Frame, number: int, shape: tuple[int, ...], bound: np.ndarray | None) -> np.ndarray:
        if bound is not None and bound.shape == shape and bound.flags.c_contiguous:
            return bound
        return self._new(frame.plan.values[number], shape)

    def _new(self, value: PlanValue, shape: tuple[int, ...]) -> np.ndarray:
        dtype = DTYPES[value.dtype]
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes > self._executable.limits.tensor_bytes:
            raise LimitExceeded("tensor_bytes", nbytes, self._executable.limits.tensor_bytes, value.name)
        if nbytes < _LARGE or dtype.hasobject:
            flat = np.empty(math.prod(shape), dtype)
        else:
            flat = aligned_bytes(nbytes).view(dtype)
        fresh = arranged(flat, shape, value.order)
        if self._poison:
            poison([fresh])
        return fresh

    @staticmethod
    def _hand_over(result: Any, bound: np.ndarray | None, value: PlanValue) -> Any:
        if bound is None or result is bound:
            return result
        if bound.shape != np.shape(result):
            raise SignatureError(value.name, f"shape {np.shape(result)}", f"shape {bound.shape}", "output")
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
                    values[step.output] = owned(source)
                else:
                    np.copyto(target, source)
            case If():
                self._if(frame, position, step, values, env)
            case Loop():
                self._loop(frame, position, step, values, env)

    def _host(self, value: Any) -> Any:
        return value

    def _own(self, value: Any) -> Any:
        return owned(value)


def owned(value: Any) -> Any:
    """A copy of an array or list that shares no memory with it."""
    if isinstance(value, list):
        return [owned(element) for element in value]
    return np.array(value, copy=True) if isinstance(value, np.ndarray) else value


def poison(arrays: Iterable[np.ndarray]) -> None:
    """Fill buffers with NaN (or a conspicuous number), so that reads of unwritten memory show."""
    for array in arrays:
        if array.dtype.kind in "fc" or array.dtype.name == "bfloat16":
            array.fill(np.nan)
        elif array.dtype.kind in "iu":
            array.fill(np.iinfo(array.dtype).max // 3)
