"""U-Net (Ronneberger et al., arXiv:1505.04597) of base 32: pictures [n, 3, 256, 256] to scores [n, 2, 256, 256].

As in the paper: four levels of two 3x3 convolutions each, 2x2 max-pooling, 2x2 transposed convolutions, skip
connections. As in most of its uses today: "same" padding, batch normalisation, half of the paper's channels.
"""

from __future__ import annotations

import torch
from torch import nn

from fusible.benchmarks.zoo.architectures.blocks import conv_norm

__all__ = ["BUILDERS"]

_BASE = 32
_LEVELS = 4
_CLASSES = 2


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        conv_norm(inputs, outputs, 3, activation=nn.ReLU), conv_norm(outputs, outputs, 3, activation=nn.ReLU)
    )


class UNet(nn.Module):
    """Encoder, bottom and decoder; the encoder's results are appended to the decoder's inputs."""

    def __init__(self) -> None:
        super().__init__()
        widths = [_BASE << level for level in range(_LEVELS)]
        self.down = nn.ModuleList(map(_double, [3, *widths[:-1]], widths))
        self.pool = nn.MaxPool2d(2)
        self.bottom = _double(widths[-1], 2 * widths[-1])
        self.rise = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, 2) for width in reversed(widths))
        self.up = nn.ModuleList(_double(2 * width, width) for width in reversed(widths))
        self.head = nn.Conv2d(_BASE, _CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Height and width must be multiples of 16."""
        kept: list[torch.Tensor] = []
        for level in self.down:
            x = level(x)
            kept.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        for rise, level in zip(self.rise, self.up, strict=True):
            x = level(torch.cat([kept.pop(), rise(x)], 1))
        return self.head(x)


BUILDERS = {"unet": UNet}
