"""The kernels of `build.KERNELS`, reading their sizes from memory: for runs by buckets."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache

from fusible.compiler.backends.triton.device_code import host_code
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.sized import sized
from fusible.runtime.devices.program import DeviceProgram, open_device_program
from fusible.runtime.executable import Executable
from fusible.runtime.native.cache import default_cache_dir
from tests.runtime.devices.build import device_code

__all__ = ["bounded", "sized_program"]


@cache
def sized_program(*, checked: bool = True) -> DeviceProgram:
    """The kernels on the device triton-cpu, by two threads."""
    kernels = [replace(sized(kernel), scratch_bytes=0, sites=()) for kernel in device_code().kernels]
    cache_dir = default_cache_dir(os.environ)
    code = host_code(kernels, gpu_target("cuda:sm_90"), cache_dir, checked=checked)
    return open_device_program(code, "triton-cpu", threads=2, cache_dir=cache_dir)


def bounded(exe: Executable, **bounds: tuple[int, int | None]) -> Executable:
    """An executable whose symbols lie between bounds."""
    return replace(exe, plan=exe.plan._replace(bounds=dict(bounds)))
