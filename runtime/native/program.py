"""The native code of an executable: a library of kernels, the pool they run on, and runs of several steps at once."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fusible.errors import DeviceError, ExecutionError
from fusible.runtime.dims import DimText, evaluate_dim
from fusible.runtime.native.library_bytes import cached_library
from fusible.runtime.native.loading import load_library
from fusible.runtime.native.machine import instruction_sets
from fusible.runtime.native.pool import Pool
from fusible.runtime.plan import Launch, Step

if TYPE_CHECKING:
    from fusible.runtime.native.compiler import Compiler
    from fusible.runtime.native.library import Progress

__all__ = [
    "NativeCode",
    "Program",
    "Segment",
    "address_of",
    "build_program",
    "open_program",
    "processor_key",
    "segments",
    "unpack_program",
]

_MOST_BUFFERS = 256  # as in runner.c
_ERRORS = {
    1: "an index that the inputs gave is out of range",
    2: "out of memory",
    3: "a branch was taken that cannot run with the sizes fixed when the model was compiled; exe.report.notes says why",
}


class NativeCode(NamedTuple):
    """C sources of translation units (file name -> text), and the functions in them that plans name."""

    sources: Mapping[str, str]
    functions: tuple[str, ...]


class _StepRecord(ctypes.Structure):
    _fields_ = (
        ("kernel", ctypes.c_void_p),
        ("first_slot", ctypes.c_int32),
        ("slots", ctypes.c_int32),
        ("first_dim", ctypes.c_int32),
    )


def build_program(
    code: NativeCode, compiler: Compiler, *, cache_dir: Path, threads: int | None, progress: Progress | None = None
) -> Program:
    """Compile the code, unless the cache has it, and load it. Raises KernelBuildError, DeviceError, UsageError."""
    from fusible.runtime.native.library import KERNEL_HEADERS, build_library  # noqa: PLC0415 - only a build needs it

    fixed = {name: (KERNEL_HEADERS / name).read_text(encoding="utf-8") for name in ("pool.c", "runner.c")}
    library = build_library({**fixed, **code.sources}, compiler, cache_dir=cache_dir, progress=progress)
    return open_program(code, library, threads=threads)


def open_program(code: NativeCode, library: Path, *, threads: int | None, checked: bool = False) -> Program:
    """Load a library that was built of the code. checked: as for `load_library`. Raises DeviceError."""
    return Program(code, library, load_library(library, checked=checked), threads)


def unpack_program(
    code: NativeCode, library: memoryview, digest: str, processor: str, *, cache_dir: Path, threads: int | None
) -> Program:
    """Load code whose library was built elsewhere, or compile it anew if that was for another processor.

    processor: what `processor_key()` gave there. digest: the library's SHA-256, under which the cache keeps it; its
    bytes are read only if the cache lacks it. Raises DeviceError (no compiler, or the system refuses),
    KernelBuildError, UsageError, ArtifactError if the bytes are damaged.
    """
    if processor != processor_key():
        from fusible.runtime.native.compiler import find_compiler  # noqa: PLC0415 - only a build needs it

        return build_program(code, find_compiler(os.environ), cache_dir=cache_dir, threads=threads)
    path, found = cached_library(library, digest, cache_dir)
    return open_program(code, path, threads=threads, checked=found)


def processor_key() -> str:
    """What a library must have been built for to run here: the machine, its instruction sets, the C library."""
    return " ".join((os.uname().machine, *platform.libc_ver(), instruction_sets()))


class Program:
    """Loaded native code. Threads may share it: its pool lets one run at a time use the workers."""

    def __init__(self, code: NativeCode, path: Path, library: ctypes.CDLL, threads: int | None) -> None:
        self.code, self.path, self.threads = code, path, threads
        self.names = frozenset(code.functions)
        self._library = library
        library.pool_create.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_int)]
        library.pool_create.restype = ctypes.c_void_p
        library.pool_destroy.argtypes = [ctypes.c_void_p]
        library.pool_destroy.restype = None
        self.run_steps = library.runner_run
        self.run_steps.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_long] + [ctypes.c_void_p] * 4
        self.run_steps.restype = ctypes.c_long
        self._pool: Pool | None = None

    @property
    def pool(self) -> Pool:
        """The pool, whose workers start when it is first wanted."""
        if self._pool is None:
            self._pool = Pool(self.threads, library=self._library)
        return self._pool

    def address(self, name: str) -> int:
        """The address of a kernel. Raises DeviceError if the library lacks it."""
        return int(ctypes.cast(self._function(name), ctypes.c_void_p).value or 0)

    def _function(self, name: str) -> Any:
        try:
            return getattr(self._library, name)
        except AttributeError as error:
            raise DeviceError(f"the native library {self.path} lacks the kernel {name}: build it again") from error

    def kernel(self, name: str) -> Callable[..., None]:
        """A kernel as a Python function of its operands and results (arrays) and its dims (ints), in this order."""
        function = self._function(name)
        function.argtypes = [ctypes.c_void_p] * 4
        function.restype = None

        def call(*arguments: Any) -> None:
            arrays = [a for a in arguments if isinstance(a, np.ndarray)]
            held = [_contiguous(a) for a in arrays]
            buffers = (ctypes.c_void_p * len(held))(*(a.ctypes.data for a in held))
            dims = (ctypes.c_int64 * (len(arguments) - len(arrays) + 1))(*arguments[len(arrays) :])
            error = ctypes.c_int(0)
            function(self.pool.handle, buffers, dims, ctypes.byref(error))
            for array, used in zip(arrays, held, strict=True):
                if used is not array and array.flags.writeable:
                    np.copyto(array, used)
            if error.value:
                raise ValueError(_ERRORS.get(error.value, f"error {error.value}"))

        return call


def _contiguous(array: np.ndarray) -> np.ndarray:
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def address_of(array: np.ndarray) -> int:
    """Where a contiguous array begins. The buffer protocol tells fastest, of memory that may be written."""
    if array.flags.writeable and array.dtype.isbuiltin == 1 and array.size:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]
    return int(array.__array_interface__["data"][0])


@dataclass(slots=True, eq=False, repr=False)
class Segment:
    """Consecutive native steps of a plan, [first, last), as records for `runner_run`."""

    first: int
    last: int
    records: ctypes.Array[_StepRecord]
    slots: ctypes.Array[ctypes.c_int32]
    dims: tuple[DimText, ...]
    read: tuple[int, ...]
    written: tuple[int, ...]
    origins: tuple[str, ...]

    def run(self, program: Program, pointers: Any, dims: Any) -> None:
        """Run the steps. Raises ExecutionError naming the step that noted an error."""
        error = ctypes.c_int(0)
        count = self.last - self.first
        done = program.run_steps(
            program.pool.handle, self.records, count, pointers, self.slots, dims, ctypes.byref(error)
        )
        if error.value:
            raise ExecutionError(self.origins[min(done, count - 1)], _ERRORS.get(error.value, f"error {error.value}"))

    def evaluated(self, env: Mapping[str, int]) -> Any:
        """The dims of all steps for some values of the symbols."""
        return (ctypes.c_int64 * (len(self.dims) + 1))(*(evaluate_dim(d, env) for d in self.dims))


def segments(program: Program, steps: Sequence[Step]) -> dict[int, Segment]:
    """The longest runs of native steps, by the position of their first step."""
    names = program.names
    found: dict[int, Segment] = {}
    position = 0
    while position < len(steps):
        last = position
        while last < len(steps) and isinstance(step := steps[last], Launch) and step.kernel in names:
            last += 1
        if last > position:
            found[position] = _segment(program, steps, position, last)
        position = max(last, position + 1)
    return found


def _segment(program: Program, steps: Sequence[Step], first: int, last: int) -> Segment:
    records = (_StepRecord * (last - first))()
    slots: list[int] = []
    dims: list[DimText] = []
    read: dict[int, None] = {}
    written: dict[int, None] = {}
    origins: list[str] = []
    for record, step in zip(records, steps[first:last], strict=True):
        assert isinstance(step, Launch)
        inputs = [n for n in step.inputs if n is not None]
        used = [*inputs, *step.outputs]
        if len(used) > _MOST_BUFFERS:
            raise DeviceError(f"the kernel {step.kernel} has {len(used)} operands, more than {_MOST_BUFFERS}")
        record.kernel, record.first_slot = program.address(step.kernel), len(slots)
        record.slots, record.first_dim = len(used), len(dims)
        slots += used
        dims += step.dims
        read.update(dict.fromkeys(inputs))
        written.update(dict.fromkeys(step.outputs))
        origins.append(f"{step.op} at {', '.join(repr(o) for o in step.origin) or 'a step made by the compiler'}")
    return Segment(
        first, last, records, (ctypes.c_int32 * len(slots))(*slots), tuple(dims), tuple(read), tuple(written),
        tuple(origins),
    )  # fmt: skip
