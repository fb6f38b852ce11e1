"""The Python interface: compile a model, load an artifact, register ops and kernels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import onnx

from fusible.compiler.backends.numpy import NumpyBackend
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.frontend.convert import import_model
from fusible.compiler.frontend.load import load_model
from fusible.compiler.frontend.signature import ShapeRequest
from fusible.compiler.ir.analysis import constants
from fusible.compiler.ir.graph import Graph
from fusible.compiler.known_kernels import KnownKernels
from fusible.compiler.lower import cache_folder, check_sizes, lower
from fusible.compiler.options import Options
from fusible.compiler.pass_files import has_entry_points
from fusible.compiler.pipeline import pipeline
from fusible.compiler.run_passes import run_passes
from fusible.compiler.targets import (
    GPU_TARGETS,
    TRITON_CPU,
    check_also,
    check_target,
    printed_gpu,
    resolve_target,
    triton_gpu,
)
from fusible.compiler.tuning import TuningLock
from fusible.errors import UsageError
from fusible.kernels.registry import KERNELS
from fusible.passes.exactness import Exactness
from fusible.passes.instruments import Instrument
from fusible.passes.manager import Pipeline
from fusible.runtime.collection import collection_put_off
from fusible.runtime.executable import Executable

if TYPE_CHECKING:
    from fusible.compiler.backends.triton.tuned import Tuning

__all__ = ["Model", "compile", "compile_with", "import_graph"]

Model: TypeAlias = str | os.PathLike[str] | bytes | onnx.ModelProto
"""A model as users have it: the path of a file, its bytes, or what onnx made of them."""


def import_graph(
    model: Model,
    *,
    shapes: Mapping[str, ShapeRequest] | None = None,
    options: Options | None = None,
) -> Graph:
    """The model as a graph, before any pass. Arguments and errors as for `compile`."""
    graph = _imported(model, shapes, options or Options())
    for value in constants(graph):
        assert value.constant is not None
        _ = value.constant.array  # read now: the file may change while the graph is kept
    return graph


def _imported(model: Model, shapes: Mapping[str, ShapeRequest] | None, options: Options) -> Graph:
    """The model as a graph, whose weights are read from its file when they are wanted."""
    return import_model(load_model(model, options.limits), shapes=shapes, limits=options.limits)


def compile(
    model: Model,
    target: str = "auto",
    *,
    shapes: Mapping[str, ShapeRequest] | None = None,
    passes: Pipeline | None = None,
    options: Options | None = None,
) -> Executable:
    """Compile an ONNX model.

    model: path, bytes or ModelProto. target: "numpy", "cpu", or "auto", which is a GPU that can be used, else cpu
    where there is a C compiler, else numpy (`report.notes` says why). Triton kernels are built for "cuda:sm_90" and
    the other architectures of `fusible doctor`, which need not be here, or for "triton-cpu", where they run as C.
    shapes: {"batch": 4} fixes a symbol, {"batch": (1, 64)} bounds it, {"input": (1, 3, 224, 224)} gives an input's
    whole shape. passes: a pipeline (default `fusible.pipeline(target)`). Raises InvalidModel, UnsupportedOp,
    LimitExceeded, UsageError, PassError; for targets with native kernels also DeviceError (no C compiler, no Triton),
    KernelBuildError and LoweringError.
    """
    return compile_with(model, target, shapes=shapes, passes=passes, options=options)


def compile_with(
    model: Model,
    target: str = "auto",
    *,
    shapes: Mapping[str, ShapeRequest] | None = None,
    passes: Pipeline | None = None,
    options: Options | None = None,
    instruments: Sequence[Instrument] = (),
    limit: int | None = None,
) -> Executable:
    """`compile` with instruments that look at the graph after each pass, and a limit on rewrites (to bisect)."""
    chosen, note = resolve_target(target)
    check_target(chosen)
    settings = options or Options()
    notes = [note] if note else []
    notes += _unavailable(settings, chosen)
    with collection_put_off():
        graph = _imported(model, shapes, settings)
        notes += _passed_over(graph, chosen)
        check_sizes(graph, settings.limits)  # before a pass computes anything of that size
        selected = passes if passes is not None else pipeline(chosen)
        known = KnownKernels()
        if triton_gpu(chosen) is not None and limit is None and passes is None and not has_entry_points():
            known = KnownKernels.of(graph, settings, selected, chosen, cache_folder(settings))
        outcome = run_passes(selected, graph, settings, chosen, instruments=instruments, limit=limit, known=known)
        lowered = lower(graph, _backend(chosen, settings, known), settings, outcome, notes=notes)
        known.keep()
        return lowered


def _passed_over(graph: Graph, target: str) -> list[str]:
    """A note on registered kernels that would take the place of an op's own, but on other targets."""
    names = sorted({node.op.name for inner in graph.all_graphs() for node in inner})
    found = {name: {t for kernel in KERNELS.for_op(name) for t in kernel.targets} for name in names}
    return [
        f"the kernels registered for {name} are for {', '.join(sorted(targets))}; {target} computes it with its own"
        for name, targets in found.items()
        if targets and target not in targets
    ]


