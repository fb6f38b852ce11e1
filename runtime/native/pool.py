"""The thread pool of kernels/cpu/pool.h for Python: made, handed to native code, stopped."""

from __future__ import annotations

import ctypes
import errno
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from fusible.errors import DeviceError, UsageError
from fusible.runtime.native.loading import load_library
from fusible.runtime.native.machine import usable_threads

if TYPE_CHECKING:
    from fusible.runtime.native.compiler import Compiler

__all__ = ["MAX_THREADS", "Pool", "load_pool_library"]

MAX_THREADS = 1024


def load_pool_library(compiler: Compiler, *, cache_dir: Path) -> ctypes.CDLL:
    """Build, if need be, and load the library that holds the pool. Raises as `build_library` and `load_library` do."""
    from fusible.runtime.native.library import KERNEL_HEADERS, build_library  # noqa: PLC0415 - only a build needs it

    source = (KERNEL_HEADERS / "pool.c").read_text(encoding="utf-8")
    library = load_library(build_library({"pool.c": source}, compiler, cache_dir=cache_dir))
    library.pool_create.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_int)]
    library.pool_create.restype = ctypes.c_void_p
    library.pool_destroy.argtypes = [ctypes.c_void_p]
    library.pool_destroy.restype = None
    return library


class Pool:
    """A pool of threads that native code runs on; a context manager, whose end stops the workers.

    May be shared: a run that finds the pool busy is done by its own thread alone. Usable in a forked child, which
    starts workers of its own.
    """

    def __init__(
        self, threads: int | None = None, *, library: ctypes.CDLL, processors: Sequence[int] | None = None
    ) -> None:
        """Start the workers.

        threads: how many work on a run, the calling thread included; by default `usable_threads()`. library: of
        `load_pool_library`. processors: one for each worker (threads - 1) to be pinned to; by default the system
        places them. Raises UsageError for numbers that make no sense, DeviceError if the system refuses.
        """
        count = usable_threads() if threads is None else threads
        if not 1 <= count <= MAX_THREADS:
            raise UsageError(f"a pool has 1 to {MAX_THREADS} threads, not {count}")
        if processors is not None and len(processors) != count - 1:
            raise UsageError(f"{count} threads have {count - 1} workers to pin, not {len(processors)}")
        pinned = None if processors is None else (ctypes.c_int * len(processors))(*processors)
        handle = library.pool_create(count, pinned)
        if handle is None:
            raise _refused(count, processors, ctypes.get_errno())
        self._threads, self._handle = count, handle
        self._stop = weakref.finalize(self, library.pool_destroy, handle)
        self._stop.atexit = False  # at exit a thread may still be running on it, and the workers end with the process

    @property
    def threads(self) -> int:
        """How many threads work on a run."""
        return self._threads

    @property
    def handle(self) -> int:
        """The address of the `struct pool`, for native code. Raises UsageError once the pool is closed."""
        if not self._stop.alive:
            raise UsageError("the thread pool is closed")
        return int(self._handle)

    def close(self) -> None:
        """Stop the workers; no run may be going on. Closing twice is once."""
        self._stop()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _refused(threads: int, processors: Sequence[int] | None, code: int) -> DeviceError:
    if code == errno.EINVAL and processors is not None:
        return DeviceError(f"workers cannot be pinned to {list(processors)}: this process may not use them all")
    return DeviceError(f"a pool of {threads} threads cannot be started: {os.strerror(code)}; ask for fewer threads")
