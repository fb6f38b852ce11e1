"""Any region, and any node that has none, that can be one Triton kernel: which printer takes it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.attention import print_attention
from fusible.compiler.backends.triton.contraction import Contraction, Unsuited, contraction_of, sum_orders
from fusible.compiler.backends.triton.contraction_printer import print_product, sizes_of
from fusible.compiler.backends.triton.dequantised import as_stored, whole_depth
from fusible.compiler.backends.triton.dynamic_quantisation import print_dynamic_quantisation
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.printer import PrintedKernel, print_region
from fusible.compiler.backends.triton.recurrent import RECURRENT, print_recurrent
from fusible.compiler.backends.triton.resize import print_resize
from fusible.compiler.backends.triton.scatter import SCATTERS, print_scatter
from fusible.compiler.backends.triton.schedule import schedule
from fusible.compiler.backends.triton.schedule_contraction import Sizes, schedule_contraction
from fusible.compiler.backends.triton.top_k import print_top_k
from fusible.compiler.ir.definition import Opaque
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.ir.types import DType
from fusible.compiler.region.region import Contract, Region
from fusible.compiler.region.reorder import Order, reordered
from fusible.compiler.region.sums import contractions_as_sums
from fusible.compiler.region.unrolled import unrolled

__all__ = ["print_kernel", "print_node"]

_DYNAMIC = "dynamic_quantize_linear"
_FEWEST = 8  # rows, columns or terms for which a tile is worth its while
_MANY = 64  # of the others, so that fewer rows or columns than that, but not one, still are worth it
_READ_AGAIN = 64  # how often a sum may read each element of its operands
_FEW_TERMS = 2**18  # fewer may be summed up in any way


def print_kernel(
    region: Region, target: GpuTarget, constants: Collection[int] = (), *, precision: str = "ieee"
) -> PrintedKernel:
    """The kernel of a region on a GPU.

    constants: the inputs whose content is known, which may be stored anew (`PrintedKernel.repacked`). precision: how
    matrix units multiply f32: `ieee` or `tf32`. Raises NotPrintable, with the reason.
    """
    if not region.contractions:
        return print_region(region, schedule(region, target))
    if len(region.contractions) == 2:
        return print_attention(region, target, precision=precision)
    if len(region.contractions) > 1:
        raise NotPrintable("it contains several contractions")
    region, half, packed = as_stored(region, constants, target)
    try:
        contraction = contraction_of(region, constants, depth_last=precision == "tf32", half=half)
        _check_worth(contraction)
    except Unsuited as unsuited:
        return replace(_summed(region, target, constants, unsuited, half), packed=packed)
    made = schedule_contraction(sizes_of(contraction), contraction.kind, precision, target)
    if half is not None:
        made = whole_depth(made)
    return replace(print_product(contraction, made, precision), packed=packed)


def print_node(node: Node, target: GpuTarget, orders: Mapping[Value, Order] | None = None) -> PrintedKernel | None:
    """The kernel of a node whose op has a template of its own; None for ops that have none.

    orders: how values are stored that are not row-major. Arguments of the kernel are the inputs that are there, then
    the outputs, then numbers. Raises NotPrintable.
    """
    stored = orders or {}
    if node.op.name == "resize" and isinstance(node.op.definition(node), Opaque):  # others are views: regions
        return print_resize(node, stored)
    if node.op.name not in ("top_k", _DYNAMIC, *SCATTERS, *RECURRENT):
        return None
    if any(v in stored for v in (*node.inputs, *node.outputs) if v is not None):
        raise NotPrintable("an operand is stored with its channels last")
    if node.op.name == _DYNAMIC:
        return print_dynamic_quantisation(node)
    if node.op.name in SCATTERS:
        return print_scatter(node)
    return print_top_k(node) if node.op.name == "top_k" else print_recurrent(node, target)


def _check_worth(contraction: Contraction) -> None:
    """Raise Unsuited for products whose tiles would be mostly padding, unless a large operand is read once for it."""
    sizes: Sizes = sizes_of(contraction)
    points = {"rows": sizes.rows, "columns": sizes.columns, "terms": sizes.depth}
    few = {what: p for what, p in points.items() if isinstance(p, int) and p < _FEWEST}
    many = all(not isinstance(p, int) or p >= _MANY for what, p in points.items() if what not in few)
    if sizes.batch == 0 or 0 in few.values():
        raise Unsuited("its product is empty")
    if len(few) > 1 or 1 in few.values() or "terms" in few or (few and not many):
        raise Unsuited("its product has " + " and ".join(f"{p} {what}" for what, p in few.items()))


def _summed(
    region: Region, target: GpuTarget, constants: Collection[int], why: Unsuited, half: int | None = None
) -> PrintedKernel:
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
    summed = contractions_as_sums(reordered(region, orders, {}))
    if half is not None:
        summed = unrolled(summed, half)
    return replace(print_region(summed, schedule(summed, target)), repacked=orders)


def _literal(dim: Dim) -> int:
    return dim if isinstance(dim, int) else 0
