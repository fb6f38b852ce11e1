"""Printed kernels built ahead of time: no GPU and no driver are asked. What the code shows is read off as a report."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fusible.compiler.backends.triton.from_triton import told
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.overlap import can_overlap, with_wait
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.backends.triton.static_report import StaticReport, cuda_report, hip_report
from fusible.compiler.backends.triton.tensor_maps import (
    has_tensor_memory,
    maps_of,
    tensor_types,
    with_parameters,
    wrong_parameters,
)
from fusible.errors import DeviceError, KernelBuildError, UsageError
from fusible.runtime.devices.code import TensorMap

if TYPE_CHECKING:
    from triton.compiler import ASTSource

__all__ = ["BuiltKernel", "StaticReport", "build", "ttir_text"]


@dataclass(frozen=True, slots=True)
class BuiltKernel:
    """A kernel for one architecture: `binary` is a cubin or hsaco, `assembly` PTX or AMD's.

    symbol: the function in the binary. threads: of a program. scratch: bytes of the two scratch arguments of a program.
    overlaps: it waits for what was launched before it (`overlap.py`). maps: descriptors that it is given.
    """

    target: str
    ttir: str
    assembly: str
    binary: bytes
    report: StaticReport
    symbol: str
    threads: int
    scratch: tuple[int, int]
    overlaps: bool = False
    maps: tuple[TensorMap, ...] = ()


_REGISTERS = (80, 96, 128, 168, 255)  # of a thread: what leaves room for 24 warps of 32, 20, 16, 12, 8
_MOST_WARPS = 16


def build(kernel: PrintedKernel, target: GpuTarget) -> BuiltKernel:
    """Compile for a GPU. Raises DeviceError if Triton is missing, KernelBuildError if it refuses the kernel.

    Code that spills is made again in the ways that may avoid it, until one does: with more registers, where there are
    more, then with twice the warps. If none helps the first is kept, as it is where those are refused. Left to itself
    ptxas rather writes a few values to memory than have fewer warps resident, though a program that has a limit of its
    own is given all of it. Code in which products of wgmma wait for each other is made again with twice the warps.
    """
    made = _built(kernel, target)
    if target.backend != "cuda":
        return made
    for warps, registers in _other_ways(made, kernel.rule.warps, target):
        rule = replace(kernel.rule, warps=warps)
        try:
            other = _built(replace(kernel, rule=rule), target, registers)
        except KernelBuildError:
            continue  # the first build stands, with what is wrong with it in the report
        if not other.report.spilled and (made.report.spilled or not other.report.serialised):
            return replace(other, report=replace(other.report, threads=other.threads))
    return made


def _other_ways(made: BuiltKernel, warps: int, target: GpuTarget) -> Iterator[tuple[int, int | None]]:
    """Warps of a program, and registers of a thread (None: as ptxas chooses), that may help what spills or waits."""
    if made.report.spilled:
        most = min(target.sm.thread_registers, target.registers // made.threads)
        yield from ((warps, n) for n in _REGISTERS if made.report.registers < n <= most)
    if 2 * warps <= _MOST_WARPS and (made.report.spilled or made.report.serialised):
        yield 2 * warps, None
    if 2 * warps <= _MOST_WARPS and made.report.spilled:
        yield 2 * warps, min(target.sm.thread_registers, target.registers // (2 * made.threads))


def _built(kernel: PrintedKernel, target: GpuTarget, registers: int | None = None) -> BuiltKernel:
    """A build. registers: that a thread may have, and is given if they help; None: as ptxas chooses."""
    _triton()
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415  # Triton takes a second to import
    from triton.compiler import compile as triton_compile  # noqa: PLC0415

    wanted = GPUTarget(target.backend, target.architecture, target.warp)
    options = {"num_warps": kernel.rule.warps, "num_stages": kernel.rule.stages}
    options |= {} if registers is None else {"maxnreg": registers}
    overlaps = can_overlap(target) and not kernel.serial
    described = has_tensor_memory(target) and bool(kernel.rule.tensors)
    source_of = _source(kernel, waits=overlaps, described=described)
    with source_of as (source, folder), _own_cache(folder), _assembler_log() as log:
        try:
            made = triton_compile(source, target=wanted, options=options)  # type: ignore[no-untyped-call]
        except _refusals() as error:
            raise _refused(kernel, target, error) from error
        text, binary = ("ptx", "cubin") if target.backend == "cuda" else ("amdgcn", "hsaco")
        assembly, shared = made.asm[text], int(made.metadata.shared)
        report = _report(target, assembly, made.asm[binary], shared, folder, log.getvalue())
        facts = made.metadata
        threads, scratch = facts.num_warps * target.warp, (_size(facts, "global"), _size(facts, "profile"))
        code = made.asm["ttir"], assembly, made.asm[binary]
        maps = _maps(kernel, target, facts.tensordesc_meta, assembly) if described else ()
        return BuiltKernel(target.target, *code, report, facts.name, threads, scratch, overlaps, maps)


def _maps(
    kernel: PrintedKernel, target: GpuTarget, facts: Sequence[Mapping[str, Any]], ptx: str
) -> tuple[TensorMap, ...]:
    """The descriptors that a kernel is given. Raises KernelBuildError if it takes them in another way."""
    if problem := wrong_parameters(ptx, kernel.rule):
        raise KernelBuildError(kernel.source, ["triton", kernel.rule.kernel, target.target], problem)
    return maps_of(kernel.rule, facts)


def _size(facts: object, which: str) -> int:
    """Bytes of a scratch argument; AMD's compiler knows one of the two only."""
    return int(getattr(facts, f"{which}_scratch_size", 0) or 0)


