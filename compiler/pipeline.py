"""THE list of phases and passes for each target. Reading this file tells what the compiler does."""

from __future__ import annotations

from fusible.errors import UsageError
from fusible.passes.base import Phase
from fusible.passes.fuse_elementwise import FuseElementwise
from fusible.passes.manager import Pipeline

__all__ = ["pipeline"]


def pipeline(target: str = "auto") -> Pipeline:
    """The default pipeline of a target. Raises UsageError for an unknown target."""
    if target not in ("auto", "numpy"):
        raise UsageError(f"unknown target {target!r}; this release has auto, numpy")
    return Pipeline.of({Phase.FUSE: [FuseElementwise()]})
