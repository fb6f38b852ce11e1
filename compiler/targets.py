"""The targets of this release, and what `auto` stands for on this machine."""

from __future__ import annotations

import importlib.util
import os
import re

from fusible.compiler.backends.triton.gpu_targets import GPUS, GpuTarget, gpu_target
from fusible.errors import DeviceError, UsageError
from fusible.runtime.native.compiler import find_compiler

__all__ = ["GPU_TARGETS", "TARGETS", "TRITON_CPU", "check_target", "resolve_target", "triton_gpu"]

TRITON_CPU = "triton-cpu"
"""The target that runs Triton kernels as C."""

GPU_TARGETS = tuple(dict.fromkeys(gpu.target for gpu in GPUS.values()))
"""What kernels are built for ahead of time: architectures; GPUs that share one share code."""

TARGETS = ("auto", "numpy", "cpu", TRITON_CPU, *GPU_TARGETS)

_LOWERED_FROM = "cuda:sm_90"  # the architecture whose kernels triton-cpu runs
_CUDA = re.compile(r"cuda:sm_(\d+)")
_OLDEST = 80


def resolve_target(target: str) -> tuple[str, str]:
    """(concrete target, what there is to say about the choice): auto is cpu where a C compiler works, else numpy.

    Raises UsageError for a target that this release does not have.
    """
    if target not in TARGETS:
        raise UsageError(f"unknown target {target!r}{_hint(target)}; this release has {', '.join(TARGETS)}")
    if target != "auto":
        return target, ""
    try:
        find_compiler(os.environ)
    except DeviceError as missing:
        return "numpy", f"auto: NumPy runs the model, because the target cpu cannot be built here: {missing}"
    return "cpu", ""


def _hint(target: str) -> str:
    """What to say of a target that means a GPU."""
    named = _CUDA.fullmatch(target)
    if named is not None and int(named[1]) < _OLDEST:
        return f": kernels need a GPU of compute capability {_OLDEST // 10}.{_OLDEST % 10} or newer"
    if target in GPUS:
        return f": name its architecture, {GPUS[target].target}"
    return ""


def triton_gpu(target: str) -> GpuTarget | None:
    """The GPU for which the kernels of a target are scheduled; None for targets without Triton kernels."""
    if target == TRITON_CPU:
        return gpu_target(_LOWERED_FROM)
    return gpu_target(target) if target in GPU_TARGETS else None


def check_target(target: str) -> None:
    """Raise DeviceError if a concrete target lacks what it is built with: a C compiler, Triton, or both."""
    if target in ("cpu", TRITON_CPU):
        find_compiler(os.environ)
    if triton_gpu(target) is not None and importlib.util.find_spec("triton") is None:
        raise DeviceError(f"the target {target} is built by Triton, which is not installed: pip install 'fusible[gpu]'")
