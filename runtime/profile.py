"""Timing the steps of a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from fusible.errors import UsageError
from fusible.runtime.plan import Step

__all__ = ["Observer", "profile_steps"]

Observer: TypeAlias = Callable[[Step, float], None]
"""What is told of each step how many seconds it took."""


def profile_steps(
    run: Callable[[Mapping[str, Any], Observer], None], inputs: Mapping[str, Any], repeat: int
) -> list[dict[str, Any]]:
    """Rows per step of the least time over `repeat` runs, in the order of the plan. Raises UsageError for no runs."""
    if repeat < 1:
        raise UsageError(f"repeat must be at least 1, got {repeat}")
    best: dict[int, dict[str, Any]] = {}
    for _ in range(repeat):
        seen: dict[int, dict[str, Any]] = {}

        def observe(step: Step, seconds: float, seen: dict[int, dict[str, Any]] = seen) -> None:
            row = seen.setdefault(id(step), _row(step))
            row["seconds"] += seconds
            row["calls"] += 1

        run(inputs, observe)
        for key, row in seen.items():
            if key not in best or row["seconds"] < best[key]["seconds"]:
                best[key] = row
    return list(best.values())


def _row(step: Step) -> dict[str, Any]:
    kernel = getattr(step, "kernel", type(step).__name__.lower())
    op = getattr(step, "op", type(step).__name__.lower())
    return {"kernel": kernel, "op": op, "origin": list(step.origin), "seconds": 0.0, "calls": 0}
