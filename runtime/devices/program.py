"""Device code opened on a device: kernels that can be launched, and the constants that all sessions share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fusible.errors import DeviceError, ExecutionError
from fusible.runtime.devices.array import DeviceArray, row_major
from fusible.runtime.devices.code import DeviceCode
from fusible.runtime.devices.device import Device, LoadedKernel, Prepared, Span, Stream
from fusible.runtime.devices.triton_cpu import TritonCpu, build_host_library
from fusible.runtime.native.compiler import find_compiler
from fusible.runtime.native.loading import load_library

__all__ = ["DeviceProgram", "open_device_program"]

_RANGES = {f"{sign}{bits}": bits for bits in (8, 16, 32, 64) for sign in "iu"}


class DeviceProgram:
    """The kernels of one executable on one device. Threads may share it; each works with a stream of its own.

    library: the file of the kernels lowered to C, on the target triton-cpu.
    """

    def __init__(
        self, code: DeviceCode, device: Device, kernels: Mapping[str, LoadedKernel], library: Path | None = None
    ) -> None:
        """Take kernels that were loaded on the device, by the names that plans call them."""
        self.code, self.device, self.library = code, device, library
        self._kernels = dict(kernels)
        self._constants: dict[int, DeviceArray] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> frozenset[str]:
        """The kernels that run on the device."""
        return frozenset(self._kernels)

    def constant(self, index: int, array: np.ndarray, stream: Stream) -> DeviceArray:
        """Constant `index` of the executable on the device; it is brought there once, when it is first wanted."""
        with self._lock:
            found = self._constants.get(index)
            if found is None:
                whole = np.ascontiguousarray(array)
                memory = self.device.constant(whole, stream)
                found = self._constants[index] = row_major(self.device, memory, array.dtype, array.shape)
            return found

    def prepare(
        self, stream: Stream, name: str, programs: int, spans: Sequence[Span], numbers: Sequence[int], where: str
    ) -> Prepared:
        """Settle a launch. Raises ExecutionError for arguments that do not fit; `where` names the step there."""
        loaded = self._kernels[name]
        arguments = loaded.kernel.arguments
        if len(arguments) != len(spans) + len(numbers):
            listed = ", ".join(f"{n}: {t}" for n, t in arguments)
            got = f"{len(spans)} buffers and {len(numbers)} numbers"
            raise ExecutionError(where, f"the kernel {name} takes ({listed}), and the plan gives {got}")
        for (argument, type_), number in zip(arguments[len(spans) :], numbers, strict=True):
            bits = _RANGES.get(type_, 64)
            low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if type_.startswith("i") else (0, (1 << bits) - 1)
            if not low <= number <= high:
                why = f"{argument} is {number}, which its type {type_} cannot hold: these shapes are too large for it"
                raise ExecutionError(where, f"kernel {name}: {why}")
        return stream.prepare(loaded, programs, spans, numbers, where)


def open_device_program(
    code: DeviceCode,
    target: str,
    *,
    threads: int | None = None,
    cache_dir: Path,
    progress: Callable[[int, int, str], None] | None = None,
) -> DeviceProgram:
    """Open device code on the device that a target names.

    target: `triton-cpu` (the kernels lowered to C are compiled unless the cache has them). threads: that run them.

    Raises DeviceError if the machine has no such device or the code was built for others, KernelBuildError, UsageError.
    """
    if target == TritonCpu.target:
        return _open_cpu(code, threads, cache_dir, progress)
    raise DeviceError(f"the target {target!r} has no device here")


def _open_cpu(
    code: DeviceCode, threads: int | None, cache_dir: Path, progress: Callable[[int, int, str], None] | None
) -> DeviceProgram:
    if code.host is None:
        raise DeviceError("the kernels were not lowered to C: compile the model for the target triton-cpu")
    library = build_host_library(code, find_compiler(os.environ), cache_dir=cache_dir, progress=progress)
    device = TritonCpu(load_library(library), threads=threads, checked=code.checked)
    return DeviceProgram(code, device, {k.name: device.load(k) for k in code.kernels}, library)
