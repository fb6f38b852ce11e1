"""The memory that kernels ask for whose programs work together."""

from __future__ import annotations

import numpy as np

from fusible.compiler.backends.triton.launch import WORKSPACE, LaunchRule
from tests.tolerance import poisoned

__all__ = ["workspace_of"]

_TYPES = {"*fp32": np.dtype(np.float32), "*i32": np.dtype(np.int32)}


def workspace_of(rule: LaunchRule, programs: int) -> dict[str, np.ndarray]:
    """Arrays for the pointers that a kernel has beside those of buffers, by their names; none if it has none."""
    if not rule.workspace:
        return {}
    memory, counters = WORKSPACE
    programs -= rule.alone
    dtype = next(_TYPES[a.type] for a in rule.arguments if a.name == memory)
    partials = poisoned((rule.workspace * programs // dtype.itemsize,), dtype)
    return {memory: partials, counters: np.zeros(programs, np.int32)}
