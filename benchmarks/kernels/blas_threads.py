"""How many threads NumPy's BLAS uses, set within the process: baselines and kernels are timed in one."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fusible.errors import UsageError
from fusible.runtime.native.machine import usable_threads

__all__ = ["blas_threads"]

# (setter, getter) as the builds of OpenBLAS and MKL call them.
_FUNCTIONS = (
    ("scipy_openblas_set_num_threads64_", "scipy_openblas_get_num_threads64_"),
    ("scipy_openblas_set_num_threads", "scipy_openblas_get_num_threads"),
    ("openblas_set_num_threads64_", "openblas_get_num_threads64_"),
    ("openblas_set_num_threads", "openblas_get_num_threads"),
    ("MKL_Set_Num_Threads", "MKL_Get_Max_Threads"),
)
_NAMES = ("openblas", "mkl_rt", "libblas")


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Within the block NumPy's BLAS uses so many threads.

    Raises UsageError if its library offers no way to say so and the number asked for is not what it would use anyway.
    """
    libraries = _libraries()
    if not libraries:
        stated = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS")
        if str(count) != stated and count != usable_threads():
            raise UsageError(
                f"the threads of NumPy's BLAS cannot be set to {count} from within; start again with "
                f"OPENBLAS_NUM_THREADS={count}"
            )
        yield
        return
    before = [get() for _, get in libraries]
    for put, _ in libraries:
        put(count)
    try:
        yield
    finally:
        for (put, _), old in zip(libraries, before, strict=True):
            put(old)


def _libraries() -> list[tuple[ctypes._NamedFuncPointer, ctypes._NamedFuncPointer]]:
    """The setter and getter of each BLAS that is loaded."""
    np.dot(np.ones((2, 2)), np.ones((2, 2)))  # it is loaded when it is first needed
    lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    paths = {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}
    found = []
    for path in sorted(p for p in paths if any(name in Path(p).name for name in _NAMES)):
        library = ctypes.CDLL(path)
        for put, get in _FUNCTIONS:
            if hasattr(library, put) and hasattr(library, get):
                found.append((getattr(library, put), getattr(library, get)))
                break
    return found
