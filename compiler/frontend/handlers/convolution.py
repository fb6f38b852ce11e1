"""Conv, ConvTranspose, DeformConv, Col2Im."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.window_shapes import automatic_pads
from fusible.kernels.numpy.windows import AUTO_PADS, per_axis


@onnx_op("Conv")
def conv(c: NodeContext) -> Value:
    """Conv."""
    attrs = window_attributes(c, _kernel_shape(c))
    return c.add("conv", c.required(0), c.required(1), c.optional(2), group=c.attr_int("group", 1), **attrs)


@onnx_op("ConvTranspose")
def conv_transpose(c: NodeContext) -> Value:
    """ConvTranspose; auto_pad stays, because it also says on which side the odd element of output_shape lies."""
    _kernel_shape(c)
    auto_pad = auto_pad_of(c)
    rank = c.rank(0)
    output_shape = c.attr_ints("output_shape") or ()
    if rank is not None and len(output_shape) == rank:
        # Some exporters state the whole shape.
        output_shape = output_shape[2:]
    return c.add(
        "conv_transpose",
        c.required(0),
        c.required(1),
        c.optional(2),
        strides=c.attr_ints("strides") or (),
        pads=(c.attr_ints("pads") or ()) if auto_pad == "NOTSET" and not output_shape else (),
        dilations=c.attr_ints("dilations") or (),
        group=c.attr_int("group", 1),
        output_padding=c.attr_ints("output_padding") or (),
        output_shape=output_shape,
        auto_pad=auto_pad,
    )


@onnx_op("DeformConv")
def deform_conv(c: NodeContext) -> Value:
    """DeformConv."""
    _kernel_shape(c)
    return c.add(
        "deform_conv",
        *(c.required(i) if i < 3 else c.optional(i) for i in range(5)),
        strides=c.attr_ints("strides") or (),
        pads=c.attr_ints("pads") or (),
        dilations=c.attr_ints("dilations") or (),
        group=c.attr_int("group", 1),
        offset_group=c.attr_int("offset_group", 1),
    )


@onnx_op("Col2Im")
def col2im(c: NodeContext) -> Value:
    """Col2Im."""
    image, block = c.dims(1), c.dims(2)
    attrs = {name: c.attr_ints(name) or () for name in ("strides", "pads", "dilations")}
    if image is None or block is None:
        return c.add("col2im_dynamic", c.required(0), c.required(1), c.required(2), **attrs)
    return c.add("col2im", c.required(0), image_shape=image, block_shape=block, **attrs)


def window_attributes(c: NodeContext, kernel: Sequence[Dim] | None) -> dict[str, Any]:
    """strides, pads, dilations and auto_pad of a convolution or pool over input 0.

    auto_pad becomes pads where these are known now.
    """
    strides, dilations = c.attr_ints("strides") or (), c.attr_ints("dilations") or ()
    auto_pad, shape = auto_pad_of(c), c.shape(0)
    pads: tuple[Dim, ...] = (c.attr_ints("pads") or ()) if auto_pad == "NOTSET" else ()
    if auto_pad != "NOTSET" and shape is not None and kernel is not None and len(kernel) == len(shape) - 2:
        rank = len(kernel)
        steps, gaps = positive_by_axis(c, "strides", strides, rank), positive_by_axis(c, "dilations", dilations, rank)
        found = automatic_pads(auto_pad, shape[2:], kernel, steps, gaps)
        if all(isinstance(p, int) for p in found):
            pads, auto_pad = found, "NOTSET"
    return {"strides": strides, "pads": pads, "dilations": dilations, "auto_pad": auto_pad}


def auto_pad_of(c: NodeContext) -> str:
    """The attribute auto_pad; pads beside it are ignored, as ONNX Runtime does."""
    auto_pad = c.attr_string("auto_pad", "NOTSET") or "NOTSET"
    if auto_pad not in AUTO_PADS:
        c.invalid(f"auto_pad must be one of {', '.join(AUTO_PADS)}, got {auto_pad!r}")
    return auto_pad


def positive_by_axis(c: NodeContext, name: str, values: Sequence[int], rank: int) -> tuple[int, ...]:
    """The values of an attribute for each of `rank` axes, 1 where it is not given. InvalidModel for those below 1."""
    if len(values) not in (0, rank) or min(values, default=1) < 1:
        c.invalid(f"{name} must have {rank} positive values, got {list(values)}")
    return per_axis(name, values, rank)


def _kernel_shape(c: NodeContext) -> tuple[Dim, ...] | None:
    """The spatial shape of W, None if unknown; the attribute kernel_shape must repeat it."""
    stated, shape = c.attr_ints("kernel_shape"), c.shape(1)
    if shape is None:
        return stated
    kernel = shape[2:]
    if stated is not None and (
        len(stated) != len(kernel) or any(isinstance(k, int) and k != s for k, s in zip(kernel, stated, strict=True))
    ):
        c.invalid(f"kernel_shape is {list(stated)}, but W has shape {list(shape)}")
    return kernel
