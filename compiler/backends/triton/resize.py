"""`resize` as a Triton kernel: the template of kernels/triton/resize.py with the coordinates of a node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.launch import AccessFact, LaunchRule
from fusible.compiler.backends.triton.node_kernel import NodeKernel, kernel_source, tensor_of
from fusible.compiler.backends.triton.print_expr import literal_text
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.opset.resize import ResizeAttrs
from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.ir.types import DType, Shape
from fusible.compiler.region.reorder import Order
from fusible.kernels.numpy.resize import scalings

__all__ = ["print_resize"]

_COORDINATES = {
    "half_pixel": "half_pixel",
    "pytorch_half_pixel": "half_pixel_of_several",
    "half_pixel_symmetric": "half_pixel_symmetric",
    "align_corners": "align_corners",
    "asymmetric": "asymmetric",
}
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
_FLOATS = (DType.F32, DType.F16, DType.BF16)
_BLOCK, _WARPS = 256, 4


def print_resize(node: Node, orders: Mapping[Value, Order], name: str = "kernel") -> PrintedKernel:
    """The kernel of a `resize` node. Raises NotPrintable with what it does not do.

    orders: how values are stored that are not row-major.
    """
    attrs, operand = node.attrs, node.inputs[0]
    assert isinstance(attrs, ResizeAttrs) and operand is not None
    types = tensor_of(operand), tensor_of(node.outputs[0])
    _check(attrs, types[0].dtype)
    order, rank = orders.get(operand), len(_shape(types[0].shape))
    if order != orders.get(node.outputs[0]):
        raise NotPrintable("its operand and its result are stored in different orders")
    order = order or tuple(range(rank))
    before, after = (tuple(_shape(t.shape)[a] for a in order) for t in types)
    scaled = attrs.axes if attrs.axes is not None else tuple(range(rank))
    attrs = replace(attrs, axes=tuple(order.index(a % rank) for a in scaled))
    first, last = _resized(attrs, before, after)
    sizes: dict[str, Dim] = {
        "outer": product(before[:first]), "inner": product(before[last + 1 :]),
        "height": before[first] if last > first else 1, "out_height": after[first] if last > first else 1,
        "width": before[last], "out_width": after[last],
    }  # fmt: skip
    kernel = NodeKernel([operand], node.outputs, sizes)
    scale_w, length_w = _scale(attrs, before, last, kernel.size("width"))
    scale_h, length_h = ("1.0", "1.0") if first == last else _scale(attrs, before, first, kernel.size("height"))
    taps = _TAPS[attrs.mode]
    coordinate = _COORDINATES[attrs.coordinate_transformation_mode]
    body = [
        "resize(",
        f"    {kernel.program()}, x0, y0, {', '.join(kernel.size(n) for n in ('outer', 'height', 'width', 'inner'))},",
        f"    {kernel.size('out_height')}, {kernel.size('out_width')}, {scale_h}, {scale_w}, {length_h}, {length_w},",
        f"    {coordinate}, {attrs.nearest_mode}, {taps if last > first else 1}, {taps},",
        f"    {literal_text(attrs.cubic_coeff_a, DType.F32)}, BLOCK,",
        ")",
    ]
    arguments = kernel.arguments()
    parameters = [*(a.name for a in arguments), "BLOCK: tl.constexpr"]
    imported = ["resize", coordinate, attrs.nearest_mode]
    source = kernel_source(f"{attrs.mode} resize", "resize", imported, [], parameters, body, name)
    facts = (
        AccessFact("x0", types[0].dtype, False, None, True),
        AccessFact("y0", types[1].dtype, True, 1, True),
    )
    rule = LaunchRule(name, arguments, {"BLOCK": _BLOCK}, facts, ((product(after), _BLOCK),), _WARPS, 1)
    return PrintedKernel(source, rule)


def _shape(shape: Shape | None) -> Shape:
    assert shape is not None
    return shape


def _check(attrs: ResizeAttrs, dtype: DType) -> None:
    if attrs.coordinate_transformation_mode not in _COORDINATES or attrs.nearest_mode not in _NEAREST:
        raise NotPrintable(f"its coordinates are {attrs.coordinate_transformation_mode}, {attrs.nearest_mode}")
    if attrs.antialias or attrs.exclude_outside or attrs.keep_aspect_ratio_policy != "stretch":
        raise NotPrintable("its weights are normalised, or its axes depend on each other")
    if attrs.mode != "nearest" and dtype not in _FLOATS:
        raise NotPrintable(f"it interpolates {dtype.value}")


def _resized(attrs: ResizeAttrs, before: Sequence[Dim], after: Sequence[Dim]) -> tuple[int, int]:
    """The first and the last axis whose size or scale changes; they are one, or neighbours."""
    scales = dict(zip(attrs.axes or (), attrs.scales or (), strict=False))
    found = [a for a in range(len(before)) if before[a] != after[a] or scales.get(a, 1.0) != 1.0]
    if not found or found[-1] - found[0] != len(found) - 1 or len(found) > 2:
        raise NotPrintable("it resizes none of its axes, or more than two neighbours")
    return found[0], found[-1]


def _scale(attrs: ResizeAttrs, before: Sequence[Dim], axis: int, size: str) -> tuple[str, str]:
    """The texts of an axis' scale, and of what its size grows to before it is cut."""
    assert attrs.axes is not None
    number, extent = attrs.axes.index(axis), before[axis]
    if isinstance(extent, int):
        sizes = [attrs.sizes[number]] if attrs.sizes is not None else None
        if sizes is None or isinstance(sizes[0], int):
            scale = None if attrs.scales is None else [attrs.scales[number]]
            (found,) = scalings((extent,), (0,), scale, sizes, "stretch")  # type: ignore[arg-type]
            return literal_text(found.scale, DType.F32), literal_text(found.length, DType.F32)
    if attrs.scales is None:
        raise NotPrintable("its sizes are known only when it runs")
    factor = literal_text(float(np.float32(attrs.scales[number])), DType.F32)
    return factor, f"{size} * {factor}"