def _backend(target: str, options: Options, known: KnownKernels) -> NumpyBackend:
    gpu = printed_gpu(target, options.also)
    if gpu is not None:
        # Modules for Triton kernels take as long to import as the rest of the compiler: other targets do without.
        from fusible.compiler.backends.triton.backend import TritonBackend  # noqa: PLC0415

        return TritonBackend(target, gpu, options.products(gpu), _tuning(target, options, gpu), known.kernels)
    if target == "cpu":
        from fusible.compiler.backends.cpu.backend import CpuBackend  # noqa: PLC0415 - large, and only for this target

        exact = options.exactness is Exactness.EXACT
        return CpuBackend(exact=exact, bf16=options.precision == "bf16")
    return NumpyBackend()


def _tuning(target: str, options: Options, gpu: GpuTarget) -> Tuning | None:
    """The lockfile of the options. Raises UsageError if there is none at that path."""
    if options.tuning is None:
        return None
    from fusible.compiler.backends.triton.tuned import Tuning  # noqa: PLC0415 - see `_backend`

    path = Path(options.tuning)
    if not path.is_file():
        raise UsageError(f"there is no tuning lockfile {str(path)!r}; `fusible tune` writes one")
    return Tuning(target, options.products(gpu), TuningLock.read(path), str(path))


def _unavailable(options: Options, target: str) -> list[str]:
    """Notes on options that a target cannot follow; UsageError for those that would change results."""
    computed = ("fp32", "bf16") if target == "cpu" else ("fp32",)
    if options.precision not in computed and triton_gpu(target) is None:
        does = f"the target {target} computes {' and '.join(computed)}"
        others = "cpu and targets with Triton kernels" if options.precision == "bf16" else "targets with Triton kernels"
        raise UsageError(f"precision {options.precision!r} is for {others}; {does}")
    if options.standalone and target == "numpy":
        raise UsageError("standalone=True needs a target with kernels: every step of the target numpy is Python")
    check_also(target, options.also)
    if options.tuning is not None and triton_gpu(target) is None:
        raise UsageError(f"tuning={str(options.tuning)!r} is for targets with Triton kernels, and {target} is none")
    notes = []
    if options.threads is not None and target == "numpy":
        notes.append(f"threads={options.threads} has no effect: NumPy's BLAS decides (see OPENBLAS_NUM_THREADS)")
    if options.threads is not None and target in GPU_TARGETS:
        notes.append(f"threads={options.threads} has no effect: kernels run on a GPU")
    if options.verify == "kernels" and target != TRITON_CPU:
        notes.append(f"verify='kernels' checks the graph alone: accesses are checked on {TRITON_CPU}")
    return notes
