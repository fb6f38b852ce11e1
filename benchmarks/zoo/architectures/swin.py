"""Swin-tiny (Liu et al., arXiv:2103.14030): pictures [n, 3, 224, 224] to logits [n, 1000].

Written out because the definition in transformers computes its windows from tensors, which exporters turn into
thousands of nodes or refuse. All sizes here are known when the model is built.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["BUILDERS"]

_WINDOW = 7
_WIDTH = 96
_DEPTHS = (2, 2, 6, 2)
_HEADS = (3, 6, 12, 24)


def _windows(x: torch.Tensor) -> torch.Tensor:
    """[n, h, w, c] to [n * windows, 49, c]."""
    _, height, width, channels = x.shape
    x = x.view(-1, height // _WINDOW, _WINDOW, width // _WINDOW, _WINDOW, channels)
    return x.transpose(2, 3).reshape(-1, _WINDOW**2, channels)


def _picture(windows: torch.Tensor, side: int) -> torch.Tensor:
    """[n * windows, 49, c] to [n, side, side, c]."""
    across, channels = side // _WINDOW, windows.shape[-1]
    x = windows.view(-1, across, across, _WINDOW, _WINDOW, channels)
    return x.transpose(2, 3).reshape(-1, side, side, channels)


def _relative_positions() -> torch.Tensor:
    """Index [49 * 49] into the table of biases, by the offset of each pair of places in a window."""
    places = torch.cartesian_prod(torch.arange(_WINDOW), torch.arange(_WINDOW))
    offsets = places[:, None] - places[None, :] + _WINDOW - 1
    return (offsets[..., 0] * (2 * _WINDOW - 1) + offsets[..., 1]).flatten()


def _shift_mask(side: int, shift: int) -> torch.Tensor:
    """What to add to the scores, [1, windows, 1, 49, 49]: -100 between places that were no neighbours (section 3.2)."""
    bands = torch.zeros(side)
    bands[-_WINDOW:-shift], bands[-shift:] = 1, 2
    regions = _windows((3 * bands[:, None] + bands)[None, :, :, None])[..., 0]
    return torch.where(regions[:, :, None] == regions[:, None, :], 0.0, -100.0)[None, :, None]


class WindowAttention(nn.Module):
    """Multi-head attention inside each window, with a bias for each relative position; shifted windows are masked."""

    def __init__(self, width: int, heads: int, side: int, shift: int) -> None:
        super().__init__()
        self.width, self.heads, self.depth = width, heads, width // heads
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros((2 * _WINDOW - 1) ** 2, heads))
        self.register_buffer("positions", _relative_positions(), persistent=False)
        self.register_buffer("mask", _shift_mask(side, shift) if shift else None, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n * windows, 49, c] to the same."""
        q, k, v = self.qkv(x).view(-1, _WINDOW**2, 3, self.heads, self.depth).permute(2, 0, 3, 1, 4)
        scores = (q * self.depth**-0.5) @ k.transpose(-2, -1) + self._bias()
        if self.mask is not None:
            places = _WINDOW**2
            masked = scores.view(-1, self.mask.shape[1], self.heads, places, places) + self.mask
            scores = masked.view(-1, self.heads, places, places)
        return self.projection((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, _WINDOW**2, self.width))

    def _bias(self) -> torch.Tensor:
        return self.bias[self.positions].view(_WINDOW**2, _WINDOW**2, self.heads).permute(2, 0, 1)


class Block(nn.Module):
    """Pre-normalised window attention and perceptron on [n, side, side, width]; odd blocks shift the windows."""

    def __init__(self, width: int, heads: int, side: int, place: int) -> None:
        super().__init__()
        self.side = side
        self.shift = _WINDOW // 2 if place % 2 and side > _WINDOW else 0
        self.before_attention, self.before_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, side, self.shift)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block."""
        y = self.before_attention(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = _picture(self.attention(_windows(y)), self.side)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.perceptron(self.before_perceptron(x))


class PatchMerging(nn.Module):
    """Join each 2x2 patch: [n, h, w, c] to [n, h / 2, w / 2, 2c]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Merge."""
        rows = x[:, 0::2], x[:, 1::2]
        corners = [rows[0][:, :, 0::2], rows[1][:, :, 0::2], rows[0][:, :, 1::2], rows[1][:, :, 1::2]]
        return self.reduction(self.norm(torch.cat(corners, -1)))


class Swin(nn.Module):
    """Patches of 4x4, four stages, mean over places, linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.patch_norm = nn.Conv2d(3, _WIDTH, 4, 4), nn.LayerNorm(_WIDTH)
        layers: list[nn.Module] = []
        for stage, (depth, heads) in enumerate(zip(_DEPTHS, _HEADS, strict=True)):
            width, side = _WIDTH << stage, 56 >> stage
            layers += [PatchMerging(width // 2)] if stage else []
            layers += [Block(width, heads, side, place) for place in range(depth)]
        self.stages = nn.Sequential(*layers)
        self.norm, self.head = nn.LayerNorm(8 * _WIDTH), nn.Linear(8 * _WIDTH, 1000)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Classify."""
        x = self.patch_norm(self.patches(pixel_values).permute(0, 2, 3, 1))
        return self.head(self.norm(self.stages(x)).mean((1, 2)))


BUILDERS = {"swin-tiny": Swin}
