"""Strict placement: on a GPU nothing is computed by the host unless the options allow it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from fusible.compiler.options import Options
from fusible.errors import LoweringError
from fusible.runtime.devices.residence import is_same_memory
from fusible.runtime.plan import Call, If, Launch, Loop, Plan

__all__ = ["check_placement", "host_steps_with_data"]

_SHOWN = 20


def check_placement(
    plan: Plan, kernels: Collection[str], reasons: Mapping[str, str], target: str, options: Options
) -> None:
    """Refuse a plan in which the host would compute, where it may not.

    kernels: those that the device runs. reasons: by kernel, why others do not. Raises LoweringError that lists the
    steps.
    """
    if options.host_allowed(target):
        return
    found = [
        f"{step.op} at {', '.join(map(repr, step.origin)) or 'a step made by the compiler'}"
        + (f" ({reasons[step.kernel]})" if step.kernel in reasons else "")
        for step in host_steps_with_data(plan, kernels)
    ]
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        what = f"the host would compute {'; '.join(found[:_SHOWN])}{more}"
        remedy = "allow it with Options(allow_host=True) (--allow-host): each such step copies its operands and results"
        raise LoweringError(f"a model that runs on {target} alone", {target: f"{what}: {remedy}"})


def host_steps_with_data(plan: Plan, kernels: Collection[str]) -> Iterator[Launch | Call]:
    """The steps, of sub-plans too, that compute with data and are not the device's.

    What has no operands (an extent as a number) moves nothing, and neither does a view of the same memory.
    """
    for step in plan.steps:
        match step:
            case Launch() | Call() if step.kernel not in kernels and not is_same_memory(step):
                if any(number is not None for number in step.inputs):
                    yield step
            case If():
                yield from host_steps_with_data(step.then, kernels)
                yield from host_steps_with_data(step.otherwise, kernels)
            case Loop():
                yield from host_steps_with_data(step.body, kernels)
