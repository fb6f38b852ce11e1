"""Control flow that has kernels: stopping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from fusible.errors import ExecutionError

__all__ = ["fail", "require"]


def fail(message: str, results: Sequence[object]) -> NoReturn:
    """Raise ExecutionError: the run has taken a branch that could not be compiled for the sizes given.

    results: what the branch would have given; not looked at.
    """
    raise ExecutionError("a branch that cannot run with these shapes", message)


def require(condition: np.ndarray[Any, Any], /, *, expected: bool, message: str) -> np.ndarray[Any, Any]:
    """The condition (bool, one element) if it is as expected. Raises ExecutionError with the message if not."""
    if bool(condition.reshape(())) is not expected:
        fail(message, ())
    return condition
