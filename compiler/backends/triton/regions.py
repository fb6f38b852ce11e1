"""Nodes as Triton kernels: their region over buffers as values are stored, and the source of its kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusible.compiler.backends.cpu.native import Storage, likely_storage, seen
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.f32_products import IEEE
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.print_kernel import design_of, print_kernel
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.backends.triton.tuned import Tuning
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.region.build import Built, NoRegion, build_region
from fusible.compiler.region.group import home_of

__all__ = ["kernel_of", "triton_refusal"]


def kernel_of(
    nodes: Sequence[Node],
    outputs: Sequence[Value],
    inputs: Sequence[Value],
    given: Mapping[Value, Value],
    storage: Storage,
    target: GpuTarget,
    precision: str = IEEE,
    tuning: Tuning | None = None,
) -> tuple[Built, PrintedKernel]:
    """The region of some nodes, and its kernel; arguments as for the `kernel_of` of the target cpu.

    precision: how products of f32 are multiplied, as `print_kernel` has it. tuning: what its configuration is looked up
    in. Raises NoRegion, NotPrintable, UsageError for a configuration that cannot be.
    """
    stored, constants = seen(nodes, outputs, inputs, given, storage)
    built = build_region(nodes, outputs, inputs=inputs, home=home_of(nodes, outputs), inline_scalars=True)
    region = stored.region(built.region, built.inputs, built.outputs)
    known = [n for n, v in enumerate(built.inputs) if v in constants]
    found = Built(region, built.inputs, built.outputs)
    if tuning is None:
        return found, print_kernel(region, target, known, precision=precision)
    return found, tuning.kernel(design_of(region, target, known, precision=precision), region, known, nodes)


def triton_refusal(
    nodes: Sequence[Node], outputs: Sequence[Value], target: GpuTarget, precision: str = IEEE
) -> str | None:
    """Why no Triton kernel can be printed for some nodes together, or None. Triton itself is not asked."""
    try:
        kernel_of(nodes, outputs, [], {}, likely_storage(nodes, outputs), target, precision)
    except (NoRegion, NotPrintable) as refusal:
        return str(refusal)
    return None
