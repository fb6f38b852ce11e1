"""DenseNet-121 (Huang et al., arXiv:1608.06993, table 1): pictures [n, 3, 224, 224] to logits [n, 1000]."""

from __future__ import annotations

import torch
from torch import nn

from fusible.benchmarks.zoo.architectures.blocks import conv_norm

__all__ = ["BUILDERS"]

_GROWTH = 32
_LAYERS = (6, 12, 24, 16)


def _norm_conv(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return [nn.BatchNorm2d(inputs), nn.ReLU(), convolution]


class DenseLayer(nn.Module):
    """Append 32 channels, computed from all that came before, to them: [n, c, h, w] to [n, c + 32, h, w]."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_norm_conv(inputs, 4 * _GROWTH, 1), *_norm_conv(4 * _GROWTH, _GROWTH, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer."""
        return torch.cat([x, self.layers(x)], 1)


def densenet_121() -> nn.Module:
    """The network with bottlenecks and compression by half (DenseNet-BC)."""
    layers: list[nn.Module] = [conv_norm(3, 64, 7, stride=2, activation=nn.ReLU), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for block, repetitions in enumerate(_LAYERS):
        if block:
            layers += [*_norm_conv(channels, channels // 2, 1), nn.AvgPool2d(2)]
            channels //= 2
        layers += [DenseLayer(channels + place * _GROWTH) for place in range(repetitions)]
        channels += repetitions * _GROWTH
    layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(channels, 1000))


BUILDERS = {"densenet-121": densenet_121}
