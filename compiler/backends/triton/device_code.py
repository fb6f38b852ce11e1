"""Printed kernels become device code: lowered to C for triton-cpu, or built ahead of time for a GPU.

A kernel's C does not depend on the plan's name for it, so that models share what was compiled of it.
"""

from __future__ import annotations

import base64
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fusible.compiler.backends.triton.build_kernels import Form, build_kernels
from fusible.compiler.backends.triton.gpu_targets import GPUS, GpuTarget, gpu_target
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.backends.triton.static_report import StaticReport
from fusible.compiler.targets import TRITON_CPU, triton_gpu
from fusible.errors import DeviceError, KernelBuildError
from fusible.runtime.devices.code import DeviceCode, DeviceImage, DeviceKernel, TensorMap
from fusible.runtime.native.program import NativeCode

__all__ = ["BUILDER", "build_for", "device_kernel", "gpu_code", "host_code", "static_reports", "with_targets"]

BUILDER = "fusible.compiler.backends.triton.device_code:build_for"
"""What builds an artifact's kernels for a GPU that it has no images for."""

_NAMES = "names.c"
_AMPERE = "cuda:sm_8"


def device_kernel(name: str, kernel: PrintedKernel) -> DeviceKernel:
    """A printed kernel under the name that plans call it."""
    rule = kernel.rule
    return DeviceKernel(
        name=name,
        entry=rule.kernel,
        source=kernel.source,
        arguments=tuple((a.name, a.type) for a in rule.arguments),
        constants=dict(rule.constants),
        divisibility={a.name: a.divisibility for a in rule.arguments if a.divisibility > 1},
        warps=rule.warps,
        stages=rule.stages,
        tensors=rule.tensors,
        workspace=rule.workspace,
        alone=rule.alone,
        fixed=dict(kernel.fixed),
        serial=kernel.serial,
        product=kernel.product,
    )


def host_code(kernels: Sequence[DeviceKernel], gpu: GpuTarget, cache_dir: Path, *, checked: bool = False) -> DeviceCode:
    """The kernels of a plan as C. gpu: whose TTIR is lowered. checked: whether the C checks each access.

    Raises DeviceError (no Triton), KernelBuildError (Triton refuses one), LoweringError (an operation has no C),
    UsageError for a cache that cannot be used.
    """
    # Both import all that lowers to C, which code for GPUs does without.
    from fusible.compiler.backends.triton.kernel import TILE_HEADER  # noqa: PLC0415
    from fusible.compiler.backends.triton.lower import LAUNCH_SYMBOL  # noqa: PLC0415

    sources = {TILE_HEADER.name: TILE_HEADER.read_text(encoding="utf-8")}
    wrappers, made = ["struct launch;", '#define EXPORT __attribute__((visibility("default")))'], []
    texts = [kernel for kernel in kernels if kernel.source]
    built = build_kernels(texts, gpu, Form.CHECKED if checked else Form.C, cache_dir)
    for kernel, (key, found) in zip(texts, built, strict=True):
        symbol = f"triton_{key[:16]}"
        sources[f"{symbol}.c"] = found["source"].replace(LAUNCH_SYMBOL, symbol)
        wrappers.append(f"void {symbol}(const struct launch *launch);")
        wrappers.append(f"EXPORT void {kernel.name}(const struct launch *launch) {{ {symbol}(launch); }}")
        made.append(replace(kernel, scratch_bytes=int(found["scratch_bytes"]), sites=tuple(found["sites"])))
    sources[_NAMES] = "\n".join([*wrappers, ""])
    host = NativeCode(sources, tuple(kernel.name for kernel in texts))
    lowered = {kernel.name: kernel for kernel in made}
    all_of_them = tuple(lowered.get(kernel.name, kernel) for kernel in kernels)
    return DeviceCode(all_of_them, host=host, checked=checked, builder=BUILDER)


def gpu_code(
    kernels: Sequence[DeviceKernel], gpu: GpuTarget, cache_dir: Path, *, fit: Container[str] = ()
) -> DeviceCode:
    """The kernels of a plan built for a GPU. Raises as `host_code`, and if one needs more shared memory than there is.

    fit: names of kernels that get as many stages as leave enough, or one, before that is an error.
    """
    found = {kernel.name: kernel for kernel in kernels}
    images: dict[str, DeviceImage] = {}
    waiting = [kernel for kernel in kernels if kernel.source]
    while waiting:
        built = build_kernels(waiting, gpu, Form.IMAGE, cache_dir)
        images |= {kernel.name: _image(entry) for kernel, (_, entry) in zip(waiting, built, strict=True)}
        large = [kernel for kernel in waiting if images[kernel.name].shared > gpu.shared_per_block]
        for kernel in large:
            if kernel.name not in fit or kernel.stages == 1:
                why = f"it needs {images[kernel.name].shared} bytes of shared memory, of which a {gpu.name} has "
                what = f"{why}{gpu.shared_per_block} a block: compile the model for it"
                raise KernelBuildError(kernel.source, ["triton", kernel.entry, gpu.target], what)
        waiting = [replace(kernel, stages=kernel.stages - 1) for kernel in large]
        found |= {kernel.name: kernel for kernel in waiting}
    return DeviceCode(tuple(found.values()), images={gpu.target: images}, builder=BUILDER)


def build_for(code: DeviceCode, target: str, cache_dir: Path) -> DeviceCode:
    """The same kernels built for the GPU of a machine, which may be none that targets name (`cuda:sm_86`).

    Their schedules are those of the GPU that they were printed for, but for stages that find no room in less shared
    memory. Raises as `host_code`, and DeviceError for a GPU of which Triton's code cannot be told.
    """
    known = {gpu.target for gpu in GPUS.values()}
    if target in known:
        gpu = gpu_target(target)
    elif target.startswith(_AMPERE):  # they run what is built for each other, and have less shared memory than the A100
        gpu = replace(gpu_target("cuda:sm_89"), target=target)
    else:
        raise DeviceError(f"kernels cannot be built for {target}: known are {', '.join(sorted(known))}")
    names = {kernel.name for kernel in code.kernels}
    return replace(gpu_code(code.kernels, gpu, cache_dir, fit=names), kernels=code.kernels)


def with_targets(code: DeviceCode, targets: Sequence[str], cache_dir: Path) -> DeviceCode:
    """Code that more targets run: the same kernels, by the schedules that they have. Raises as `build_for`."""
    for target in targets:
        gpu = triton_gpu(target)
        if target == TRITON_CPU and gpu is not None:
            lowered = host_code(code.kernels, gpu, cache_dir)
            code = replace(code, kernels=lowered.kernels, host=lowered.host)
        else:
            code = replace(code, images={**code.images, **build_for(code, target, cache_dir).images})
    return code


def static_reports(kernels: Sequence[DeviceKernel], gpu: GpuTarget, cache_dir: Path) -> dict[str, StaticReport]:
    """What the code of kernels shows, by their names; built if need be. Raises as `host_code`."""
    texts = [kernel for kernel in kernels if kernel.source]
    built = build_kernels(texts, gpu, Form.IMAGE, cache_dir)
    return {k.name: StaticReport.from_json(found["report"]) for k, (_, found) in zip(texts, built, strict=True)}


def _image(found: Mapping[str, Any]) -> DeviceImage:
    device, profile = map(int, found["scratch"])
    data, maps = base64.b64decode(found["data"]), tuple(map(TensorMap.from_json, found["maps"]))
    sizes = found["threads"], found["shared"], (device, profile)
    return DeviceImage(found["symbol"], data, *sizes, found["overlaps"], maps)
