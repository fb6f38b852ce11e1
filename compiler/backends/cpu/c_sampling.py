"""Reading images between pixels as calls of grid_sample.h and roi_align.h: modes are literals, sizes are dims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusible.compiler.backends.cpu.c_kinds import c_float
from fusible.compiler.backends.cpu.c_library import LibraryCall, exported, shape_in, unless
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.opset.image import GridSampleAttrs, RoiAlignAttrs
from fusible.compiler.ir.types import DType
from fusible.compiler.region.reorder import Order

__all__ = ["grid_sample_call", "roi_align_call"]

_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
_CHANNELS_LAST = (0, 2, 3, 1)


def grid_sample_call(node: Node, name: str, orders: Mapping[Value, Order]) -> LibraryCall:
    """The call for a `grid_sample` node of images [N, C, H, W] in f32. Raises NotPrintable with what it does not take.

    orders: how values are stored that are not row-major; the places may be stored as if the row were their channel.
    """
    attrs, (image, grid), result = node.attrs, node.inputs, node.outputs[0]
    assert isinstance(attrs, GridSampleAttrs) and image is not None and grid is not None
    shape, places = shape_in(image, DType.F32), shape_in(grid, DType.F32)
    if len(shape) != 4:
        raise NotPrintable(f"its images have {len(shape) - 2} dimensions")
    padding, planes, taps = f"GRID_{attrs.padding_mode.upper()}", int(image not in orders), _TAPS[attrs.mode]
    x = _strides(orders.get(image), ("image", "channel", "row", "pixel"), ("dims[1]", "dims[2]", "dims[3]"))
    at = _strides(orders.get(grid), ("image", "row", "pixel", "coordinate"), ("dims[5]", "dims[6]", "2"))
    y = _strides(orders.get(result), ("image", "channel", "row", "pixel"), ("dims[1]", "dims[5]", "dims[6]"))
    sizes = ("images", "channels", "height", "width", None, "out_height", "out_width")
    members = {"x": "buffers[0]", "grid": "buffers[1]", "y": "buffers[2]"}
    members |= {"align_corners": f"{int(attrs.align_corners)}"}
    members |= {size: f"dims[{n}]" for n, size in enumerate(sizes) if size}
    members |= _named("x", x) | _named("grid", at) | _named("y", y)
    lines = [
        *_struct("struct grid_sample g", members),
        *unless(f"dims[4] == dims[0] && dims[7] == 2 && grid_sample_fits({padding}, &g)"),
        f"grid_sample_cut({taps}, &g, pool_threads(pool));",
        f"pool_run(pool, {name}_item, &g, grid_sample_items(&g));",
    ]
    task = f"grid_sample_item({taps}, {padding}, {planes}, g, item)"
    return LibraryCall(_function(name, "g", task, lines), (*shape, *places), (image, grid), {})


def roi_align_call(node: Node, name: str, orders: Mapping[Value, Order]) -> LibraryCall:
    """The call for a `roi_align` node of images [N, C, H, W] in f32. Raises NotPrintable with what it does not take.

    orders: how values are stored that are not row-major.
    """
    attrs, (image, rois, numbers), result = node.attrs, node.inputs, node.outputs[0]
    assert isinstance(attrs, RoiAlignAttrs) and image is not None and rois is not None and numbers is not None
    shape, boxes, count = shape_in(image, DType.F32), shape_in(rois, DType.F32), shape_in(numbers, DType.I64)
    planes, mode = int(image not in orders), "ROI_MEAN" if attrs.mode == "avg" else "ROI_LARGEST"
    bins = (f"{attrs.output_height}", f"{attrs.output_width}")
    x = _strides(orders.get(image), ("image", "channel", "row", "pixel"), ("dims[1]", "dims[2]", "dims[3]"))
    y = _strides(orders.get(result), ("region", "channel", "row", "pixel"), ("dims[1]", *bins))
    sizes = ("images", "channels", "height", "width", "regions")
    members = {"x": "buffers[0]", "rois": "buffers[1]", "numbers": "buffers[2]", "y": "buffers[3]"}
    members |= {size: f"dims[{n}]" for n, size in enumerate(sizes)}
    members |= {"bins_height": bins[0], "bins_width": bins[1], "ratio": f"{attrs.sampling_ratio}"}
    members |= {"scale": c_float(attrs.spatial_scale)}
    members |= {"half_pixel": f"{int(attrs.coordinate_transformation_mode == 'half_pixel')}"}
    members |= _named("x", x) | _named("y", y) | {"error": "error", "pool": "pool"}
    lines = [
        *_struct("struct roi_align r", members),
        *unless("dims[5] == 4 && dims[6] == dims[4]"),
        "const long threads = pool_threads(pool);",
        "roi_align_cut(&r, threads);",
        "if (!scratch_get(&r.scratch, roi_align_scratch_floats(&r, threads), error)) return;",
        f"pool_run(pool, {name}_item, &r, roi_align_items(&r));",
        "scratch_give(r.scratch);",
    ]
    task = f"roi_align_item({mode}, {planes}, r, item)"
    return LibraryCall(_function(name, "r", task, lines), (*shape, *boxes, *count), (image, rois, numbers), {})


def _strides(order: Order | None, axes: Sequence[str], extents: Sequence[str]) -> dict[str, str]:
    """The strides of four axes in C; extents: of all but the first. Raises NotPrintable for unknown orders."""
    if order not in (None, _CHANNELS_LAST):
        raise NotPrintable("an operand or result is stored in another order than channels first or last")
    found, within = {}, "1"
    for axis in reversed(order or range(4)):
        found[axes[axis]] = within
        if axis:
            within = extents[axis - 1] if within == "1" else f"{extents[axis - 1]} * {within}"
    return found


def _named(operand: str, strides: Mapping[str, str]) -> dict[str, str]:
    return {f"{operand}_{axis}": stride for axis, stride in strides.items()}


def _struct(declared: str, members: Mapping[str, str]) -> list[str]:
    return [f"{declared} = {{", *(f"    .{member} = {text}," for member, text in members.items()), "};"]


def _function(name: str, argument: str, task: str, lines: Sequence[str]) -> str:
    """The function under its name, behind that of one item: task is a call for `item` of `argument`."""
    item = f"static void {name}_item(void *{argument}, long item) {{ {task}; }}"
    return f"{item}\n{exported(name, lines)}"
