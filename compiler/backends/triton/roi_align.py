"""`roi_align` as a Triton kernel: the template of kernels/triton/roi_align.py with the attributes of a node."""

from __future__ import annotations

from collections.abc import Mapping

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.grid_sample import channels_last
from fusible.compiler.backends.triton.launch import AccessFact, LaunchRule
from fusible.compiler.backends.triton.node_kernel import NodeKernel, kernel_source, tensor_of
from fusible.compiler.backends.triton.print_expr import literal_text
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.opset.image import RoiAlignAttrs
from fusible.compiler.ir.symbols import Dim, bounds_of, product
from fusible.compiler.ir.types import DType
from fusible.compiler.region.reorder import Order

__all__ = ["ROI_ALIGN", "print_roi_align"]

ROI_ALIGN = "roi_align"
"""The op."""

_FLOATS = (DType.F32, DType.F16, DType.BF16)
_BLOCK, _WARPS = 128, 4


def print_roi_align(node: Node, orders: Mapping[Value, Order], name: str = "kernel") -> PrintedKernel:
    """The kernel of a `roi_align` node. Raises NotPrintable with what it does not take.

    orders: how values are stored that are not row-major. A region whose image is none gets zeros.
    """
    attrs, (image, rois, numbers), result = node.attrs, node.inputs, node.outputs[0]
    assert isinstance(attrs, RoiAlignAttrs) and image is not None and rois is not None and numbers is not None
    kinds = [tensor_of(v).dtype for v in (image, rois, numbers)]
    shape, pooled = tensor_of(image).shape, tensor_of(result).shape
    assert shape is not None and pooled is not None
    if kinds[0] not in _FLOATS or kinds[1] not in _FLOATS or not kinds[2].is_integer:
        raise NotPrintable(f"it reads {kinds[0].value} at places in {kinds[1].value}")
    if rois in orders or numbers in orders:
        raise NotPrintable("its regions are not stored row by row")
    if any((bounds_of(d)[0] or 0) < 1 for d in shape[2:]):
        raise NotPrintable("its image may have no pixels")
    sizes: dict[str, Dim] = dict(zip(("batch", "channels", "height", "width"), shape, strict=True))
    sizes |= {"regions": pooled[0], "bins_h": pooled[2], "bins_w": pooled[3]}
    kernel = NodeKernel.of(node, sizes)
    half_pixel = attrs.coordinate_transformation_mode == "half_pixel"
    body = [
        "roi_align(",
        f"    {kernel.program()}, x0, x1, x2, y0, {', '.join(kernel.size(n) for n in sizes)},",
        f"    {literal_text(attrs.spatial_scale, DType.F32)}, {attrs.sampling_ratio}, {attrs.mode == 'avg'},",
        f"    {half_pixel}, {channels_last(orders.get(image), 2)}, {channels_last(orders.get(result), 2)}, BLOCK,",
        ")",
    ]
    arguments = kernel.arguments()
    parameters = [*(a.name for a in arguments), "BLOCK: tl.constexpr"]
    source = kernel_source(f"roi_align of {kinds[0].value}", "roi_align", ["roi_align"], [], parameters, body, name)
    facts = (
        AccessFact("x0", kinds[0], False, None, True),
        AccessFact("x1", kinds[1], False, None, True),
        AccessFact("x2", kinds[2], False, None, True),
        AccessFact("y0", kinds[0], True, 1, True),
    )
    rule = LaunchRule(name, arguments, {"BLOCK": _BLOCK}, facts, ((product(pooled), _BLOCK),), _WARPS, 1)
    return PrintedKernel(source, rule)
