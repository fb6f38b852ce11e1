"""Printed kernels on the CPU in checking mode: TTIR to C, every access in its buffer, one program for each element."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fusible.compiler.backends.triton.aot import ttir_text
from fusible.compiler.backends.triton.gpu_targets import GpuTarget, gpu_target
from fusible.compiler.backends.triton.kernel import build_kernel
from fusible.compiler.backends.triton.lower import lower_ttir
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.ir.symbol_values import evaluate
from fusible.compiler.region.region import Buffer
from tests.compiler.triton.workspaces import workspace_of
from tests.tolerance import poisoned

__all__ = ["run_checked"]


def run_checked(
    kernel: PrintedKernel,
    outputs: Sequence[Buffer],
    inputs: Sequence[np.ndarray],
    env: Mapping[str, int] | None = None,
    target: GpuTarget | None = None,
) -> list[np.ndarray]:
    """What a kernel writes into poisoned outputs. Raises ExecutionError for what checking finds."""
    known = dict(env or {})
    results = [poisoned(tuple(int(evaluate(d, known)) for d in b.shape), b.dtype.numpy) for b in outputs]
    rule = kernel.rule
    text = ttir_text(kernel, target or gpu_target("h100"))
    built = build_kernel(lower_ttir(text, checked=True))
    numbers = rule.numbers(known)
    programs = rule.programs(known)
    buffers = iter([*inputs, *results, *workspace_of(rule, programs).values()])
    given = [numbers[a.name] if a.dim is not None else next(buffers) for a in rule.arguments]
    if programs:
        built((programs,), *given)
    return results
