"""The targets of this release, and what `auto` stands for on this machine."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fusible.compiler.backends.triton.gpu_targets import GPUS, GpuTarget, gpu_target
from fusible.errors import DeviceError, UsageError
from fusible.runtime.devices.architectures import chosen_image
from fusible.runtime.devices.cuda import find_gpu
from fusible.runtime.native.compiler import find_compiler

__all__ = [
    "GPU_TARGETS", "TARGETS", "TRITON_CPU", "check_also", "check_target", "printed_gpu", "resolve_target", "triton_gpu",
]  # fmt: skip

TRITON_CPU = "triton-cpu"
"""The target that runs Triton kernels as C."""

GPU_TARGETS = tuple(dict.fromkeys(gpu.target for gpu in GPUS.values()))
"""What kernels are built for ahead of time: architectures; GPUs that share one share code."""

TARGETS = ("auto", "numpy", "cpu", TRITON_CPU, *GPU_TARGETS)

_LOWERED_FROM = "cuda:sm_90"  # the architecture whose kernels triton-cpu runs
_CUDA = re.compile(r"cuda:sm_(\d+)")
_OLDEST = 80
_DRIVER = Path("/dev/nvidiactl")  # there once NVIDIA's driver is: to look is quicker than to import torch


def resolve_target(target: str) -> tuple[str, str]:
    """(concrete target, what there is to say about the choice).

    auto is a GPU's target where one can be used, else cpu where a C compiler works, else numpy. Raises UsageError for a
    target that this release does not have.
    """
    if target not in TARGETS:
        raise UsageError(f"unknown target {target!r}{_hint(target)}; this release has {', '.join(TARGETS)}")
    if target != "auto":
        return target, ""
    gpu, unused = _gpu_here()
    if gpu is not None:
        return gpu, ""
    try:
        find_compiler(os.environ)
    except DeviceError as missing:
        why = f"NumPy runs the model, because the target cpu cannot be built here: {missing}"
        return "numpy", f"auto: {why}; {unused}" if unused else f"auto: {why}"
    return "cpu", f"auto: {unused}" if unused else ""


def _gpu_here() -> tuple[str | None, str]:
    """(the target of a usable GPU or None, why a GPU that is there is not used)."""
    if not _DRIVER.exists():
        return None, ""
    missing = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]
    if missing:
        named = " and ".join(missing)
        return None, f"there is a GPU, but {named} must be installed to use it: pip install 'fusible[gpu]'"
    try:
        gpu = find_gpu()
    except DeviceError as error:
        return None, f"there is a GPU, but {error}"
    known = [target for target in GPU_TARGETS if target.startswith("cuda:")]
    target = chosen_image(known, gpu.capability)
    if target is None:
        return None, f"kernels cannot be built for the {gpu.name} (compute capability {gpu.capability / 10:.1f})"
    return target, ""


def _hint(target: str) -> str:
    """What to say of a target that means a GPU."""
    named = _CUDA.fullmatch(str(target))
    if named is not None and int(named[1]) < _OLDEST:
        return f": kernels need a GPU of compute capability {_OLDEST // 10}.{_OLDEST % 10} or newer"
    if str(target) in GPUS:
        return f": name its architecture, {GPUS[target].target}"
    return ""


def triton_gpu(target: str) -> GpuTarget | None:
    """The GPU for which the kernels of a target are scheduled; None for targets without Triton kernels."""
    if target == TRITON_CPU:
        return gpu_target(_LOWERED_FROM)
    return gpu_target(target) if target in GPU_TARGETS else None


def printed_gpu(target: str, also: Sequence[str]) -> GpuTarget | None:
    """The GPU that kernels of a target are printed for; None for targets without Triton kernels.

    also: more targets that are to run them. If one has no matrix units for 8-bit floats, the kernels do without.
    """
    gpu = triton_gpu(target)
    others = [other for other in map(triton_gpu, also) if other is not None]
    if gpu is None or not others:
        return gpu
    # It comes with the modules for Triton kernels, which take as long to import as the rest of the compiler.
    from fusible.compiler.backends.triton.dequantised import multiplies_floats8  # noqa: PLC0415

    return gpu if all(map(multiplies_floats8, others)) else replace(gpu, fp8=None)


def check_also(target: str, also: Sequence[str]) -> None:
    """Raise UsageError if more targets are asked for that have no Triton kernels, or if the target itself has none."""
    if also and None in (triton_gpu(target), *map(triton_gpu, also)):
        raise UsageError(f"also={tuple(also)}: {target} and all of these must be targets with Triton kernels")


def check_target(target: str) -> None:
    """Raise DeviceError if a concrete target lacks what it is built with: a C compiler, Triton, or both."""
    if target in ("cpu", TRITON_CPU):
        find_compiler(os.environ)
    if triton_gpu(target) is not None and importlib.util.find_spec("triton") is None:
        raise DeviceError(f"the target {target} is built by Triton, which is not installed: pip install 'fusible[gpu]'")