def ttir_text(kernel: PrintedKernel, target: GpuTarget) -> str:
    """The kernel in Triton's first intermediate form, which the compiler has checked. Raises as `build` does."""
    _triton()
    from triton._C.libtriton import ir  # type: ignore[attr-defined]  # noqa: PLC0415
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415
    from triton.compiler.compiler import make_backend  # noqa: PLC0415

    wanted = GPUTarget(target.backend, target.architecture, target.warp)
    backend: Any = make_backend(wanted)  # what backends share is not in the class that they share
    options = backend.parse_options({"num_warps": kernel.rule.warps, "num_stages": kernel.rule.stages})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    with _source(kernel) as (source, _):
        stages: dict[str, Callable[[object, dict[str, object]], object]] = {}
        backend.add_stages(stages, options, source.language)
        try:
            functions, modules = backend.get_codegen_implementation(options), backend.get_module_map()
            made = source.make_ir(wanted, options, functions, modules, context)
            return str(stages["ttir"](made, {}))
        except _refusals() as error:
            raise _refused(kernel, target, error) from error


def _refused(kernel: PrintedKernel, target: GpuTarget, error: Exception) -> KernelBuildError:
    return KernelBuildError(kernel.source, ["triton", kernel.rule.kernel, target.target], told(error))


def _refusals() -> tuple[type[Exception], ...]:
    """What Triton raises for a kernel that it does not take: its front end wraps everything in a CompilationError and
    ptxas's complaints are a PTXASError, both TritonErrors; passes that fail and LLVM are RuntimeErrors of the bindings.
    """
    from triton.errors import TritonError  # noqa: PLC0415

    return TritonError, RuntimeError


def _triton() -> ModuleType:
    """Triton, if it is there and compiles. Raises DeviceError, or UsageError where its interpreter is chosen."""
    if importlib.util.find_spec("triton") is None:
        raise DeviceError("kernels for GPUs are built by Triton, which is not installed; install `fusible[gpu]`")
    import triton  # noqa: PLC0415

    if triton.knobs.runtime.interpret:
        raise UsageError("TRITON_INTERPRET is set: kernels are interpreted and cannot be built; unset it")
    return triton


@contextmanager
def _source(kernel: PrintedKernel, *, waits: bool = False, described: bool = False) -> Iterator[tuple[ASTSource, Path]]:
    """The kernel as Triton reads it, out of a real file in a folder of its own.

    waits: for its predecessor. described: its tensors' descriptors are parameters.
    """
    from triton.compiler import ASTSource  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="fusible-triton-") as name:
        path = Path(name) / "kernels.py"
        text = kernel.source
        if waits:
            text = with_wait(text, kernel.rule.kernel, kernel.fixed, 32 * kernel.rule.warps)
        text = with_parameters(text, kernel.rule.kernel, kernel.rule.tensors) if described else text
        path.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location("fusible_printed", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        rule = kernel.rule
        signature = {a.name: a.type for a in rule.arguments} | (tensor_types(rule) if described else {})
        signature |= dict.fromkeys(rule.constants, "constexpr")
        attributes = {
            (n,): [["tt.divisibility", a.divisibility]] for n, a in enumerate(rule.arguments) if a.divisibility > 1
        }
        yield ASTSource(getattr(module, rule.kernel), signature, dict(rule.constants), attributes), Path(name)


@contextmanager
def _own_cache(folder: Path) -> Iterator[None]:
    """A build neither reads nor leaves anything in the user's cache."""
    from triton import knobs  # noqa: PLC0415

    with knobs.cache.scope():
        knobs.cache.dir = str(folder / "cache")
        yield


@contextmanager
def _assembler_log() -> Iterator[io.StringIO]:
    """What ptxas says of the code that it makes, which Triton prints."""
    from triton import knobs  # noqa: PLC0415

    with knobs.nvidia.scope(), redirect_stdout(io.StringIO()) as log:
        knobs.nvidia.dump_ptxas_log = True
        yield log


def _report(target: GpuTarget, assembly: str, binary: bytes, shared: int, folder: Path, log: str) -> StaticReport:
    if target.backend != "cuda":
        return hip_report(assembly, shared)
    from triton import knobs  # noqa: PLC0415

    path = folder / "kernel.cubin"
    path.write_bytes(binary)
    command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", os.fspath(path)]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return cuda_report(assembly, usage, shared, log)
