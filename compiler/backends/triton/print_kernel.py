"""Any region, and any node that has none, that can be one Triton kernel: which printer takes it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.attention import attention_products
from fusible.compiler.backends.triton.contraction import Contraction, Unsuited, contraction_of, stages_of, sum_orders
from fusible.compiler.backends.triton.contraction_printer import sizes_of
from fusible.compiler.backends.triton.dequantised import as_stored, packed_alone
from fusible.compiler.backends.triton.designs import (
    AnyDesign,
    AttentionDesign,
    ProductDesign,
    RegionDesign,
)
from fusible.compiler.backends.triton.dynamic_quantisation import print_dynamic_quantisation
from fusible.compiler.backends.triton.extents import EXTENTS, print_extents
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.grid_sample import GRID_SAMPLE, print_grid_sample
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.backends.triton.quantised_recurrent import QUANTISED_RECURRENT, print_quantised_recurrent
from fusible.compiler.backends.triton.recurrent import RECURRENT, print_recurrent
from fusible.compiler.backends.triton.resize import print_resize
from fusible.compiler.backends.triton.roi_align import ROI_ALIGN, print_roi_align
from fusible.compiler.backends.triton.scatter import SCATTERS, print_scatter
from fusible.compiler.backends.triton.schedule_contraction import ContractionSchedule, Sizes
from fusible.compiler.backends.triton.top_k import print_top_k
from fusible.compiler.ir.definition import Opaque
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.ir.types import DType
from fusible.compiler.region.multiply_add import with_multiply_add
from fusible.compiler.region.paired import are_paired
from fusible.compiler.region.region import Contract, Load, Region
from fusible.compiler.region.reorder import Order, reordered
from fusible.compiler.region.sums import contractions_as_sums
from fusible.compiler.region.unroll import unrolled
from fusible.compiler.region.unrolled_axis import unrolled_axis

__all__ = ["design_of", "print_kernel", "print_node"]

_DYNAMIC = "dynamic_quantize_linear"
_FEWEST = 8  # rows, columns or terms for which a tile is worth its while
_MANY = 64  # of the others, so that fewer rows or columns than that, but not one, still are worth it
_READ_AGAIN = 64  # how often a sum may read each element of its operands
_WINDOW = 9  # points of a window that may be folded in front of a product
_FEW_TERMS = 2**18  # fewer may be summed up in any way


def print_kernel(
    region: Region, target: GpuTarget, constants: Collection[int] = (), *, precision: str = "ieee"
) -> PrintedKernel:
    """The kernel of a region on a GPU.

    constants: the inputs whose content is known, which may be stored anew (`PrintedKernel.repacked`). precision: how
    f32 is multiplied where it is worth it: `ieee`, `tf32` or `tf32x3`. Raises NotPrintable, with the reason.
    """
    return design_of(region, target, constants, precision=precision).by_static()


def design_of(
    region: Region, target: GpuTarget, constants: Collection[int] = (), *, precision: str = "ieee"
) -> AnyDesign:
    """What kind of kernel a region becomes; arguments as for `print_kernel`. Raises NotPrintable, with the reason."""
    if not region.contractions:
        region, packed = packed_alone(region, constants)
        return RegionDesign(region, target, packed=packed)
    if len(region.contractions) == 2:
        together = _paired(region, target, constants)
        return together or AttentionDesign(region, target, attention_products(region, precision))
    if len(region.contractions) > 1:
        raise NotPrintable("it contains several contractions")
    region, half, packed = as_stored(region, constants, target)
    windows = region if half is not None else unrolled(region, _WINDOW)
    try:
        contraction = contraction_of(windows, constants, precision=precision, half=half)
        _check_worth(contraction, constants)
    except Unsuited as unsuited:
        return replace(_summed(region, target, constants, unsuited, half), packed=packed)
    design = ProductDesign(contraction, target, contraction.precision, packed, windows, frozenset(constants))
    if windows is not region:
        _check_windows(contraction, design.static())
    return design


def print_node(node: Node, target: GpuTarget, orders: Mapping[Value, Order] | None = None) -> PrintedKernel | None:
    """The kernel of a node whose op has a template of its own; None for ops that have none.

    orders: how values are stored that are not row-major. Arguments of the kernel are the inputs that are there, then
    the outputs, then numbers. Raises NotPrintable.
    """
    stored = orders or {}
    if node.op.name == "resize" and isinstance(node.op.definition(node), Opaque):  # others are views: regions
        return print_resize(node, stored)
    if node.op.name == EXTENTS:
        return print_extents(node)
    if node.op.name == GRID_SAMPLE:
        return print_grid_sample(node, stored)
    if node.op.name == ROI_ALIGN:
        return print_roi_align(node, stored)
    if node.op.name == EXTENTS:
        return print_extents(node)
    if node.op.name not in ("top_k", _DYNAMIC, QUANTISED_RECURRENT, *SCATTERS, *RECURRENT):
        return None
    if any(v in stored for v in (*node.inputs, *node.outputs) if v is not None):
        raise NotPrintable("an operand is stored with its channels last")
    if node.op.name == _DYNAMIC:
        return print_dynamic_quantisation(node)
    if node.op.name in SCATTERS:
        return print_scatter(node)
    if node.op.name == QUANTISED_RECURRENT:
        return print_quantised_recurrent(node)
    return print_top_k(node) if node.op.name == "top_k" else print_recurrent(node, target)


def _check_windows(contraction: Contraction, schedule: ContractionSchedule) -> None:
    """Raise NotPrintable if windows in front of a product would be folded again for other columns or rows of it."""
    sizes, region = sizes_of(contraction), contraction.region
    folded = {v for v in (contraction.left, contraction.right) if len(stages_of(region, (v,), -1)) > 1}
    again = [
        (sizes.columns, schedule.block_n) if v == contraction.left else (sizes.rows, schedule.block_m) for v in folded
    ]
    if not all(isinstance(points, int) and points <= block for points, block in again):
        raise NotPrintable("the windows in front of its product would be folded again for every block of it")


def _check_worth(contraction: Contraction, constants: Collection[int]) -> None:
    """Raise Unsuited for products whose tiles would be mostly padding, unless a large operand is read once for it."""
    sizes: Sizes = sizes_of(contraction)
    points = {"rows": sizes.rows, "columns": sizes.columns, "terms": sizes.depth}
    few = {what: p for what, p in points.items() if isinstance(p, int) and p < _FEWEST}
    many = all(not isinstance(p, int) or p >= _MANY for what, p in points.items() if what not in few)
    if sizes.batch == 0 or 0 in few.values():
        raise Unsuited("its product is empty")
    if few == {"rows": 1} and many and _lies_by_columns(contraction, constants):
        return
    if len(few) > 1 or 1 in few.values() or "terms" in few or (few and not many):
        raise Unsuited("its product has " + " and ".join(f"{p} {what}" for what, p in few.items()))


def _lies_by_columns(contraction: Contraction, constants: Collection[int]) -> bool:
    """True if the right operand is computed in each run, and lies so that neighbours along the columns are adjacent.

    As a sum it would be read across, each element apart from the next; constants are stored as a sum wants them.
    """
    tile, region = contraction.tile, contraction.region
    positions = [n for n in stages_of(region, [contraction.right]) if isinstance(region.stages[n], Load)]
    loads = [a for n in positions if tile.spread(((a := tile.nest.loads[n]).offset,))[1]]
    return bool(loads) and all(tile.step(a, tile.columns[-1]) == 1 and a.buffer not in constants for a in loads)


def _summed(
    region: Region, target: GpuTarget, constants: Collection[int], why: Unsuited, half: int | None = None
) -> RegionDesign:
    """The contraction as a sum, if that does not read its operands all too often. Raises NotPrintable."""
    (position,) = region.contractions
    contract = region.stages[position]
    assert isinstance(contract, Contract)
    terms = product(region.extents)
    read = sum(_literal(product(b.shape)) for b in (*region.inputs, *region.outputs))
    exact = contract.dtype in (DType.F64, *(d for d in DType if d.is_integer))
    if not exact and isinstance(terms, int) and terms > _FEW_TERMS and terms > _READ_AGAIN * read:
        raise NotPrintable(f"{why}, and as a sum it would read each element {terms // max(read, 1)} times")
    orders = sum_orders(region, constants)
    summed = contractions_as_sums(with_multiply_add(reordered(region, orders, {})))
    if half is not None:
        summed = unrolled_axis(summed, half)
    return RegionDesign(summed, target, orders)


def _paired(region: Region, target: GpuTarget, constants: Collection[int]) -> RegionDesign | None:
    """Two products of one vector by constants that nothing packs, as sums of one kernel; None for others."""
    if not are_paired(region) or any(buffer.dtype in (DType.I4, DType.U4) for buffer in region.inputs):
        return None
    orders = sum_orders(region, constants)
    return RegionDesign(contractions_as_sums(reordered(region, orders, {})), target, orders)


def _literal(dim: Dim) -> int:
    return dim if isinstance(dim, int) else 0
