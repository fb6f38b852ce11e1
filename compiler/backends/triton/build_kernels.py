"""What Triton makes of the kernels of a plan, kept in the cache of native code; many are built by several processes.

Triton takes a second to import, and tenths of one to seconds for a kernel. An entry is JSON, under the hash of all that
decides it: the kernel, the GPU, Triton's version, and our own code that makes it.

`python -m fusible.compiler.backends.triton.build_kernels` is what the other processes run: it reads jobs as JSON from
standard input, puts what it makes into the cache, and prints the number of each job as it begins.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from fusible.compiler.backends.triton.gpu_targets import GpuTarget, Multiprocessor
from fusible.compiler.backends.triton.launch import Argument, LaunchRule
from fusible.compiler.backends.triton.overlap import can_overlap
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.errors import FusibleError, KernelBuildError
from fusible.runtime.devices.code import DeviceKernel
from fusible.runtime.native.cache import CACHE_BYTES, FileCache
from fusible.runtime.native.machine import usable_threads

__all__ = ["Form", "build_kernels", "printed_kernel", "sent_gpu", "sent_kernel"]

_FOLDER = Path(__file__).parent
_IMPORT = re.compile(r"^from fusible\.compiler\.backends\.triton\.(\w+) import", re.MULTILINE)
_FEW = 4  # kernels that are built sooner than another process has started and imported Triton

Entry = dict[str, Any]


class Form(Enum):
    """What is made of a kernel: C (its source, scratch_bytes, sites), C that checks accesses, or a DeviceImage with the
    StaticReport of its code.
    """

    C = "c"
    CHECKED = "checked"
    IMAGE = "image"


def build_kernels(
    kernels: Sequence[DeviceKernel], gpu: GpuTarget, form: Form, cache_dir: Path
) -> list[tuple[str, Entry]]:
    """For each kernel its key and what was made of it, now or before.

    Raises DeviceError (no Triton), KernelBuildError (Triton refuses a kernel, or its process dies), LoweringError (an
    operation has no C), UsageError for a cache that cannot be used.
    """
    files = FileCache(cache_dir, CACHE_BYTES)
    keys = [_key(kernel, gpu, form) for kernel in kernels]
    missing = {key: kernel for key, kernel in zip(keys, kernels, strict=True) if _read(files, key) is None}
    workers = min(usable_threads(), len(missing) // _FEW)
    if workers > 1:
        _build_apart(list(missing.values()), gpu, form, cache_dir, workers)
    pairs = zip(keys, kernels, strict=True)
    return [(key, _read(files, key) or _make(files, kernel, gpu, form)) for key, kernel in pairs]


def printed_kernel(kernel: DeviceKernel) -> PrintedKernel:
    """A kernel as its printer gave it, but for what only the plan knows: how many programs and which numbers."""
    arguments = tuple(Argument(n, t, None, kernel.divisibility.get(n, 1)) for n, t in kernel.arguments)
    constants, sizes = dict(kernel.constants), (kernel.warps, kernel.stages)
    rule = LaunchRule(kernel.entry, arguments, constants, (), (), *sizes, tensors=kernel.tensors)
    return PrintedKernel(kernel.source, rule, fixed=kernel.fixed, serial=kernel.serial)


def _key(kernel: DeviceKernel, gpu: GpuTarget, form: Form) -> str:
    overlaps = form is Form.IMAGE and can_overlap(gpu)
    fixed, serial = (kernel.fixed, kernel.serial) if overlaps else ({}, False)
    known = asdict(replace(kernel, name="", fixed=fixed, serial=serial, scratch_bytes=0, sites=(), product=None))
    return _digest(json.dumps([known, gpu.target, form.value, *_versions(form)], sort_keys=True))


@cache
def _versions(form: Form) -> tuple[str, ...]:
    """Triton's version, and the hash of what of this package decides what is made: with other text it is made anew."""
    own = {"static_report", "overlap", "tensor_maps"} if form is Form.IMAGE else _imported("lower")
    names = {"build_kernels", "aot", *own}
    texts = [_FOLDER.joinpath(f"{name}.py").read_text(encoding="utf-8") for name in sorted(names)]
    return importlib.metadata.version("triton"), _digest("\0".join(texts))


