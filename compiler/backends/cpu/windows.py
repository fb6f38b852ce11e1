"""The geometry of a two-dimensional convolution, read off the index map of its left operand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fusible.compiler.backends.cpu.c_dims import axes_in, coefficient
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.ir.symbol_values import substitute
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt, floordiv, product
from fusible.compiler.ir.types import DType
from fusible.compiler.region.index import IndexMap
from fusible.compiler.region.region import Contract, Load, Region, axes_of
from fusible.passes.copy_images import MOST_PLANES

__all__ = ["Geometry", "geometry_of"]



@dataclass(frozen=True)
class Geometry:
    """Sizes as in `struct convolution`. column: the axis of the output channels. groups: channels, if depthwise.

    planes: 1, or the image's channels if it is stored channels first; `channels` is 1 then.
    """

    depthwise: bool
    images: Dim
    height: Dim
    width: Dim
    groups: int
    channels: int
    outputs: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int]
    first: int  # the first channel that is read
    pixel: int  # channels of a pixel in memory
    out_height: Dim
    out_width: Dim
    column: int
    rows: tuple[int, ...]  # the axes of image, row and column of an output pixel, as far as there are some
    planes: int = 1

    @property
    def depth(self) -> int:
        """K: the terms of an output, of one group."""
        return self.planes * self.kernel[0] * self.kernel[1] * self.channels

    @property
    def pointwise(self) -> bool:
        """True if each output pixel is a product of the pixel in its place: 1x1, with no padding on any side."""
        single = self.kernel == (1, 1) and self.strides == (1, 1) and self.groups == 1 and not self.depthwise
        return single and self.pads == (0, 0) and (self.out_height, self.out_width) == (self.height, self.width)

    def fields(self) -> dict[str, Dim]:
        """The members of the C struct that are sizes."""
        shared: dict[str, Dim] = {
            "images": self.images,
            "height": self.height,
            "width": self.width,
            "kernel_height": self.kernel[0],
            "kernel_width": self.kernel[1],
            "stride_y": self.strides[0],
            "stride_x": self.strides[1],
            "dilation_y": self.dilations[0],
            "dilation_x": self.dilations[1],
            "pad_top": self.pads[0],
            "pad_left": self.pads[1],
            "out_height": self.out_height,
            "out_width": self.out_width,
            "image_stride": self.planes * self.height * self.width * self.pixel,
            "row_stride": self.width * self.pixel,
            "pixel_stride": self.pixel,
        }
        if self.depthwise:
            return {**shared, "channels": self.groups}
        shared |= {"planes": self.planes, "plane_stride": self.height * self.width if self.planes > 1 else 0}
        return {**shared, "groups": self.groups, "channels": self.channels, "outputs": self.outputs}


def geometry_of(region: Region, left: int, right: int, contract: Contract) -> Geometry:
    """The geometry, if the contraction is a convolution of an image stored channels last, or of few planes.

    Raises NotPrintable.
    """
    x, w = region.stages[left], region.stages[right]
    assert isinstance(x, Load) and isinstance(w, Load)
    shape, map_ = region.inputs[x.buffer].shape, x.map
    try:
        return _geometry(region, shape, map_, w, contract)
    except NotPrintable:
        if not _is_planar(shape, map_, contract):
            raise
    found = _geometry(region, (*shape[:1], *shape[2:], shape[1]), _channels_last(map_), w, contract)
    if found.groups != 1 or found.channels != found.pixel:
        raise NotPrintable("it reads only some planes of its image")
    return replace(found, planes=found.channels, channels=1, pixel=1)


def _geometry(region: Region, shape: Sequence[Dim], map_: IndexMap, w: Load, contract: Contract) -> Geometry:
    """The geometry for an image of this shape, read at these indices, if they are those of channels last."""
    filled = bool(map_.bounds) and map_.fill != 0  # which only convolutions of bytes know how to do
    if contract.dtype not in (DType.F32, DType.I32) or len(shape) != 4 or (filled and contract.dtype is DType.F32):
        raise NotPrintable("its contraction is no convolution of images in f32 or of bytes")
    outer = [a for a in range(len(region.extents)) if a not in contract.axes]
    columns = [a for a in outer if a in axes_of(w)]
    channels = shape[3]
    if len(columns) != 1 or not isinstance(channels, int):
        raise NotPrintable("its output channels are several axes")
    column = columns[0]
    image = _lone_axis(map_.components[0], outer, shape[0])
    y = _window(region, map_.components[1], contract, outer)
    across = _window(region, map_.components[2], contract, outer)
    groups, per_group, first, inner = _channel_groups(region, map_.components[3], contract, column)
    outputs = _literal(region.extents[column]) // groups
    _check_weights(region, w, column, inner, (y.tap, across.tap))
    if image is not None and region.extents[image] != shape[0]:
        raise NotPrintable("it reads only some of the images")
    _check_bounds(map_, shape)
    return Geometry(
        per_group == 1 and outputs == 1 and groups > 1, shape[0], shape[1], shape[2], groups, per_group, outputs,
        (y.size, across.size), (y.stride, across.stride), (y.dilation, across.dilation), (y.pad, across.pad),
        first, channels, y.extent, across.extent, column,
        tuple(a for a in (image, y.place, across.place) if a is not None),
    )  # fmt: skip


def _is_planar(shape: Sequence[Dim], map_: IndexMap, contract: Contract) -> bool:
    """True for an image stored channels first that the kernel reads so: of few channels, all of them summed over."""
    if len(shape) != 4 or not isinstance(shape[1], int) or not 1 < shape[1] <= MOST_PLANES:
        return False
    channel = axes_in(map_.components[1])
    return len(channel) == 1 and channel[0] in contract.axes


def _channels_last(map_: IndexMap) -> IndexMap:
    first, channel, *rest = map_.components
    return replace(map_, components=(first, *rest, channel))


@dataclass(frozen=True)
class _Window:
    """index = stride * place + dilation * tap - pad; place, tap: their axes, None if there is but one."""

    stride: int
    dilation: int
    pad: int
    size: int
    extent: Dim
    tap: int | None
    place: int | None


def _literal(dim: Dim | None) -> int:
    if not isinstance(dim, int):
        raise NotPrintable("a size of its convolution is not literal")
    return dim


def _lone_axis(component: Dim, outer: list[int], size: Dim) -> int | None:
    if component == 0 and size == 1:
        return None
    axes = axes_in(component)
    if len(axes) != 1 or axes[0] not in outer or coefficient(component, axes[0]) != 1:
        raise NotPrintable("its images are not read one after the other")
    return axes[0]


def _window(region: Region, component: Dim, contract: Contract, outer: list[int]) -> _Window:
    axes = axes_in(component)
    places, taps = [a for a in axes if a in outer], [a for a in axes if a in contract.axes]
    if len(places) > 1 or len(taps) > 1:
        raise NotPrintable("its windows do not slide along one axis")
    rest = substitute(component, {f"i{a}": 0 for a in axes})
    steps = [coefficient(component, a) for a in (*places, *taps)]
    if not all(isinstance(step, int) and step > 0 for step in steps):
        raise NotPrintable("its windows do not slide in even steps")
    stride = _literal(steps[0]) if places else 1
    dilation = _literal(steps[-1]) if taps else 1
    size = _literal(region.extents[taps[0]]) if taps else 1
    extent = region.extents[places[0]] if places else 1
    place = places[0] if places else None
    return _Window(stride, dilation, -_literal(rest), size, extent, taps[0] if taps else None, place)


def _channel_groups(
    region: Region, component: Dim, contract: Contract, column: int
) -> tuple[int, int, int, int | None]:
    """(groups, channels of one, first channel, their contracted axis or None): it is first + group(column) * C + c."""
    inner = [a for a in axes_in(component) if a in contract.axes]
    if len(inner) > 1:
        raise NotPrintable("its channels are not contracted as one axis")
    per_group = _literal(region.extents[inner[0]]) if inner else 1
    outputs = _literal(region.extents[column])
    if per_group == 0 or outputs == 0:
        raise NotPrintable("it has no channels")
    ends = [substitute(component, {f"i{column}": o} | {f"i{a}": 0 for a in inner}) for o in (0, outputs - 1)]
    first, last = (_literal(end) for end in ends)
    groups = (last - first) // per_group + 1
    if first < 0 or groups < 1 or outputs % groups:
        raise NotPrintable("its groups do not divide its output channels")
    symbol = SymInt.of(Symbol(f"i{column}", 0, outputs - 1))
    start: Dim = first + (floordiv(symbol, outputs // groups) * per_group if groups > 1 else 0)
    if component != start + (SymInt.of(Symbol(f"i{inner[0]}", 0, per_group - 1)) if inner else 0):
        raise NotPrintable("its channels do not fall into groups side by side")
    return groups, per_group, first, inner[0] if inner else None


def _check_bounds(map_: IndexMap, shape: Sequence[Dim]) -> None:
    """Elements are zero outside the image and nowhere else."""
    ends = [(component, size) for component, size in zip(map_.components, shape, strict=True)]
    for bound in map_.bounds:
        if bound.low != 0 or (bound.expr, bound.high) not in ends:
            raise NotPrintable("its padding does not begin where the image ends")


def _check_weights(
    region: Region, w: Load, column: int, inner: int | None, taps: tuple[int | None, int | None]
) -> None:
    """The weights are [O, C / groups, KH, KW], each element read in its place."""
    expected = [column, inner, *taps]
    if len(w.map.components) != len(expected):
        raise NotPrintable("its weights have not four dimensions")
    for component, axis, size in zip(w.map.components, expected, region.inputs[w.buffer].shape, strict=True):
        wanted: Dim = 0 if axis is None else SymInt.of(Symbol(f"i{axis}"))
        if component != wanted or (axis is None and size != 1):
            raise NotPrintable("its weights are not read as [O, C, KH, KW]")
    used = [a for a in expected if a is not None]
    if product(region.extents[a] for a in used) != product(region.inputs[w.buffer].shape):
        raise NotPrintable("its weights are read in part")
