"""Concat, Split, Slice and Pad in all their versions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.extents import ENDLESS, split_extents
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.symbols import Dim, floordiv
from fusible.compiler.ir.types import DType

_MOST = 128  # operands of one concatenation: a launch takes 256 buffers on a CPU, 4 KiB of arguments on a GPU


@onnx_op("Concat")
def concat_1(c: NodeContext) -> Value:
    """Concat whose axis has a default."""
    return _concat(c, c.attr_int("axis", 1))


@onnx_op("Concat", since=4)
def concat(c: NodeContext) -> Value:
    """Concat."""
    return _concat(c, c.attr_int("axis"))


def _concat(c: NodeContext, axis: int) -> Value:
    inputs = c.all_inputs()
    rank = next((c.rank(i) for i in range(len(inputs)) if c.rank(i) is not None), None)
    if rank is not None:
        axis = _axis(c, axis, rank)
        if len(inputs) == 1:
            return inputs[0]
    while len(inputs) > _MOST:
        starts = range(0, len(inputs), _MOST)
        inputs = [c.add("concat", *inputs[start : start + _MOST], axis=axis) for start in starts]
    return c.add("concat", *inputs, axis=axis)


def _axis(c: NodeContext, axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        c.invalid(f"axis {axis} is out of range for rank {rank}")
    return axis % rank


@onnx_op("Split")
def split_1(c: NodeContext) -> Sequence[Value]:
    """Split with sizes as an attribute or, in opset 1 only, an operand."""
    sizes: Sequence[Dim] | None = c.attr_ints("split")
    return _split(c, c.dims(1) if sizes is None and c.optional(1) is not None else sizes)


@onnx_op("Split", since=13)
def split(c: NodeContext) -> Sequence[Value]:
    """Split with sizes as an operand, or a number of outputs (an attribute since opset 18)."""
    if c.optional(1) is None:
        return _split(c, None)
    sizes = c.dims(1)
    if sizes is None:
        count, axis = len(c.node.output), c.attr_int("axis", 0)
        attributes = {"axis": axis, "num_outputs": count}
        return c.add_node("split_dynamic", c.required(0), c.required(1), outputs=count, **attributes).outputs
    return _split(c, sizes)


def _split(c: NodeContext, sizes: Sequence[Dim] | None) -> Sequence[Value]:
    axis = _axis(c, c.attr_int("axis", 0), c.known_rank(0))
    if sizes is None:
        sizes = _equal_sizes(c, axis)
    if len(sizes) != len(c.node.output):
        c.invalid(f"{len(sizes)} sizes for {len(c.node.output)} outputs")
    if c.content(0) is not None and all(isinstance(s, int) for s in sizes):
        return _pieces(c, [int(s) for s in sizes if isinstance(s, int)], axis)
    return c.add_node("split", c.required(0), outputs=len(sizes), axis=axis, split=tuple(sizes)).outputs


def _equal_sizes(c: NodeContext, axis: int) -> Sequence[Dim]:
    shape = c.shape(0)
    assert shape is not None
    parts = c.attr_int("num_outputs", len(c.node.output)) if c.opset >= 18 else len(c.node.output)
    if parts != len(c.node.output):
        c.invalid(f"num_outputs is {parts}, the node has {len(c.node.output)} outputs")
    if c.opset >= 18 and c.has_attr("num_outputs"):
        return split_extents(shape[axis], parts)
    size = shape[axis]
    if isinstance(size, int) and size % parts:
        c.invalid(f"axis {axis} of {c.tensor_type(0)} does not split into {parts} equal parts")
    return (floordiv(size, parts),) * parts


def _pieces(c: NodeContext, sizes: Sequence[int], axis: int) -> Sequence[Value]:
    """A small tensor with known elements is sliced, so that the elements of each piece stay known."""
    if sum(sizes) != (c.shape(0) or ())[axis] or min(sizes) < 0:
        c.invalid(f"split sizes {list(sizes)} do not fit {c.tensor_type(0)} along axis {axis}")
    pieces, start = [], 0
    for size in sizes:
        end = start + size
        pieces.append(c.add("slice", c.required(0), starts=(start,), ends=(end,), axes=(axis,), steps=(1,)))
        start = end
    return pieces


@onnx_op("Slice")
def slice_1(c: NodeContext) -> Value:
    """Slice with attributes."""
    starts, ends = c.attr_ints("starts") or (), c.attr_ints("ends") or ()
    axes = c.attr_ints("axes")
    return _slice(c, starts, ends, tuple(range(len(starts))) if axes is None else axes, (1,) * len(starts))


@onnx_op("Slice", since=10)
def slice_(c: NodeContext) -> Value:
    """Slice with operands."""
    starts, ends = c.dims(1), c.dims(2)
    axes = tuple(range(len(starts or ()))) if c.optional(3) is None else _ints(c, 3)
    steps = (1,) * len(starts or ()) if c.optional(4) is None else _ints(c, 4)
    if starts is None or ends is None or axes is None or steps is None:
        return c.add("slice_dynamic", *(c.optional(i) for i in range(5)))
    return _slice(c, starts, ends, axes, steps)


def _ints(c: NodeContext, index: int) -> tuple[int, ...] | None:
    values = c.static(index)
    return None if values is None else tuple(int(v) for v in values.ravel())


def _slice(
    c: NodeContext, starts: Sequence[Dim], ends: Sequence[Dim], axes: Sequence[int], steps: Sequence[int]
) -> Value:
    if not len(starts) == len(ends) == len(axes) == len(steps):
        c.invalid(f"{len(starts)} starts, {len(ends)} ends, {len(axes)} axes and {len(steps)} steps")
    shape = c.shape(0)
    cuts = list(zip(starts, ends, axes, steps, strict=True))
    if shape is not None:
        # A rank of 0 leaves no axis to name; the checks of `slice` refuse it.
        cuts = [(s, e, _axis(c, a, len(shape)), t) for s, e, a, t in cuts]
        if len({a for _, _, a, _ in cuts}) != len(cuts):
            c.invalid(f"axes {list(axes)} name one axis twice")
        cuts = sorted(
            (cut for cut in cuts if not _whole(cut[0], cut[1], cut[3], shape[cut[2]])), key=lambda cut: cut[2]
        )
        if not cuts:
            return c.required(0)
    names = ("starts", "ends", "axes", "steps")
    return c.add("slice", c.required(0), **{name: tuple(cut[n] for cut in cuts) for n, name in enumerate(names)})


def _whole(start: Dim, end: Dim, step: int, size: Dim) -> bool:
    """True if a cut surely keeps all of its axis."""
    if start != 0 or step != 1:
        return False
    return end == size or (isinstance(end, int) and end >= (size if isinstance(size, int) else ENDLESS))


@onnx_op("Pad")
def pad_1(c: NodeContext) -> Value:
    """Pad with the attributes of opset 1."""
    return _pad_attributes(c, c.attr_ints("paddings") or ())


@onnx_op("Pad", since=2)
def pad_2(c: NodeContext) -> Value:
    """Pad with attributes."""
    return _pad_attributes(c, c.attr_ints("pads") or ())


def _pad_attributes(c: NodeContext, pads: Sequence[int]) -> Value:
    value = c.attr_float("value", 0.0)
    constant = c.scalar_like(c.required(0), value) if value else None
    return _padded(c, pads, constant, None)


@onnx_op("Pad", since=11)
def pad(c: NodeContext) -> Value:
    """Pad with operands (axes since opset 18, mode wrap since 19)."""
    constant = c.optional(2) if c.attr_string("mode", "constant") == "constant" else None
    pads, axes = c.dims(1), c.optional(3)
    static_axes = None if axes is None else _ints(c, 3)
    if pads is None or (axes is not None and static_axes is None) or c.rank(0) is None:
        operands = (c.required(0), c.required(1), constant, axes)
        return c.add("pad_dynamic", *operands, mode=c.attr_string("mode", "constant"))
    return _padded(c, pads, constant, static_axes)


def _padded(c: NodeContext, pads: Sequence[Dim], constant: Value | None, axes: Sequence[int] | None) -> Value:
    rank = c.known_rank(0)
    axes = range(rank) if axes is None else [_axis(c, a, rank) for a in axes]
    if len(pads) != 2 * len(axes) or len(set(axes)) != len(axes):
        c.invalid(f"{len(pads)} pads do not fit axes {list(axes)} of {c.tensor_type(0)}")
    full: list[Dim] = [0] * (2 * rank)
    for n, axis in enumerate(axes):
        full[axis], full[rank + axis] = pads[n], pads[n + len(axes)]
    if not any(isinstance(p, int) and p == 0 for p in full) or any(p != 0 for p in full):
        if constant is None and c.tensor_type(0).dtype is DType.STRING:
            constant = c.constant(np.array("", dtype=object))
        return c.add("pad", c.required(0), constant, pads=tuple(full), mode=c.attr_string("mode", "constant"))
    return c.required(0)
