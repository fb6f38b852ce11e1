"""Resizing as a call of resize_image.h: sizes go in when it is called, scales and rules are literals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusible.compiler.backends.cpu.c_kinds import c_float
from fusible.compiler.backends.cpu.c_library import LibraryCall, exported, in_scratch, shape_in, shape_of, unless
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.opset.resize import ResizeAttrs
from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.ir.types import DType
from fusible.compiler.region.reorder import Order

__all__ = ["resize_call"]

_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
_COORDINATES = {
    "half_pixel": "RESIZE_HALF_PIXEL",
    "half_pixel_symmetric": "RESIZE_HALF_PIXEL_SYMMETRIC",
    "pytorch_half_pixel": "RESIZE_PYTORCH_HALF_PIXEL",
    "align_corners": "RESIZE_ALIGN_CORNERS",
    "asymmetric": "RESIZE_ASYMMETRIC",
    "tf_half_pixel_for_nn": "RESIZE_HALF_PIXEL_FOR_NN",
}
_NEAREST = {
    "round_prefer_floor": "RESIZE_PREFER_FLOOR",
    "round_prefer_ceil": "RESIZE_PREFER_CEIL",
    "floor": "RESIZE_FLOOR",
    "ceil": "RESIZE_CEIL",
    "simple": "RESIZE_SIMPLE",
}
_CHANNELS_LAST = (0, 2, 3, 1)


@dataclass(frozen=True)
class _Image:
    """A tensor as [outer][height][width][inner], or with inner before height; scales 0 where the sizes are given."""

    outer: Dim
    sizes: tuple[Dim, Dim]
    results: tuple[Dim, Dim]
    inner: Dim
    x_last: bool
    y_last: bool
    scales: tuple[float, float]

    @property
    def dims(self) -> tuple[Dim, ...]:
        """Outer, height, width, inner, and the result's height and width."""
        return self.outer, *self.sizes, self.inner, *self.results


def resize_call(node: Node, name: str, orders: Mapping[Value, Order]) -> LibraryCall:
    """The call for a `resize` node of an f32 tensor. Raises NotPrintable with what the kernel does not do."""
    x = node.inputs[0]
    assert x is not None
    attrs: ResizeAttrs = node.attrs
    if attrs.coordinate_transformation_mode not in _COORDINATES:
        raise NotPrintable("it crops")
    if attrs.antialias or attrs.exclude_outside or attrs.keep_aspect_ratio_policy != "stretch":
        raise NotPrintable("it is antialiased, leaves out what is outside, or keeps the aspect ratio")
    image = _image(node, x, orders)
    return LibraryCall(_text(image, attrs, name), image.dims, (x,), {})


def _image(node: Node, x: Value, orders: Mapping[Value, Order]) -> _Image:
    """How the tensor is resized. Raises NotPrintable."""
    before, after = shape_in(x, DType.F32), shape_of(node.output)
    scales = _scales(node.attrs, len(before), before, after)
    axes = [a for a, scale in enumerate(scales) if scale is not None]
    layouts = [orders.get(v) for v in (x, node.output)]
    if any(order not in (None, _CHANNELS_LAST) for order in layouts):
        raise NotPrintable("its operand or result is stored in an order of its own")
    if any(layouts):
        if not set(axes) <= {2, 3}:
            raise NotPrintable("it resizes channels")
        found = scales[2] if scales[2] is not None else 1.0, scales[3] if scales[3] is not None else 1.0
        last = [order is not None for order in layouts]
        return _Image(before[0], (before[2], before[3]), (after[2], after[3]), before[1], last[0], last[1], found)
    if not axes or axes[-1] - axes[0] > 1:
        raise NotPrintable("it resizes no axis, or axes that lie apart")
    first, end = axes[0], axes[-1] + 1
    outer, inner = product(before[:first]), product(before[end:])
    if len(axes) == 1:
        return _Image(outer, (1, before[first]), (1, after[first]), inner, True, True, (1.0, scales[first] or 0.0))
    pair = scales[first] or 0.0, scales[first + 1] or 0.0
    sizes, results = (before[first], before[first + 1]), (after[first], after[first + 1])
    return _Image(outer, sizes, results, inner, True, True, pair)


def _scales(
    attrs: ResizeAttrs, rank: int, before: Sequence[Dim], after: Sequence[Dim]
) -> list[float | None]:
    """For each axis None if it stays as it is, 0 if its size is given, else its scale."""
    axes = range(rank) if attrs.axes is None else [a % rank for a in attrs.axes]
    found: list[float | None] = [None] * rank
    for number, axis in enumerate(axes):
        if attrs.scales is not None:
            found[axis] = None if attrs.scales[number] == 1 else float(attrs.scales[number])
        else:
            found[axis] = None if before[axis] == after[axis] else 0.0
    return found


def _text(image: _Image, attrs: ResizeAttrs, name: str) -> str:
    taps = _TAPS[attrs.mode]
    sizes = ("outer", "height", "width", "inner", "out_height", "out_width")
    members = [".x = buffers[0], .y = buffers[1]", *(f".{size} = dims[{n}]" for n, size in enumerate(sizes))]
    members += [f".x_last = {int(image.x_last)}", f".y_last = {int(image.y_last)}"]
    members += [f".row_scale = {c_float(image.scales[0])}", f".column_scale = {c_float(image.scales[1])}"]
    members += [f".coordinates = {_COORDINATES[attrs.coordinate_transformation_mode]}"]
    members += [f".nearest = {_NEAREST[attrs.nearest_mode]}", f".cubic = {c_float(attrs.cubic_coeff_a)}"]
    lines = [
        f"struct resize_image image = {{{', '.join(members[:1])},",
        *(f"    {', '.join(members[n : n + 4])}," for n in range(1, len(members), 4)),
        "};",
        *unless("resize_image_fits(&image)"),
        *in_scratch(
            f"resize_image_floats(&image, {taps}, pool_threads(pool))",
            [f"resize_image_run({taps}, &image, pool, scratch);"],
        ),
    ]
    return exported(name, lines)
