"""Images: rearranged pixels, sampling grids, regions of interest."""

from __future__ import annotations

from dataclasses import dataclass

from fusible.compiler.ir.definition import Definition, Opaque, View, same
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.opset.contraction import same_types
from fusible.compiler.ir.symbols import Dim, floordiv, modulo
from fusible.compiler.ir.types import DType, Shape, TensorType
from fusible.compiler.region.index import IndexMap, axis
from fusible.kernels.numpy.grid_sampling import MODES, PADDING_MODES

__all__ = ["AffineGridAttrs", "BlockAttrs", "GridSampleAttrs", "MaxRoiPoolAttrs", "RoiAlignAttrs"]

# Along one axis of a bin; more than an image has pixels would only cost memory.
_MOST_SAMPLES = 2**12
_UNKNOWN_RANK = Opaque("the rank of the operand is not known")
_BETWEEN_PIXELS = same(Opaque("it reads between pixels, at places that an operand states"))
_FLOATS = (DType.F32, DType.F64, DType.F16, DType.BF16)


@dataclass(frozen=True, slots=True)
class BlockAttrs:
    """blocksize: of a square block of pixels; mode: the order of the channels, DCR or CRD."""

    blocksize: int
    mode: str = "DCR"


@dataclass(frozen=True, slots=True)
class GridSampleAttrs:
    """mode: linear, nearest, cubic; padding_mode: zeros, border, reflection; align_corners: -1 and 1 are centres."""

    mode: str = "linear"
    padding_mode: str = "zeros"
    align_corners: bool = False


@dataclass(frozen=True, slots=True)
class AffineGridAttrs:
    """size: (N, C, *spatial) of the image; align_corners: -1 and 1 are the centres of the outermost pixels."""

    size: tuple[Dim, ...]
    align_corners: bool = False


@dataclass(frozen=True, slots=True)
class AffineGridDynamicAttrs:
    """align_corners: -1 and 1 are the centres of the outermost pixels; the size is an operand."""

    align_corners: bool = False


@dataclass(frozen=True, slots=True)
class RoiAlignAttrs:
    """Attributes of ONNX RoiAlign."""

    output_height: int = 1
    output_width: int = 1
    sampling_ratio: int = 0
    spatial_scale: float = 1.0
    mode: str = "avg"
    coordinate_transformation_mode: str = "half_pixel"


@dataclass(frozen=True, slots=True)
class MaxRoiPoolAttrs:
    """pooled_shape: bins down and across; spatial_scale: from the regions' units to pixels."""

    pooled_shape: tuple[int, ...]
    spatial_scale: float = 1.0


def _blocks(ctx: Infer) -> TensorType:
    attrs, shape = ctx.attrs, ctx.shape(0)
    block = attrs.blocksize
    if attrs.mode not in ("DCR", "CRD") or not 1 <= block < 2**15:
        ctx.fail(f"mode must be DCR or CRD and blocksize positive, got {attrs.mode!r} and {block}")
    if shape is None:
        return TensorType(ctx.dtype(0), None)
    if len(shape) != 4:
        ctx.fail(f"takes [N, C, H, W], got {ctx.type(0)}")
    n, c, h, w = shape
    if ctx.op.name == "depth_to_space":
        if not ctx.divides(block * block, c):
            ctx.fail(f"{c} channels are not a multiple of {block * block}")
        return TensorType(ctx.dtype(0), (n, floordiv(c, block * block), h * block, w * block))
    if not all(ctx.divides(block, d) for d in (h, w)):
        ctx.fail(f"height and width must be multiples of {block}, got {ctx.type(0)}")
    return TensorType(ctx.dtype(0), (n, c * (block * block), floordiv(h, block), floordiv(w, block)))


def _depth_to_space_definition(node: Node) -> Definition:
    shape = _output_shape(node)
    if shape is None:
        return _UNKNOWN_RANK
    block, (n, c, y, x) = node.attrs.blocksize, (axis(d) for d in range(4))
    within = modulo(y, block) * block + modulo(x, block)
    channel = within * shape[1] + c if node.attrs.mode == "DCR" else c * (block * block) + within
    return View((IndexMap((n, channel, floordiv(y, block), floordiv(x, block))),))


def _space_to_depth_definition(node: Node) -> Definition:
    shape = _output_shape(node)
    if shape is None:
        return _UNKNOWN_RANK
    block, (n, k, h, w) = node.attrs.blocksize, (axis(d) for d in range(4))
    channels = floordiv(shape[1], block * block)
    if node.attrs.mode == "DCR":
        within, channel = floordiv(k, channels) if channels != 0 else 0, modulo(k, channels) if channels != 0 else 0
    else:
        within, channel = modulo(k, block * block), floordiv(k, block * block)
    return View((IndexMap((n, channel, h * block + floordiv(within, block), w * block + modulo(within, block))),))


def _output_shape(node: Node) -> Shape | None:
    type_ = node.output.type
    return type_.shape if isinstance(type_, TensorType) else None


def _grid_sample(ctx: Infer) -> TensorType:
    attrs, x, grid = ctx.attrs, ctx.shape(0), ctx.shape(1)
    if attrs.mode not in MODES or attrs.padding_mode not in PADDING_MODES:
        ctx.fail(f"mode {attrs.mode!r} or padding_mode {attrs.padding_mode!r} is unknown")
    if ctx.dtype(1) not in _FLOATS:
        ctx.fail(f"the grid must be a float of at least 16 bits, got {ctx.type(1)}")
    if attrs.mode != "nearest" and ctx.dtype(0) is DType.STRING:
        ctx.fail("strings cannot be interpolated")
    if x is None or grid is None:
        return TensorType(ctx.dtype(0), None)
    if len(x) < 3 or not _fits_grid(ctx, x, grid):
        ctx.fail(f"takes X [N, C, *spatial] and grid [N, *output, {len(x) - 2}], got {ctx.type(0)} and {ctx.type(1)}")
    return TensorType(ctx.dtype(0), (*x[:2], *grid[1:-1]))


