"""Large arrays are copied by several threads: NumPy lets go of the interpreter meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fusible.runtime.native.machine import usable_threads

__all__ = ["in_threads"]

_T = TypeVar("_T")
_R = TypeVar("_R")
_WORTH_IT = 1 << 24  # bytes, beside which the time that threads take to start is nothing


def in_threads(function: Callable[[_T], _R], items: Iterable[_T], nbytes: int) -> list[_R]:
    """What a function gives for each item, in order; by threads if `nbytes`, which all of it copies, are many.

    Raises what the function raises for the first item for which it does.
    """
    if nbytes < _WORTH_IT:
        return list(map(function, items))
    with ThreadPoolExecutor(usable_threads()) as pool:
        return list(pool.map(function, items))
