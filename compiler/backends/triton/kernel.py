"""A lowered kernel, built and loaded: it takes a grid and NumPy arrays, and runs on the CPU."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fusible.compiler.backends.triton.elements import DTYPES
from fusible.compiler.backends.triton.lower import LoweredKernel, Parameter
from fusible.compiler.backends.triton.ttir import Pointer
from fusible.errors import SignatureError, UsageError
from fusible.runtime.devices.code import DeviceKernel
from fusible.runtime.devices.device import Span
from fusible.runtime.devices.triton_cpu import CpuLaunch, Scratch, flags_of
from fusible.runtime.native.cache import default_cache_dir
from fusible.runtime.native.compiler import Compiler, find_compiler
from fusible.runtime.native.library import build_library
from fusible.runtime.native.loading import load_library
from fusible.runtime.native.pool import Pool

__all__ = ["TILE_HEADER", "Argument", "CpuKernel", "build_kernel"]

Argument = np.ndarray | np.generic | float | int
"""What a kernel takes: an array for a pointer, a number for a scalar."""

TILE_HEADER = Path(__file__).with_name("tile.h")
"""What the C of every lowered kernel includes."""

_MAX_PROGRAMS = 2**31 - 2


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
    library = build_library(sources, compiler, cache_dir=folder, flags=flags_of(lowered.checked))
    return CpuKernel(lowered, load_library(library))


class CpuKernel:
    """A kernel that runs on the CPU. It keeps no state: threads may share it."""

    def __init__(self, lowered: LoweredKernel, library: ctypes.CDLL) -> None:
        """Take a kernel and the library built of it."""
        self.lowered = lowered
        self._run = library[lowered.symbol]
        self._run.argtypes = [ctypes.c_void_p]
        self._run.restype = None
        arguments = tuple((each.name, "") for each in lowered.parameters)
        self._kernel = DeviceKernel(
            lowered.name,
            lowered.symbol,
            "",
            arguments,
            scratch_bytes=lowered.scratch_bytes,
            sites=lowered.site_texts,
        )

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
        values = [_held(*each) for each in zip(self.lowered.parameters, arguments, strict=True)]
        spans = [_span(value) if isinstance(value, np.ndarray) else None for value in arguments]
        CpuLaunch(
            self._run,
            self._kernel,
            extents,
            values,
            spans,
            where=f"Triton kernel {name!r}",
            checked=self.lowered.checked,
            scratch=Scratch(),
            pool=pool,
            shared_writes=shared_writes,
        ).launch()


def _extents(grid: Sequence[int], name: str) -> tuple[int, int, int]:
    x, y, z = (*(int(each) for each in grid), 1, 1, 1)[:3]
    extents = (x, y, z)
    if not 1 <= len(grid) <= 3 or min(extents) < 0 or x * y * z > _MAX_PROGRAMS:
        raise UsageError(
            f"a grid has 1 to 3 extents and at most {_MAX_PROGRAMS} programs: {name!r} was given {tuple(grid)}"
        )
    return extents


def _span(array: np.ndarray) -> Span:
    low, high = np.lib.array_utils.byte_bounds(array) if array.size else (array.ctypes.data,) * 2
    return Span(low, high - low, array.dtype.itemsize)


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