def _imported(name: str) -> set[str]:
    """A module beside this one and those that it imports, directly or not."""
    found, waiting = {name}, [name]
    while waiting:
        text = _FOLDER.joinpath(f"{waiting.pop()}.py").read_text(encoding="utf-8")
        new = set(_IMPORT.findall(text)) - found
        found |= new
        waiting += new
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _read(files: FileCache, key: str) -> Entry | None:
    with files.explained():
        path = files.get(f"{key}.json")
        if path is None:
            return None
        entry: Entry = json.loads(path.read_text(encoding="utf-8"))
        return entry


def _make(files: FileCache, kernel: DeviceKernel, gpu: GpuTarget, form: Form) -> Entry:
    """Build a kernel and keep what comes of it."""
    printed = printed_kernel(kernel)
    entry = _image(printed, gpu) if form is Form.IMAGE else _lowered(printed, gpu, checked=form is Form.CHECKED)
    name = f"{_key(kernel, gpu, form)}.json"
    with files.explained(), files.scratch() as folder:
        (folder / name).write_text(json.dumps(entry), encoding="utf-8")
        files.put(name, folder / name)
    return entry


def _lowered(kernel: PrintedKernel, gpu: GpuTarget, *, checked: bool) -> Entry:
    from fusible.compiler.backends.triton.aot import ttir_text  # noqa: PLC0415 - not needed where all was built before
    from fusible.compiler.backends.triton.lower import lower_ttir  # noqa: PLC0415 - as above

    lowered = lower_ttir(ttir_text(kernel, gpu), checked=checked)
    return {"source": lowered.source, "scratch_bytes": lowered.scratch_bytes, "sites": list(lowered.site_texts)}


def _image(kernel: PrintedKernel, gpu: GpuTarget) -> Entry:
    from fusible.compiler.backends.triton.aot import build  # noqa: PLC0415 - as above

    built = build(kernel, gpu)
    return {
        "symbol": built.symbol,
        "data": base64.b64encode(built.binary).decode("ascii"),
        "threads": built.threads,
        "shared": built.report.shared,
        "scratch": list(built.scratch),
        "overlaps": built.overlaps,
        "maps": [asdict(each) for each in built.maps],
        "report": built.report.to_json(),
    }


# Other processes


def _build_apart(kernels: Sequence[DeviceKernel], gpu: GpuTarget, form: Form, cache_dir: Path, workers: int) -> None:
    """Let other processes fill the cache. What one of them refuses stays missing: the caller meets the error itself."""
    command = [sys.executable, "-m", __name__]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    running = []
    for worker in range(workers):
        share = kernels[worker::workers]
        jobs = {"kernels": [asdict(k) for k in share], "gpu": asdict(gpu), "form": form.value, "cache": str(cache_dir)}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        running.append((process, share, json.dumps(jobs)))
    told = []
    try:
        with ThreadPoolExecutor(len(running)) as executor:
            told = list(executor.map(lambda each: each[0].communicate(each[2]), running))
    finally:
        for process, _, _ in running:
            process.kill()
    for (process, share, _), (begun, problem) in zip(running, told, strict=True):
        if process.returncode:
            last = share[len(begun.split()) - 1] if begun.strip() else share[0]
            raise KernelBuildError(last.source, command, f"the process ended with {process.returncode}: {problem}")


def sent_kernel(fields: Mapping[str, Any]) -> DeviceKernel:
    """A kernel that came as JSON, as far as it is to be built."""
    return DeviceKernel.from_json({**fields, "product": None})


def sent_gpu(fields: Mapping[str, Any]) -> GpuTarget:
    """A GPU that came as JSON: it may be one that no name stands for."""
    return GpuTarget(**{**fields, "sm": Multiprocessor(**fields["sm"])})


def _worker(jobs: Mapping[str, Any]) -> None:
    files, gpu, form = FileCache(Path(jobs["cache"]), CACHE_BYTES), sent_gpu(jobs["gpu"]), Form(jobs["form"])
    for number, fields in enumerate(jobs["kernels"]):
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        kernel = sent_kernel(fields)
        with suppress(FusibleError):  # who asked for it builds it again, and so learns of the error
            _make(files, kernel, gpu, form)


if __name__ == "__main__":
    _worker(json.load(sys.stdin))
