"""Rearrangements of image pixels: DepthToSpace, SpaceToDepth, CenterCropPad. Any element type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def depth_to_space(x: Array, /, *, blocksize: int, mode: str = "DCR") -> Array:
    """[N, C * b * b, H, W] -> [N, C, H * b, W * b]: channels become b x b blocks of pixels.

    Channels are numbered (row, column, depth) in mode DCR, (depth, row, column) in CRD.
    """
    batch, depth, height, width = _image(x)
    if blocksize < 1 or depth % (blocksize * blocksize):
        raise ValueError(f"DepthToSpace needs channels in multiples of {blocksize}**2, got {depth}")
    channels = depth // (blocksize * blocksize)
    if _depth_first(mode):
        blocks = x.reshape(batch, blocksize, blocksize, channels, height, width).transpose(0, 3, 4, 1, 5, 2)
    else:
        blocks = x.reshape(batch, channels, blocksize, blocksize, height, width).transpose(0, 1, 4, 2, 5, 3)
    return blocks.reshape(batch, channels, height * blocksize, width * blocksize)


def space_to_depth(x: Array, /, *, blocksize: int, mode: str = "DCR") -> Array:
    """[N, C, H * b, W * b] -> [N, C * b * b, H, W]: the inverse of `depth_to_space` of the same mode."""
    batch, channels, tall, wide = _image(x)
    if blocksize < 1 or tall % blocksize or wide % blocksize:
        raise ValueError(f"SpaceToDepth needs height and width in multiples of {blocksize}, got {x.shape}")
    height, width = tall // blocksize, wide // blocksize
    blocks = x.reshape(batch, channels, height, blocksize, width, blocksize)
    order = (0, 3, 5, 1, 2, 4) if _depth_first(mode) else (0, 1, 3, 5, 2, 4)
    return blocks.transpose(order).reshape(batch, channels * blocksize * blocksize, height, width)


def _image(x: Array) -> tuple[int, int, int, int]:
    if x.ndim != 4:
        raise ValueError(f"an image [N, C, H, W] was expected, got shape {x.shape}")
    return x.shape  # type: ignore[return-value]


def _depth_first(mode: str) -> bool:
    if mode not in ("DCR", "CRD"):
        raise ValueError(f"mode must be DCR or CRD, got {mode!r}")
    return mode == "DCR"


def center_crop_pad(x: Array, /, *, shape: Sequence[int], axes: Sequence[int] | None = None) -> Array:
    """x cropped or zero-padded about its centre to `shape` along `axes` (all if None).

    An odd surplus is cut at the end more than at the beginning; an odd lack is filled at the end.
    """
    chosen = [a % x.ndim for a in axes] if axes is not None else list(range(x.ndim))
    if len(chosen) != len(shape) or min(shape, default=0) < 0:
        raise ValueError(f"CenterCropPad needs a size >= 0 for each of {len(chosen)} axes, got {tuple(shape)}")
    target = list(x.shape)
    source, place = [slice(None)] * x.ndim, [slice(None)] * x.ndim
    for axis, size in zip(chosen, shape, strict=True):
        source[axis], place[axis] = centred_window(x.shape[axis], size)
        target[axis] = size
    if all(new <= old for new, old in zip(target, x.shape, strict=True)):
        return x[tuple(source)]
    result = np.full(target, "", object) if x.dtype == object else np.zeros(target, x.dtype)
    result[tuple(place)] = x[tuple(source)]
    return result


def centred_window(old: int, new: int) -> tuple[slice, slice]:
    """(what is read of an axis of `old` elements, where it goes in one of `new`)."""
    if new <= old:
        begin = (old - new) // 2
        return slice(begin, begin + new), slice(0, new)
    begin = (new - old) // 2
    return slice(0, old), slice(begin, begin + old)


def center_crop_pad_dynamic(x: Array, shape: Array, /, *, axes: Sequence[int] | None = None) -> Array:
    """`center_crop_pad` to a shape known at run time."""
    return center_crop_pad(x, shape=[int(d) for d in shape], axes=axes)
