"""Non-maximum suppression as a call of suppress.h: sizes go in when it is called, the limits are literals."""

from __future__ import annotations

from fusible.compiler.backends.cpu.c_kinds import c_float
from fusible.compiler.backends.cpu.c_library import LibraryCall, exported, in_scratch, shape_in, unless
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.opset.selection import NonMaxSuppressionAttrs
from fusible.compiler.ir.types import DType

__all__ = ["suppression_call"]


def suppression_call(node: Node, name: str) -> LibraryCall:
    """The call for a `suppressed_rows` node of f32. Raises NotPrintable with what the kernel does not do."""
    attrs, (boxes, scores) = node.attrs, node.inputs
    assert isinstance(attrs, NonMaxSuppressionAttrs) and boxes is not None and scores is not None
    images, own, corners = shape_in(boxes, DType.F32)
    batch, classes, n = shape_in(scores, DType.F32)
    if corners != 4:
        raise NotPrintable(f"a box has {corners} numbers")
    lines = [
        "struct suppress call = {.boxes = buffers[0], .scores = buffers[1], .rows = buffers[2], .count = buffers[3],",
        "    .batch = dims[0], .classes = dims[1], .n = dims[2], .pool = pool,",
        f"    .most = long_min({max(attrs.max_output_boxes_per_class, 0)}, dims[2]),",
        f"    .iou = {c_float(attrs.iou_threshold)}, .least = {c_float(attrs.score_threshold or 0.0)},",
        f"    .has_least = {int(attrs.score_threshold is not None)}, .centred = {int(attrs.center_point_box)}}};",
        *unless("dims[3] == dims[0] && dims[4] == dims[2] && suppress_fits(&call)"),
        *in_scratch("suppress_floats(&call)", ["suppress_run(&call, scratch);"]),
    ]
    return LibraryCall(exported(name, lines), (batch, classes, n, images, own), (boxes, scores), {})
