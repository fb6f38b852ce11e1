"""Building blocks of inference functions: broadcasting, reductions, common dtype rules."""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.ir.broadcast import broadcast_of
from fusible.compiler.ir.ops import Infer
from fusible.compiler.ir.types import DType, Shape, TensorType

__all__ = [
    "broadcast_shapes",
    "broadcast_type",
    "broadcasts_to",
    "like_input",
    "normal_axes",
    "reduced_shape",
]


def like_input(ctx: Infer) -> TensorType:
    """The type of input 0."""
    return ctx.type(0)


def broadcast_shapes(ctx: Infer, shapes: Sequence[Shape | None]) -> Shape | None:
    """The NumPy broadcast of shapes; None if a rank is unknown. ValueError if they do not broadcast.

    Where symbols decide whether they do, the node requires it.
    """
    return broadcast_of(shapes, ctx.broadcast)


def broadcast_type(ctx: Infer, dtype: DType | None = None) -> TensorType:
    """The broadcast of all tensor inputs, with the element type of input 0 unless given."""
    present = [i for i, v in enumerate(ctx.inputs) if v is not None]
    shape = broadcast_shapes(ctx, [ctx.shape(i) for i in present])
    return TensorType(dtype if dtype is not None else ctx.dtype(0), shape)


def normal_axes(ctx: Infer, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Non-negative axes, each once. InvalidModel for an axis out of range or given twice."""
    normal = tuple(ctx.axis(a, rank) for a in axes)
    if len(set(normal)) != len(normal):
        ctx.fail(f"axes {tuple(axes)} name one axis twice")
    return normal


def reduced_shape(shape: Shape, axes: Sequence[int], keepdims: bool) -> Shape:
    """The shape after reducing the (non-negative) axes."""
    if keepdims:
        return tuple(1 if d in axes else dim for d, dim in enumerate(shape))
    return tuple(dim for d, dim in enumerate(shape) if d not in axes)


def broadcasts_to(ctx: Infer, index: int, target: Shape | None) -> None:
    """InvalidModel if the shape of input `index` cannot broadcast to `target`; what is symbolic is required to."""
    shape = ctx.shape(index)
    if shape is None or target is None:
        return
    pairs = zip(reversed(shape), reversed(target), strict=False)
    if len(shape) > len(target) or not all(ctx.fits(a, b) for a, b in pairs):
        ctx.fail(
            f"input {index} of type {ctx.type(index)} does not broadcast to {TensorType(ctx.dtype(index), target)}"
        )