def _fits_grid(ctx: Infer, x: Shape, grid: Shape) -> bool:
    return len(grid) == len(x) and ctx.equal(grid[0], x[0]) and ctx.equal(grid[-1], len(x) - 2)


def _affine_grid(ctx: Infer) -> TensorType:
    size, theta = ctx.attrs.size, ctx.shape(0)
    rank = len(size) - 2
    if rank not in (2, 3):
        ctx.fail(f"size must have 4 or 5 values, got {list(size)}")
    _check_theta(ctx, theta, (size[0], rank, rank + 1))
    return TensorType(ctx.dtype(0), (size[0], *size[2:], rank))


def _check_theta(ctx: Infer, theta: Shape | None, expected: Shape) -> None:
    if theta is not None and not ctx.equal_shapes(theta, expected):
        ctx.fail(f"theta must have shape {list(expected)}, got {ctx.type(0)}")


def _affine_grid_dynamic(ctx: Infer) -> TensorType:
    theta, length = ctx.shape(0), ctx.shape(1)
    rank = None
    if length is not None and len(length) == 1 and isinstance(length[0], int):
        rank = length[0] - 2
    elif theta is not None and len(theta) == 3 and isinstance(theta[1], int):
        rank = theta[1]
    if rank is None:
        return TensorType(ctx.dtype(0), None)
    if rank not in (2, 3):
        ctx.fail(f"size must have 4 or 5 values, got {ctx.type(1)}")
    batch = ctx.fresh("batch") if theta is None else theta[0]
    _check_theta(ctx, theta, (batch, rank, rank + 1))
    return TensorType(ctx.dtype(0), (batch, *(ctx.fresh("grid") for _ in range(rank)), rank))


def _roi_align(ctx: Infer) -> TensorType:
    attrs, x, rois, images = ctx.attrs, ctx.shape(0), ctx.shape(1), ctx.shape(2)
    if attrs.mode not in ("avg", "max") or not 0 <= attrs.sampling_ratio <= _MOST_SAMPLES:
        ctx.fail(f"mode must be avg or max and sampling_ratio in [0, {_MOST_SAMPLES}], got {attrs}")
    if attrs.coordinate_transformation_mode not in ("half_pixel", "output_half_pixel"):
        ctx.fail(f"coordinate_transformation_mode {attrs.coordinate_transformation_mode!r} is unknown")
    if ctx.dtype(2) is not DType.I64:
        ctx.fail(f"batch_indices must be i64, got {ctx.type(2)}")
    if images is not None and len(images) != 1:
        ctx.fail(f"batch_indices must be a vector, got {ctx.type(2)}")
    if images is not None and rois is not None and rois and not ctx.equal(images[0], rois[0]):
        ctx.fail(f"there are {rois[0]} regions and {images[0]} batch indices")
    return _regions(ctx, x, rois, 4, (attrs.output_height, attrs.output_width))


def _max_roi_pool(ctx: Infer) -> TensorType:
    same_types(ctx)
    if len(ctx.attrs.pooled_shape) != 2:
        ctx.fail(f"pooled_shape must have 2 values, got {list(ctx.attrs.pooled_shape)}")
    return _regions(ctx, ctx.shape(0), ctx.shape(1), 5, ctx.attrs.pooled_shape)


def _regions(ctx: Infer, x: Shape | None, rois: Shape | None, width: int, bins: tuple[int, ...]) -> TensorType:
    """[R, C, *bins] for images x and regions [R, width]."""
    if min(bins) < 1 or max(bins) >= 2**31:
        ctx.fail(f"the output must have at least one bin, got {list(bins)}")
    if x is not None and len(x) != 4:
        ctx.fail(f"takes X [N, C, H, W], got {ctx.type(0)}")
    if rois is not None and (len(rois) != 2 or not ctx.equal(rois[1], width)):
        ctx.fail(f"regions must have shape [R, {width}], got {ctx.type(1)}")
    if x is None or rois is None:
        return TensorType(ctx.dtype(0), None)
    return TensorType(ctx.dtype(0), (rois[0], x[1], *bins))


OPS.register(Op("depth_to_space", _blocks, _depth_to_space_definition, "image:depth_to_space", BlockAttrs))
OPS.register(Op("space_to_depth", _blocks, _space_to_depth_definition, "image:space_to_depth", BlockAttrs))
OPS.register(
    Op("grid_sample", _grid_sample, _BETWEEN_PIXELS, "grid_sampling:grid_sample", GridSampleAttrs, inputs=(2, 2))
)
_POSITIONS = same(Opaque("it multiplies positions of pixels, which are no operand"))
OPS.register(Op("affine_grid", _affine_grid, _POSITIONS, "grid_sampling:affine_grid", AffineGridAttrs))
OPS.register(
    Op(
        "affine_grid_dynamic",
        _affine_grid_dynamic,
        _POSITIONS,
        "grid_sampling:affine_grid_dynamic",
        AffineGridDynamicAttrs,
        inputs=(2, 2),
        dynamic=True,
    )
)
OPS.register(Op("roi_align", _roi_align, _BETWEEN_PIXELS, "roi:roi_align", RoiAlignAttrs, inputs=(3, 3)))
OPS.register(
    Op(
        "max_roi_pool",
        _max_roi_pool,
        same(Opaque("its windows are where an operand says")),
        "roi:max_roi_pool",
        MaxRoiPoolAttrs,
        inputs=(2, 2),
    )
)
