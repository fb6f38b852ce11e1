"""Device code opened on a device: kernels that can be launched, and the constants that all sessions share."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np

from fusible.errors import DeviceError, ExecutionError
from fusible.runtime.devices.architectures import OLDEST, chosen_image, cuda_target
from fusible.runtime.devices.array import DeviceArray, row_major
from fusible.runtime.devices.code import DeviceCode, DeviceImage, DeviceKernel
from fusible.runtime.devices.convolution import TorchCall
from fusible.runtime.devices.device import Device, LoadedKernel, Memory, Prepared, Span, Stream
from fusible.runtime.devices.torch_checks import check_reach
from fusible.runtime.devices.torch_product import InOrder
from fusible.runtime.devices.triton_cpu import TritonCpu, build_host_library
from fusible.runtime.native.loading import load_library

__all__ = ["DeviceProgram", "images_for", "open_device_program", "open_host_library"]

_INTEGER_BITS = {f"{sign}{bits}": bits for bits in (8, 16, 32, 64) for sign in "iu"}


class DeviceProgram:
    """The kernels of one executable on one device. Threads may share it; each works with a stream of its own.

    The device is opened when it is first wanted, so that code for a GPU can be made and saved where there is none.
    library: the file of the kernels lowered to C, on the target triton-cpu. kernels: by name.
    """

    def __init__(
        self,
        code: DeviceCode,
        target: str,
        opener: Callable[[], Device],
        *,
        threads: int | None = None,
        library: Path | None = None,
    ) -> None:
        """Take code, and what opens the device for it."""
        self.code, self.target, self.threads, self.library = code, target, threads, library
        self.names = frozenset(kernel.name for kernel in code.kernels)
        self.kernels = {kernel.name: kernel for kernel in code.kernels}
        self._opener = opener
        self._device: Device | None = None
        self._loaded: dict[str, LoadedKernel] = {}
        self._constants: dict[int, DeviceArray] = {}
        self._scratch: WeakKeyDictionary[Stream, Memory] = WeakKeyDictionary()
        self._lock = threading.Lock()

    @property
    def device(self) -> Device:
        """The device. Raises DeviceError if this machine has none that runs the code."""
        if self._device is None:
            with self._lock:
                if self._device is None:
                    self._device = self._opener()
        return self._device

    def constant(self, index: int, array: np.ndarray, stream: Stream) -> DeviceArray:
        """Constant `index` of the executable on the device; it is brought there once, when it is first wanted."""
        device = self.device
        with self._lock:
            found = self._constants.get(index)
            if found is None:
                memory = device.constant(np.ascontiguousarray(array), stream)
                found = self._constants[index] = row_major(device, memory, array.dtype, array.shape)
            return found

    def prepare(
        self, stream: Stream, name: str, programs: int, spans: Sequence[Span], numbers: Sequence[int], where: str
    ) -> Prepared:
        """Settle a launch. Raises ExecutionError for arguments that do not fit; `where` names the step there."""
        kernel = self.kernels[name]
        if kernel.product is not None:
            return self._with_product(stream, kernel, kernel.product, programs, spans, where)
        self.check(name, len(spans), numbers, where)
        if kernel.sizes is None:
            return stream.prepare(self._load(name), programs, spans, numbers, where)
        table = np.array([programs, *numbers], np.int64)
        memory = stream.allocate(table.nbytes)
        stream.upload(memory, 0, table)
        sizes = Span(memory.address, table.nbytes, table.itemsize)
        return InOrder([stream.prepare(self._load(name), programs, [*spans, sizes], [], where)], memory)

    def prepare_sized(
        self, stream: Stream, name: str, programs: int, spans: Sequence[Span], table: Span, where: str
    ) -> Prepared:
        """Settle a launch whose sizes are in a table, where each run may have others. programs: at most."""
        kernel = self.kernels[name]
        if kernel.sizes is None:
            return self.prepare(stream, name, programs, spans, [], where)
        return stream.prepare(self._load(name), programs, [*spans, table], [], where)

    def check(self, name: str, buffers: int, numbers: Sequence[int], where: str) -> None:
        """Raise ExecutionError if a launch does not fit the kernel; `where` names the step."""
        kernel = self.kernels[name]
        expected, pointers = kernel.numbers, sum(type_.startswith("*") for _, type_ in kernel.arguments)
        if pointers - kernel.own_pointers - (kernel.sizes is not None) != buffers or len(expected) != len(numbers):
            listed = ", ".join(f"{n}: {t}" for n, t in (*kernel.arguments, *(kernel.sizes or ())))
            got = f"{buffers} buffers and {len(numbers)} numbers"
            raise ExecutionError(where, f"the kernel {name} takes ({listed}), and the plan gives {got}")
        for (argument, type_), number in zip(expected, numbers, strict=True):
            if not _fits(number, type_):
                why = f"{argument} is {number}, which its type {type_} cannot hold: these shapes are too large for it"
                raise ExecutionError(where, f"kernel {name}: {why}")

    def _with_product(
        self,
        stream: Stream,
        kernel: DeviceKernel,
        product: TorchCall,
        programs: int,
        spans: Sequence[Span],
        where: str,
    ) -> Prepared:
        """A product or a convolution by torch, and the kernel behind it if there is one."""
        memory, places = None, list(spans)
        if product.scratch:
            memory = self._scratch_of(stream, product.scratch)
            places.insert(product.result.argument, Span(memory.address, product.scratch, 1))
        if kernel.source:
            self.check(kernel.name, len(places), [], where)
        used = [places[place.argument] for place in product.places]
        check_reach(product, used, where)
        launches = [stream.prepare_product(product, used, where)]
        if kernel.source:
            launches.append(stream.prepare(self._load(kernel.name), programs, places, [], where))
        return InOrder(launches, memory)

    def _scratch_of(self, stream: Stream, nbytes: int) -> Memory:
        """Memory of a stream that its products share: they never run at once."""
        with self._lock:
            found = self._scratch.get(stream)
            if found is None or found.nbytes < nbytes:
                found = self._scratch[stream] = stream.allocate(nbytes)
            return found

    def _load(self, name: str) -> LoadedKernel:
        device = self.device
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = device.load(self.kernels[name])
            return self._loaded[name]


def _fits(number: int, type_: str) -> bool:
    bits = _INTEGER_BITS.get(type_, 64)
    low = -(1 << (bits - 1)) if type_.startswith("i") else 0
    return low <= number < low + (1 << bits)


def open_device_program(
    code: DeviceCode,
    target: str,
    *,
    threads: int | None = None,
    cache_dir: Path,
    progress: Callable[[int, int, str], None] | None = None,
) -> DeviceProgram:
    """Open device code on the device that a target names.

    target: `triton-cpu`, whose kernels are compiled now unless the cache has them, or `cuda:sm_NUMBER`, whose device is
    opened when it is first wanted: any GPU that one of the code's images runs on, or for which its sources can be built
    here. Code for other devices can be looked at and saved, not run. threads: that run kernels on the CPU.

    Raises DeviceError (no C compiler), KernelBuildError, UsageError.
    """
    if target == TritonCpu.target:
        if code.host is None:
            raise DeviceError("the kernels were not lowered to C: compile the model for the target triton-cpu")
        from fusible.runtime.native.compiler import find_compiler  # noqa: PLC0415 - only a build needs it

        library = build_host_library(code, find_compiler(os.environ), cache_dir=cache_dir, progress=progress)
        return open_host_library(code, library, threads=threads)
    if target.startswith("cuda:"):
        return DeviceProgram(code, target, lambda: _open_cuda(code, cache_dir), threads=threads)
    return DeviceProgram(code, target, lambda: _refuse(target), threads=threads)


def open_host_library(
    code: DeviceCode, library: Path, *, threads: int | None = None, checked: bool = False
) -> DeviceProgram:
    """Open the library that was built of the kernels lowered to C. checked: as for `load_library`."""
    device = TritonCpu(load_library(library, checked=checked), threads=threads, checked=code.checked)
    for kernel in code.built:
        device.load(kernel)
    return DeviceProgram(code, TritonCpu.target, lambda: device, threads=threads, library=library)


def _refuse(target: str) -> Device:
    raise DeviceError(f"kernels for {target} are built but cannot be run: this release runs triton-cpu and cuda")


def _open_cuda(code: DeviceCode, cache_dir: Path) -> Device:
    from fusible.runtime.devices.cuda import find_gpu, open_gpu  # noqa: PLC0415 - it needs torch

    gpu = find_gpu()
    return open_gpu(gpu, images_for(code, gpu.name, gpu.capability, cache_dir))


def images_for(code: DeviceCode, name: str, capability: int, cache_dir: Path) -> dict[str, DeviceImage]:
    """The images that run on a GPU of a compute capability (90 for 9.0), built anew of their sources if need be.

    name: of the GPU, for errors. Raises DeviceError if it is too old, or nothing here can build for it.
    """
    if capability < OLDEST:
        raise DeviceError(
            f"{name} has compute capability {capability / 10}, and kernels need {OLDEST / 10} or later (Ampere): "
            "compile for the target cpu, or use a newer GPU"
        )
    target = cuda_target(capability)
    found = chosen_image([t for t in code.images if t.startswith("cuda:")], capability)
    if found is not None:
        return dict(code.images[found])
    built = ", ".join(code.images) or "no GPU"
    missing = f"the kernels were built for {built}, and {name} needs {target}"
    if not code.builder:
        raise DeviceError(f"{missing}: compile the model for {target}")
    module, _, function = code.builder.partition(":")
    try:
        build: Callable[[DeviceCode, str, Path], DeviceCode] = getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise DeviceError(f"{missing}; building them here failed: {error}; compile for {target} elsewhere") from error
    try:
        made = build(code, target, cache_dir).images
        return dict(made[chosen_image(made, capability) or target])
    except DeviceError as error:
        raise DeviceError(f"{missing}; they are built of their sources where Triton is installed: {error}") from error
