"""Any region, and any node that has none, that can be one Triton kernel: which printer takes it."""

from __future__ import annotations

from collections.abc import Collection

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.attention import print_attention
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.printer import PrintedKernel, print_region
from fusible.compiler.backends.triton.recurrent import RECURRENT, print_recurrent
from fusible.compiler.backends.triton.schedule import schedule
from fusible.compiler.backends.triton.top_k import print_top_k
from fusible.compiler.ir.graph import Node
from fusible.compiler.region.region import Region

__all__ = ["print_kernel", "print_node"]


def print_kernel(region: Region, target: GpuTarget, constants: Collection[int] = ()) -> PrintedKernel:
    """The kernel of a region on a GPU; constants: the inputs whose content is known. Raises NotPrintable."""
    del constants  # only contractions store them anew
    if len(region.contractions) == 2:
        return print_attention(region, target)
    if region.contractions:
        raise NotPrintable("it contains a contraction")
    return print_region(region, schedule(region, target))


def print_node(node: Node, target: GpuTarget) -> PrintedKernel | None:
    """The kernel of a node whose op has a template of its own; None for ops that have none. Raises NotPrintable.

    Arguments are the inputs that are there, then the outputs, then numbers.
    """
    if node.op.name in RECURRENT:
        return print_recurrent(node, target)
    if node.op.name == "top_k":
        return print_top_k(node)
    return None
