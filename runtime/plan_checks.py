"""Plans out of artifacts: each field has the type and lies in the range that runs rely on.

What a kernel does with its buffers is not in a plan: it is code, which whoever loads an artifact trusts.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fusible.errors import ArtifactError, ExecutionError
from fusible.runtime.dims import MAX_LENGTH
from fusible.runtime.plan import Alloc, Buffer, Copy, If, Launch, Loop, Plan, PlanValue, Step
from fusible.runtime.requirements import RELATIONS, SizeRule
from fusible.runtime.signature import DTYPES, TensorSpec
from fusible.runtime.views import block_of

__all__ = ["check_plan"]

_KINDS = frozenset({"input", "constant", "arena", "output", "late", "returned"})
_GIVEN = frozenset({"input", "constant"})
_WORD = re.compile(r"[A-Za-z_]\w*")
_FUNCTIONS = frozenset({"floordiv", "mod", "max", "min", "bcast"})
_MOST = 1 << 62


def check_plan(
    plan: Plan,
    constants: Sequence[np.ndarray],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    kernels: Collection[str] = (),
) -> None:
    """Raise ArtifactError for a plan that no compiler makes. inputs, outputs: the signature. kernels: of a device."""
    for what, specs, numbers in (("inputs", inputs, plan.inputs), ("outputs", outputs, plan.outputs)):
        names = [spec.name for spec in specs]
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise _damaged(f"the names of its {what} are {names!r:.80}")
        if len(specs) != len(numbers):
            raise _damaged(f"it has {len(numbers)} {what}, and its signature {len(specs)}")
    _check(plan, constants, frozenset(), kernels)
    for spec, number in zip(inputs, plan.inputs, strict=True):
        value = plan.values[number]
        _require(value.kind == "input", f"the input {spec.name!r} is of kind {value.kind!r}")
        same_rank = None in (spec.shape, value.shape) or len(spec.shape or ()) == len(value.shape or ())
        if spec.kind == "tensor" and (DTYPES[value.dtype] != spec.dtype or not same_rank):
            raise _damaged(f"the input {spec.name!r} has another type or rank than its signature says")


def _damaged(why: str) -> ArtifactError:
    return ArtifactError(f"the plan is damaged: {why}; compile the model again")


def _require(holds: bool, why: str) -> None:
    if not holds:
        raise _damaged(why)


def _is_number(item: object, least: int = 0, end: int = _MOST) -> bool:
    return isinstance(item, int) and not isinstance(item, bool) and least <= item < end


def _is_dim(item: object) -> bool:
    return _is_number(item, -_MOST) or (isinstance(item, str) and 0 < len(item) <= MAX_LENGTH)


def _symbols(dims: Iterable[Any]) -> set[str]:
    return set().union(*(_words(dim) for dim in dims if isinstance(dim, str)))


@lru_cache(maxsize=4096)
def _words(dim: str) -> frozenset[str]:
    """The symbols in a dimension, which is not looked at otherwise before it is wanted."""
    return frozenset(_WORD.findall(dim)) - _FUNCTIONS


def _check(plan: Plan, constants: Sequence[np.ndarray], outer: frozenset[str], kernels: Collection[str]) -> None:
    for name, (low, high) in plan.bounds.items():
        if not _is_number(low) or (high is not None and not _is_number(high, low)):
            raise _damaged(f"the bounds of {name!r:.40} are {low!r:.40} and {high!r:.40}")
    for number, buffer in enumerate(plan.buffers):
        _check_buffer(number, buffer)
    for number, value in enumerate(plan.values):
        _check_value(number, value, plan.buffers, constants)
    # A symbol gets its value from a shape that it stands in.
    defined = outer | _symbols(dim for value in plan.values for dim in value.shape or ())
    used = _symbols(buffer.nbytes for buffer in plan.buffers)
    for step in plan.steps:
        _check_step(step, plan.values, kernels)
        used |= _symbols(getattr(step, "dims", ()))
    for value in plan.values:
        if value.whole is not None or value.corner is not None:
            used |= _symbols((*(value.whole or ()), *(value.corner or ())))
    for rule in plan.rules:
        _check_rule(rule)
        used |= _symbols((rule.left, rule.right))
    _require(used <= defined, f"nothing defines the size {min(used - defined, default='')!r:.40}")
    _check_order(plan)
    known = frozenset(defined)
    for step in plan.steps:
        if isinstance(step, If):
            for branch in (step.then, step.otherwise):
                _check_counts(branch, len(step.inputs), len(step.outputs))
                _check(branch, constants, known, kernels)
        elif isinstance(step, Loop):
            _check_counts(step.body, 2 + len(step.inputs), 1 + len(step.outputs))
            _check(step.body, constants, known, kernels)


def _check_counts(plan: Plan, inputs: int, outputs: int) -> None:
    found = len(plan.inputs), len(plan.outputs)
    _require(found == (inputs, outputs), f"a part of it has {found} inputs and outputs, expected {(inputs, outputs)}")


def _check_order(plan: Plan) -> None:
    """Nothing is read before it is there, or after it was freed."""
    there = {n for n, value in enumerate(plan.values) if value.kind in ("constant", "arena", "output")} | {*plan.inputs}
    for step in plan.steps:
        read = {n for n in _operands(step) if n is not None}
        if isinstance(step, Launch):
            read |= {*step.outputs}
        else:
            there |= {step.output} if isinstance(step, Alloc | Copy) else {*step.outputs}
        missing = read - there
        _require(
            not missing, f"value {min(missing, default=0)} is not there at {', '.join(map(repr, step.origin)):.60}"
        )
        there -= {*step.free}
    _require(there >= {*plan.outputs}, "an output is not there at the end")


def _operands(step: Step) -> tuple[int | None, ...]:
    match step:
        case Alloc():
            return ()
        case Copy():
            return (step.source,)
        case If():
            return (step.condition, *step.inputs)
        case Loop():
            return (step.trip, step.condition, *step.inputs)
    return step.inputs


def _check_rule(rule: SizeRule) -> None:
    fields: tuple[Any, ...] = rule
    known = isinstance(fields[0], str) and fields[0] in RELATIONS and isinstance(fields[3], str)
    _require(known and _is_dim(rule.left) and _is_dim(rule.right), f"what sizes must satisfy is {rule!r:.80}")


def _check_buffer(number: int, buffer: Buffer) -> None:
    last = buffer.last if _is_number(buffer.last) else -1
    if not _is_number(buffer.first, 0, last + 1):
        raise _damaged(f"buffer {number} lives from {buffer.first!r:.20} to {buffer.last!r:.20}")
    if not (_is_number(buffer.nbytes) or isinstance(buffer.nbytes, str)):
        raise _damaged(f"the size of buffer {number} is {buffer.nbytes!r:.40}")


def _check_value(number: int, value: PlanValue, buffers: Sequence[Buffer], constants: Sequence[np.ndarray]) -> None:
    what, kind = f"value {number}", value.kind
    if kind not in _KINDS or value.dtype not in DTYPES or not isinstance(value.name, str):
        raise _damaged(f"{what} is {value!r:.80}")
    for dims in (value.shape, value.whole, value.corner):
        if dims is not None and not all(map(_is_dim, dims)):
            raise _damaged(f"a size of {what} is none: {dims!r:.80}")
    if kind == "constant" and not _is_number(value.index, 0, len(constants)):
        raise _damaged(f"{what} is constant {value.index!r:.20} of {len(constants)}")
    if value.shape is None and kind in ("arena", "output", "late"):
        raise _damaged(f"{what} is stored, and has no shape")
    if value.order is not None:
        _require(
            all(map(_is_number, value.order)) and sorted(value.order) == list(range(len(value.shape or ()))),
            f"the dimensions of {what} are stored as {value.order!r:.40}",
        )
    if kind == "arena":
        if not _is_number(value.index, 0, len(buffers)):
            raise _damaged(f"{what} is in buffer {value.index!r:.20} of {len(buffers)}")
        _check_place(what, value, buffers[value.index])


def _check_place(what: str, value: PlanValue, buffer: Buffer) -> None:
    """A value that lies in its buffer, where sizes are known; where not, runs look."""
    rank = len(value.shape or ())
    _require(len(value.whole or value.shape or ()) == rank, f"what {what} is a block of has another rank")
    _require(value.corner is None or len(value.corner) == rank, f"the corner of {what} has another rank")
    dims = (*(value.shape or ()), *(value.whole or ()), *(value.corner or ()), buffer.nbytes)
    known = [dim for dim in dims if isinstance(dim, int)]
    if len(known) == len(dims):
        try:
            block = block_of(value, {})
        except ExecutionError as error:
            raise _damaged(f"{what} cannot be stored: {error}") from error
        inside = min(known) >= 0 and block.first + block.extent <= int(buffer.nbytes)
        _require(inside, f"{what} ends {block.first + block.extent} bytes into a buffer of {buffer.nbytes}")


def _check_step(step: Step, values: Sequence[PlanValue], kernels: Collection[str]) -> None:
    """The types and ranges of a step's fields."""
    kind, end = type(step), len(values)
    fields = step._asdict()
    for name, item in fields.items():
        if name in ("inputs", "outputs", "free"):
            absent = name == "inputs"
            good = isinstance(item, tuple) and all(_is_number(n, 0, end) or (absent and n is None) for n in item)
        elif name in ("output", "source", "condition", "trip"):
            good = _is_number(item, 0, end) or (item is None and kind is Loop)
        elif name in ("kernel", "op"):
            good = isinstance(item, str)
        elif name == "dims":
            good = isinstance(item, tuple) and all(map(_is_dim, item))
        elif name == "origin":
            good = isinstance(item, tuple) and all(isinstance(each, str) for each in item)
        else:
            good = name != "carried" or _is_number(item, 0, len(fields["inputs"]) + 1)
        if not good:
            raise _damaged(f"the {name} of {_shown(step)} is {item!r:.40}")
    if isinstance(step, Launch) and not (step.outputs and (step.dims or step.kernel not in kernels)):
        raise _damaged(f"{_shown(step)} has no output, or no number of programs")
    if isinstance(step, Copy) and values[step.source].dtype != values[step.output].dtype:
        raise _damaged(f"{_shown(step)} is from {values[step.source].dtype!r} to {values[step.output].dtype!r}")
    for number in (step.output,) if isinstance(step, Alloc | Copy) else step.outputs:
        if values[number].kind in _GIVEN:
            raise _damaged(f"{_shown(step)} would write over value {number}, an input or a constant")


def _shown(step: Step) -> str:
    return f"the {type(step).__name__.lower()} at {', '.join(map(repr, step.origin)):.60}"
