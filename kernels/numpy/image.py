"""Rearrangements of image pixels: DepthToSpace and SpaceToDepth. Any element type."""

from __future__ import annotations

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
    batch, channels, height, width = x.shape
    return batch, channels, height, width


def _depth_first(mode: str) -> bool:
    if mode not in ("DCR", "CRD"):
        raise ValueError(f"mode must be DCR or CRD, got {mode!r}")
    return mode == "DCR"
