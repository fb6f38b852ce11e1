"""A lowered kernel, built and loaded: it takes a grid and NumPy arrays, and runs on the CPU."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fusible.compiler.backends.triton.elements import DTYPES
from fusible.compiler.backends.triton.findings import FIELDS, describe_findings
from fusible.compiler.backends.triton.lower import LoweredKernel, Parameter
from fusible.compiler.backends.triton.ttir import Pointer
from fusible.errors import ExecutionError, SignatureError, UsageError
from fusible.runtime.native.cache import default_cache_dir
from fusible.runtime.native.compiler import Compiler, find_compiler
from fusible.runtime.native.library import build_library
from fusible.runtime.native.loading import load_library
from fusible.runtime.native.pool import Pool

__all__ = ["TILE_HEADER", "Argument", "CpuKernel", "build_kernel"]

Argument = np.ndarray | np.generic | float | int
"""What a kernel takes: an array for a pointer, a number for a scalar."""

TILE_HEADER = Path(__file__).with_name("tile.h")
_FLAGS = ("-fwrapv", "-fno-strict-aliasing")  # TTIR's integers wrap; pointers may be cast
_CHECKED_FLAGS = ("-O1",)  # every access is a call anyway, and a quarter of the time to compile matters more
_FINDINGS = 256
_LINE_BYTES, _PAGE_BYTES = 64, 4096
_MAX_PROGRAMS = 2**31 - 2


class _Buffer(ctypes.Structure):
    """`struct buffer` of tile.h."""

    _fields_ = (
        ("base", ctypes.c_int64),
        ("bytes", ctypes.c_int64),
        ("element_bytes", ctypes.c_int64),
        ("writers", ctypes.c_void_p),
    )


class _Launch(ctypes.Structure):
    """`struct launch` of tile.h."""

    _fields_ = (
        ("arguments", ctypes.c_void_p),
        ("buffers", ctypes.c_void_p),
        ("buffer_count", ctypes.c_int64),
        ("findings", ctypes.c_void_p),
        ("capacity", ctypes.c_int64),
        ("grid", ctypes.c_int64 * 3),
        ("scratch", ctypes.c_void_p),
        ("scratch_bytes", ctypes.c_int64),
        ("pool", ctypes.c_void_p),
    )


def build_kernel(
    lowered: LoweredKernel, *, environment: Mapping[str, str] | None = None, cache_dir: Path | None = None
) -> CpuKernel:
    """Compile a lowered kernel, unless the cache has it, and load it.

    environment: where CC, PATH and the cache are looked up; by default the process's. Raises DeviceError if there is no
    C compiler, KernelBuildError if it refuses the source.
    """
    known = os.environ if environment is None else environment
    compiler: Compiler = find_compiler(known)
    sources = {"kernel.c": lowered.source, "tile.h": TILE_HEADER.read_text(encoding="utf-8")}
    folder = default_cache_dir(known) if cache_dir is None else cache_dir
    flags = _FLAGS + _CHECKED_FLAGS if lowered.checked else _FLAGS
    return CpuKernel(lowered, load_library(build_library(sources, compiler, cache_dir=folder, flags=flags)))


class CpuKernel:
    """A kernel that runs on the CPU. It keeps no state: threads may share it."""

    def __init__(self, lowered: LoweredKernel, library: ctypes.CDLL) -> None:
        """Take a kernel and the library built of it."""
        self.lowered = lowered
        self._run = library[lowered.symbol]
        self._run.argtypes = [ctypes.c_void_p]
        self._run.restype = None

    def __call__(
        self, grid: Sequence[int], *arguments: Argument, pool: Pool | None = None, shared_writes: bool = False
    ) -> None:
        """Run all programs of a grid of 1 to 3 extents.

        arguments: in the order of the kernel's parameters without its constants; arrays of the pointers' element type
        (bf16 and fp8 as ml_dtypes has them; unsigned arrays where the kernel has integers), read and written in place.
        pool: the threads that run programs; by default the calling one. In checking mode an access outside an array and
        an element that two programs store are errors after the run; shared_writes: the second is meant (programs take
        turns by a lock). Atomic updates may always be shared.

        Raises SignatureError and UsageError for arguments and grids that do not fit, ExecutionError for what checking
        mode found: up to then nothing was read or written out of range.
        """
        name, extents = self.lowered.name, _extents(grid, self.lowered.name)
        if len(arguments) != len(self.lowered.parameters):
            listed = ", ".join(each.name for each in self.lowered.parameters)
            raise UsageError(f"Triton kernel {name!r} takes ({listed}), and was given {len(arguments)} arguments")
        values = np.array([_held(*each) for each in zip(self.lowered.parameters, arguments, strict=True)], np.int64)
        buffers, writers = _buffers(self.lowered, arguments, shared_writes)
        findings = np.zeros(1 + _FINDINGS * FIELDS, np.int64)
        threads = 1 if pool is None else pool.threads
        stride = -(-(self.lowered.scratch_bytes + _LINE_BYTES) // _PAGE_BYTES) * _PAGE_BYTES + _LINE_BYTES
        scratch = np.empty(stride * threads + _LINE_BYTES, np.uint8)
        launch = _Launch(
            arguments=values.ctypes.data,
            buffers=ctypes.addressof(buffers),
            buffer_count=len(arguments),
            findings=findings.ctypes.data,
            capacity=_FINDINGS,
            grid=extents,
            scratch=-(-scratch.ctypes.data // _LINE_BYTES) * _LINE_BYTES,
            scratch_bytes=stride,
            pool=None if pool is None else pool.handle,
        )
        self._run(ctypes.byref(launch))
        del writers
        if findings[0]:
            raise ExecutionError(
                f"Triton kernel {name!r}", describe_findings(self.lowered, findings, extents, arguments)
            )


def _extents(grid: Sequence[int], name: str) -> tuple[int, int, int]:
    x, y, z = (*(int(each) for each in grid), 1, 1, 1)[:3]
    extents = (x, y, z)
    if not 1 <= len(grid) <= 3 or min(extents) < 0 or x * y * z > _MAX_PROGRAMS:
        raise UsageError(
            f"a grid has 1 to 3 extents and at most {_MAX_PROGRAMS} programs: {name!r} was given {tuple(grid)}"
        )
    return extents


def _held(parameter: Parameter, value: Argument) -> int:
    """An argument as the 64 bits that the launch hands over."""
    if isinstance(parameter.type, Pointer):
        return int(_array(parameter, value).ctypes.data)
    if isinstance(value, np.ndarray) and value.ndim:
        raise SignatureError(parameter.name, f"a number of type {parameter.type.value}", f"an array {value.shape}")
    dtype = DTYPES[parameter.type]
    if parameter.type.is_float:
        return int(np.array(value, np.float64).astype(dtype).view(f"u{dtype.itemsize}"))
    number, bits = int(value), parameter.type.bits
    if number != value or not -(2 ** (bits - 1)) <= number < 2**bits:
        raise SignatureError(parameter.name, f"a number of type {parameter.type.value}", repr(value))
    return (number + 2**63) % 2**64 - 2**63


def _array(parameter: Parameter, value: Argument) -> np.ndarray:
    assert isinstance(parameter.type, Pointer)
    pointee = parameter.type.pointee
    expected = np.dtype(np.int64) if isinstance(pointee, Pointer) else DTYPES[pointee]
    if not isinstance(value, np.ndarray):
        raise SignatureError(parameter.name, f"an array of {expected.name}", f"a {type(value).__name__}")
    same_bytes = value.dtype.kind in "iub" and expected.kind in "iub" and value.dtype.itemsize == expected.itemsize
    if value.dtype != expected and not same_bytes:
        raise SignatureError(parameter.name, f"an array of {expected.name}", f"one of {value.dtype.name}")
    return value


def _buffers(
    lowered: LoweredKernel, arguments: Sequence[Argument], shared_writes: bool
) -> tuple[ctypes.Array[_Buffer], list[np.ndarray]]:
    """The bounds of every array, in checking mode with a program number for each element."""
    buffers = (_Buffer * max(1, len(arguments)))()
    writers = []
    for buffer, value in zip(buffers, arguments, strict=False):
        if not isinstance(value, np.ndarray) or not lowered.checked:
            continue
        low, high = np.lib.array_utils.byte_bounds(value) if value.size else (value.ctypes.data,) * 2
        buffer.base, buffer.bytes, buffer.element_bytes = low, high - low, value.dtype.itemsize
        if not shared_writes:
            writers.append(np.zeros((high - low) // value.dtype.itemsize, np.int32))
            buffer.writers = writers[-1].ctypes.data
    return buffers, writers
