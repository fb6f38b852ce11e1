"""`grid_sample` as a Triton kernel: the template of kernels/triton/grid_sample.py with the modes of a node."""

from __future__ import annotations

from collections.abc import Mapping

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.launch import AccessFact, LaunchRule
from fusible.compiler.backends.triton.node_kernel import NodeKernel, kernel_source, tensor_of
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.opset.image import GridSampleAttrs
from fusible.compiler.ir.symbols import Dim, bounds_of, product
from fusible.compiler.ir.types import DType, Shape
from fusible.compiler.region.reorder import Order

__all__ = ["GRID_SAMPLE", "channels_last", "print_grid_sample"]

GRID_SAMPLE = "grid_sample"
"""The op."""

_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
_FLOATS = (DType.F32, DType.F16, DType.BF16)
_BLOCK, _WARPS = 256, 4


def print_grid_sample(node: Node, orders: Mapping[Value, Order], name: str = "kernel") -> PrintedKernel:
    """The kernel of a `grid_sample` node over two or three dimensions. Raises NotPrintable with what it does not take.

    orders: how values are stored that are not row-major.
    """
    attrs, (image, grid), result = node.attrs, node.inputs, node.outputs[0]
    assert isinstance(attrs, GridSampleAttrs) and image is not None and grid is not None
    kind, coordinates = tensor_of(image).dtype, tensor_of(grid).dtype
    shape, points = _shape(image), product(_shape(grid)[1:-1])
    rank = len(shape) - 2
    if rank not in (2, 3):
        raise NotPrintable(f"its image has {rank} dimensions")
    if coordinates not in _FLOATS or (attrs.mode != "nearest" and kind not in _FLOATS):
        raise NotPrintable(f"it interpolates {kind.value} at places in {coordinates.value}")
    if grid in orders:
        raise NotPrintable("its places are not stored row by row")
    if any((bounds_of(d)[0] or 0) < 1 for d in shape[2:]):
        raise NotPrintable("its image may have no pixels")
    sizes: dict[str, Dim] = {"batch": shape[0], "channels": shape[1], "depth": shape[2] if rank == 3 else 1}
    sizes |= {"height": shape[-2], "width": shape[-1], "points": points}
    kernel = NodeKernel.of(node, sizes)
    body = [
        "grid_sample(",
        f"    {kernel.program()}, x0, x1, y0, {', '.join(kernel.size(n) for n in sizes)},",
        f'    {rank}, {_TAPS[attrs.mode]}, "{attrs.padding_mode}", {attrs.align_corners},',
        f"    {channels_last(orders.get(image), rank)}, {channels_last(orders.get(result), rank)}, BLOCK,",
        ")",
    ]
    arguments = kernel.arguments()
    parameters = [*(a.name for a in arguments), "BLOCK: tl.constexpr"]
    title = f"grid_sample, {attrs.mode}, of {kind.value}"
    source = kernel_source(title, "grid_sample", ["grid_sample"], [], parameters, body, name)
    facts = (
        AccessFact("x0", kind, False, None, True),
        AccessFact("x1", coordinates, False, None, True),
        AccessFact("y0", kind, True, 1, True),
    )
    blocks = ((product((shape[0], shape[1], points)), _BLOCK),)
    return PrintedKernel(source, LaunchRule(name, arguments, {"BLOCK": _BLOCK}, facts, blocks, _WARPS, 1))


def _shape(value: Value) -> Shape:
    shape = tensor_of(value).shape
    assert shape is not None
    return shape


def channels_last(order: Order | None, rank: int) -> bool:
    """True for channels that are stored last, behind `rank` dimensions. Raises NotPrintable for other orders."""
    if order is None:
        return False
    if order != (0, *range(2, rank + 2), 1):
        raise NotPrintable("an operand is stored in another order than channels first or last")
    return True
