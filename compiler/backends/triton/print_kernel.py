"""Any region that can be one Triton kernel: which printer takes it."""

from __future__ import annotations

from collections.abc import Collection

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.attention import print_attention
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.printer import PrintedKernel, print_region
from fusible.compiler.backends.triton.schedule import schedule
from fusible.compiler.region.region import Region

__all__ = ["print_kernel"]


def print_kernel(region: Region, target: GpuTarget, constants: Collection[int] = ()) -> PrintedKernel:
    """The kernel of a region on a GPU; constants: the inputs whose content is known. Raises NotPrintable."""
    del constants  # only contractions store them anew
    if len(region.contractions) == 2:
        return print_attention(region, target)
    if region.contractions:
        raise NotPrintable("it contains a contraction")
    return print_region(region, schedule(region, target))
