"""Control flow that has a kernel: stopping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from fusible.errors import ExecutionError

__all__ = ["fail"]


def fail(message: str, results: Sequence[object]) -> NoReturn:
    """Raise ExecutionError: the run has taken a branch that could not be compiled for the sizes given.

    results: what the branch would have given; not looked at.
    """
    raise ExecutionError("a branch that cannot run with these shapes", message)
