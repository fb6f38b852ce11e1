"""Run a pipeline on a graph under `Options`, and turn its ledger into the report's data."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from fusible.compiler.accuracy import compare, kernel_bound
from fusible.compiler.backends.cpu.native import native_refusal
from fusible.compiler.backends.cpu.refusals import Refusals
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.types import DType
from fusible.compiler.known_kernels import KnownKernels
from fusible.compiler.options import Options
from fusible.compiler.outcome import Outcome
from fusible.compiler.targets import printed_gpu
from fusible.passes.base import PassContext
from fusible.passes.exactness import Exactness
from fusible.passes.instruments import Instrument, Timing, Verify
from fusible.passes.ledger import Kind, Ledger
from fusible.passes.manager import Pipeline
from fusible.passes.multiply_bytes import FAST_BYTES
from fusible.passes.packed_weights import DEQUANTISING, READS_PACKED
from fusible.runtime.native.machine import instruction_sets

__all__ = ["compare_rewrite", "run_passes"]

_VNNI = frozenset({"avx512_vnni", "avx_vnni"})  # four products of bytes a lane, added up in int32

# A rewritten piece may hold a whole chain of reductions, so it gets the row of long accumulations.
_REWRITE_ACCUMULATION = 4096


def run_passes(
    pipeline: Pipeline,
    graph: Graph,
    options: Options,
    target: str,
    *,
    instruments: Sequence[Instrument] = (),
    limit: int | None = None,
    known: KnownKernels | None = None,
) -> Outcome:
    """Run the pipeline; `limit` bounds the number of applications (to bisect).

    known: answers about Triton kernels that are there, and are added to.

    Raises PassError, VerifyError (the imported graph itself), LimitExceeded("compile_seconds").
    """
    seconds = options.limits.compile_seconds
    context = PassContext(
        ledger=Ledger(),
        exactness=options.exactness,
        fold_bytes=options.fold_bytes,
        limit=limit,
        deadline=time.monotonic() + seconds,
        compile_seconds=seconds,
        verify="passes" if options.verify == "kernels" else options.verify,
        compare=compare_rewrite,
        target={"name": target, **_printable(target, options, known or KnownKernels()), **_precision(options)},
        loop_iterations=options.limits.unbounded_iterations,
    )
    timing = Timing()
    watching: list[Instrument] = [timing, *instruments]
    if options.verify != "off":
        watching.append(Verify())
    pipeline.run(graph, context, watching)
    return _outcome(context.ledger, timing)


def _printable(target: str, options: Options, known: KnownKernels) -> dict[str, object]:
    """What kernels of a target can be printed for, if passes shall ask, and whether they unpack what they read."""
    gpu = printed_gpu(target, options.also)
    if gpu is not None:
        # Other targets do without these modules.
        from fusible.compiler.backends.triton.dequantised_apart import dequantising_seconds  # noqa: PLC0415
        from fusible.compiler.backends.triton.regions import triton_refusal  # noqa: PLC0415

        printable = Refusals(partial(triton_refusal, target=gpu, precision=options.products(gpu)), known.refusals)
        apart = partial(dequantising_seconds, target=gpu, precision=options.products(gpu))
        own = frozenset({"dynamic_quantize_linear"})
        return {"printable": printable, READS_PACKED: True, DEQUANTISING: apart, "own_kernels": own}
    if target != "cpu":
        return {}
    return {"printable": Refusals(native_refusal), FAST_BYTES: not _VNNI.isdisjoint(instruction_sets().split())}


def _precision(options: Options) -> dict[str, DType]:
    """The element type that kernels compute with, if it is not that of the model."""
    wanted = {"fp16": DType.F16, "bf16": DType.BF16}
    return {"precision": wanted[options.precision]} if options.precision in wanted else {}


def compare_rewrite(reference: np.ndarray, got: np.ndarray, exactness: Exactness) -> str | None:
    """What is wrong with a rewrite's result, or None: bit-equality for EXACT, else the kernel bounds."""
    if exactness is Exactness.EXACT and reference.dtype.kind in "fc":
        if reference.shape == got.shape and np.array_equal(reference, got, equal_nan=True):
            return None
        verdict = compare(reference, got, kernel_bound(reference.dtype))
        return f"not bit-equal: {verdict.reason or f'greatest scaled error {verdict.max_error:.2e}'}"
    verdict = compare(reference, got, kernel_bound(reference.dtype, _REWRITE_ACCUMULATION))
    return None if verdict else verdict.reason


def _outcome(ledger: Ledger, timing: Timing) -> Outcome:
    rows = tuple(e.to_json() for e in ledger)
    done = (str(Kind.FIRED), str(Kind.FUSED))
    return Outcome(
        fusions=tuple(r for r in rows if r["kind"] in done),
        refusals=tuple(r for r in rows if r["kind"] not in done),
        passes=tuple(
            {"pass": s.name, "phase": str(s.phase), "changes": s.changes, "seconds": s.seconds} for s in timing.steps
        ),
        notes=tuple(str(e) for e in ledger.select(Kind.LOUD)),
    )
