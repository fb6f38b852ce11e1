"""Where each value of a plan lives: on the device if a kernel there reads or writes it, else with the host."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fusible.runtime.plan import Call, Launch, Plan, Step

__all__ = ["SAME_MEMORY", "Residence", "is_same_memory", "residence"]

SAME_MEMORY = frozenset({"reshape", "squeeze", "unsqueeze", "flatten", "identity"})
"""View operators whose result is the operand's row-major memory under another shape."""


@dataclass(frozen=True, slots=True)
class Residence:
    """on_device: the numbers of the arena, output and late values that live there. constants: those that kernels there
    read. host_arena: whether any buffer is the host's.
    """

    on_device: frozenset[int]
    constants: frozenset[int]
    host_arena: bool


def is_same_memory(step: Step) -> bool:
    """True for a call whose result is its first operand under another shape."""
    return isinstance(step, Call) and step.view and step.op in SAME_MEMORY and len(step.outputs) == 1


def residence(plan: Plan, kernels: Collection[str]) -> Residence:
    """Where the values of a plan (not of its sub-plans) live. kernels: those that run on the device.

    Values that share a buffer live in one place: on the device if one of them must.
    """
    touched = {n for step in plan.steps if isinstance(step, Launch) and step.kernel in kernels for n in _used(step)}
    for step in reversed(plan.steps):  # what a view on the device looks at is there too
        if is_same_memory(step) and isinstance(step, Call) and step.outputs[0] in touched:
            touched.update(n for n in step.inputs[:1] if n is not None)
    buffers = {plan.values[n].index for n in touched if plan.values[n].kind == "arena"}
    found = {
        n
        for n, value in enumerate(plan.values)
        if (value.index in buffers if value.kind == "arena" else value.kind in ("output", "late") and n in touched)
    }
    rest = any(value.kind == "arena" and n not in found for n, value in enumerate(plan.values))
    constants = frozenset(n for n in touched if plan.values[n].kind == "constant")
    return Residence(frozenset(found), constants, rest)


def _used(step: Launch) -> list[int]:
    return [*(n for n in step.inputs if n is not None), *step.outputs]
