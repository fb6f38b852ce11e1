"""Where candidates of a tuner are built and launched: the GPU of this machine, or the CPU for triton-cpu."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fusible.compiler.backends.triton.build_kernels import Form
from fusible.compiler.backends.triton.build_pool import BuildPool
from fusible.compiler.backends.triton.device_code import gpu_code, host_code, static_reports
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.static_report import StaticReport
from fusible.compiler.targets import TRITON_CPU
from fusible.errors import DeviceError
from fusible.runtime.devices.architectures import chosen_image
from fusible.runtime.devices.code import DeviceKernel
from fusible.runtime.devices.cuda import find_gpu
from fusible.runtime.devices.program import DeviceProgram, open_device_program
from fusible.runtime.native.machine import usable_threads

__all__ = ["Built", "Workbench", "device_name", "workbench"]

_CPU_CACHE = 32 << 20  # bytes, more than the level 2 cache of a core and a good part of what cores share


@dataclass(frozen=True, slots=True)
class Built:
    """One kernel, ready to be launched. report: what its code shows, on a GPU."""

    kernel: DeviceKernel
    program: DeviceProgram
    report: StaticReport | None = None


@dataclass(frozen=True, slots=True)
class Workbench:
    """A device of this machine and the processes that build for it. warm: operands stay in the device's cache."""

    target: str
    gpu: GpuTarget
    cache_dir: Path
    pool: BuildPool
    warm: bool = False

    @property
    def flushed(self) -> int:
        """Bytes that are written between two launches: more than the cache holds, or none."""
        if self.warm:
            return 0
        return _CPU_CACHE if self.target == TRITON_CPU else 2 * self.gpu.l2

    def build(self, kernel: DeviceKernel) -> Future[Built]:
        """A kernel, when it is built. The future raises KernelBuildError, LoweringError, DeviceError."""
        return self.pool.submit(kernel, self._opened) if kernel.source else self.pool.call(self._opened, kernel)

    def _opened(self, kernel: DeviceKernel) -> Built:
        if self.target == TRITON_CPU:
            code = host_code([kernel], self.gpu, self.cache_dir)
            return Built(kernel, open_device_program(code, TRITON_CPU, cache_dir=self.cache_dir))
        code = gpu_code([kernel], self.gpu, self.cache_dir)
        report = static_reports([kernel], self.gpu, self.cache_dir).get(kernel.name)
        return Built(kernel, open_device_program(code, self.target, cache_dir=self.cache_dir), report)


@contextmanager
def workbench(target: str, gpu: GpuTarget, cache_dir: Path, *, warm: bool = False) -> Iterator[Workbench]:
    """A workbench; one thread is left for timing. warm: as it has it.

    Raises DeviceError if this machine lacks the target's device.
    """
    device_name(target)
    form = Form.C if target == TRITON_CPU else Form.IMAGE
    pool = BuildPool(gpu, form, cache_dir, max(1, usable_threads() - 1))
    try:
        yield Workbench(target, gpu, cache_dir, pool, warm)
    finally:
        pool.close()


def device_name(target: str) -> str:
    """What kernels of a target are timed on here. Raises DeviceError if this machine has no such device."""
    if target == TRITON_CPU:
        return TRITON_CPU
    if not target.startswith("cuda:"):
        raise DeviceError(f"kernels for {target} cannot be timed: this release runs cuda and triton-cpu")
    gpu = find_gpu()
    if chosen_image([target], gpu.capability) is None:
        raise DeviceError(
            f"this machine's GPU is {gpu.name}, of compute capability {gpu.capability / 10:.1f}, which runs nothing "
            f"that is built for {target}: tune for its own target"
        )
    return gpu.name
