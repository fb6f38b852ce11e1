"""The plan: what an executable does, as plain readable data (JSON), the same for every target.

A plan has numbered values and a list of steps over them:

- `Launch`: a kernel writes into buffers that exist; `dims` are integers it gets besides.
- `Call`: a host function returns its results (views, dynamic sizes, sequences, strings).
- `Alloc`: a buffer whose size is known only now. `Copy`: into a buffer that the caller will own.
- `If`, `Loop`: own sub-plans; captured values are passed as inputs.

Every step lists the values that are free after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from fusible.errors import ArtifactError
from fusible.runtime.dims import DimText
from fusible.runtime.requirements import SizeRule

__all__ = ["Alloc", "Buffer", "Call", "Copy", "If", "Launch", "Loop", "Plan", "PlanValue", "Step"]


class PlanValue(NamedTuple):
    """One value. A named tuple, as all that plans consist of: plans have hundreds, and frozen dataclasses are made in
    four times the time, their classes in six times (1 ms each in a process that starts).

    kind: input | constant | arena | output | late (allocated by a step) | returned (by a Call or sub-plan).
    dtype: name of the element type, "" for sequences and optionals. shape: None if the rank is unknown. index: which
    constant or buffer, -1 for none. order: of an arena or late value whose dimensions are not stored row-major: which
    dimension stands at each place, outermost first. whole, corner: of an arena value that is a block of something
    larger: the shape of what its buffer holds, and the index of the block's first element there.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[DimText, ...] | None
    index: int = -1  # type: ignore[assignment]  # hides a method of tuples
    order: tuple[int, ...] | None = None
    whole: tuple[DimText, ...] | None = None
    corner: tuple[DimText, ...] | None = None


class Buffer(NamedTuple):
    """A range of the arena: its size in bytes and the steps (first, last) between which it must keep its content."""

    nbytes: DimText
    first: int
    last: int


class Launch(NamedTuple):
    """kernel(*inputs, *outputs, *dims): writes every output."""

    kernel: str
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    dims: tuple[DimText, ...] = ()
    origin: tuple[str, ...] = ()
    op: str = ""
    free: tuple[int, ...] = ()


class Call(NamedTuple):
    """outputs = kernel(*inputs, *dims). view: the result may share memory with input 0."""

    kernel: str
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    dims: tuple[DimText, ...] = ()
    origin: tuple[str, ...] = ()
    op: str = ""
    view: bool = False
    free: tuple[int, ...] = ()


class Alloc(NamedTuple):
    """Allocate value `output` from its shape, now that its symbols are known."""

    output: int
    origin: tuple[str, ...] = ()
    free: tuple[int, ...] = ()


class Copy(NamedTuple):
    """Copy a value so that the caller owns the result."""

    source: int
    output: int
    origin: tuple[str, ...] = ()
    free: tuple[int, ...] = ()


class If(NamedTuple):
    """Run one of two sub-plans on the inputs after the condition."""

    condition: int
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    then: Plan
    otherwise: Plan
    origin: tuple[str, ...] = ()
    free: tuple[int, ...] = ()


class Loop(NamedTuple):
    """Repeat the body: it takes (iteration, condition, *carried, *captures), gives (condition, *carried, *scans)."""

    trip: int | None
    condition: int | None
    inputs: tuple[int | None, ...]
    carried: int
    outputs: tuple[int, ...]
    body: Plan
    origin: tuple[str, ...] = ()
    free: tuple[int, ...] = ()


Step: TypeAlias = "Launch | Call | Alloc | Copy | If | Loop"


class Plan(NamedTuple):
    """Values, arena buffers and steps of one graph. `inputs` and `outputs` are value numbers.

    bounds: by symbol, where they say more than that it is not negative. rules: what sizes must satisfy, checked as soon
    as the symbols they name have values.
    """

    values: tuple[PlanValue, ...]
    buffers: tuple[Buffer, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[Step, ...]
    bounds: Mapping[str, tuple[int, int | None]]
    rules: tuple[SizeRule, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`: each value, buffer and step a row of its fields (names take long to read)."""
        return {
            "values": [_value_row(v) for v in self.values],
            "buffers": [[b.nbytes, b.first, b.last] for b in self.buffers],
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "bounds": {name: list(b) for name, b in self.bounds.items()},
            "rules": [list(rule) for rule in self.rules],
            "steps": [_step_row(s) for s in self.steps],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Plan:
        """The inverse of `to_json`. Raises ArtifactError for data that no plan has."""
        try:
            return _plan_from(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(f"the plan is damaged: {error!r}") from error


def _value_row(value: PlanValue) -> list[Any]:
    """The fields of a value in their order, without the last three where all are None, as nearly always."""
    return list(value[:_MOST_FIELDS] if value[_MOST_FIELDS:] == (None,) * 3 else value)


def _value_from(row: Sequence[Any]) -> PlanValue:
    name, kind, dtype, shape, index, *places = row
    if shape is not None and not places:  # nearly all are
        return PlanValue(name, kind, dtype, tuple(shape), index)
    return PlanValue(name, kind, dtype, None if shape is None else tuple(shape), index, *[_tuple(p) for p in places])


def _step_row(step: Step) -> list[Any]:
    """The kind of a step, then its fields in their order."""
    return [type(step).__name__.lower(), *(v.to_json() if isinstance(v, Plan) else v for v in step)]


_MOST_FIELDS = 5  # of a value that is stored row-major and is no block of another one
_STEPS: dict[str, type] = {c.__name__.lower(): c for c in (Launch, Call, Alloc, Copy, If, Loop)}


def _plan_from(data: Mapping[str, Any]) -> Plan:
    plan = Plan(
        tuple([_value_from(v) for v in data["values"]]),
        tuple([Buffer(*b) for b in data["buffers"]]),
        tuple(data["inputs"]),
        tuple(data["outputs"]),
        tuple([_step_from(s) for s in data["steps"]]),
        {name: (int(low), high) for name, (low, high) in data["bounds"].items()},
        tuple([SizeRule(*rule) for rule in data["rules"]]),
    )
    _check_numbers(plan)
    return plan


def _tuple(item: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if item is None else tuple(item)


def _step_from(row: Sequence[Any]) -> Step:
    kind, *fields = row
    if kind == "launch":  # nearly all are
        kernel, inputs, outputs, dims, origin, op, free = fields
        return Launch(kernel, tuple(inputs), tuple(outputs), tuple(dims), tuple(origin), op, tuple(free))
    made = [tuple(f) if isinstance(f, list) else _plan_from(f) if isinstance(f, dict) else f for f in fields]
    return _STEPS[kind](*made)  # type: ignore[no-any-return]


def _check_numbers(plan: Plan) -> None:
    count = len(plan.values)
    named: set[int | None] = {*plan.inputs, *plan.outputs}
    for step in plan.steps:
        if isinstance(step, Launch):
            named.update(step.inputs, step.outputs, step.free)
        else:
            named.update(_numbers(step))
    named.discard(None)
    for number in named:
        assert number is not None
        if not 0 <= number < count:
            raise ArtifactError(f"the plan names value {number} of {count}")


def _numbers(step: Step) -> list[int]:
    found: list[int | None] = list(step.free)
    for name in ("inputs", "outputs"):
        found.extend(getattr(step, name, ()))
    for name in ("output", "source", "condition", "trip"):
        found.append(getattr(step, name, None))
    return [n for n in found if n is not None]
