"""ShuffleNetV2 x1.0 (Ma et al., arXiv:1807.11164, table 5): pictures [n, 3, 224, 224] to logits [n, 1000]."""

from __future__ import annotations

import torch
from torch import nn

from fusible.benchmarks.zoo.architectures.blocks import conv_norm

__all__ = ["BUILDERS"]

_STAGES = ((24, 116, 4), (116, 232, 8), (232, 464, 4))  # channels before and after, units


def _shuffle(x: torch.Tensor) -> torch.Tensor:
    """Interleave the two halves of the channels."""
    batch, channels, height, width = x.shape
    return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


def _branch(inputs: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        conv_norm(inputs, channels, activation=nn.ReLU),
        conv_norm(channels, channels, 3, stride=stride, groups=channels),
        conv_norm(channels, channels, activation=nn.ReLU),
    )


class Unit(nn.Module):
    """Half of the channels pass unchanged, the other half through a branch, then both are shuffled (figure 3c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = _branch(channels // 2, channels // 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] to the same."""
        kept, changed = x.chunk(2, 1)
        return _shuffle(torch.cat([kept, self.branch(changed)], 1))


class DownUnit(nn.Module):
    """Two branches of stride 2 side by side, shuffled (figure 3d)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.left = nn.Sequential(
            conv_norm(inputs, inputs, 3, stride=2, groups=inputs),
            conv_norm(inputs, outputs // 2, activation=nn.ReLU),
        )
        self.right = _branch(inputs, outputs // 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, inputs, h, w] to [n, outputs, h / 2, w / 2]."""
        return _shuffle(torch.cat([self.left(x), self.right(x)], 1))


def shufflenet_v2() -> nn.Module:
    """The network of width 1.0."""
    layers: list[nn.Module] = [conv_norm(3, 24, 3, stride=2, activation=nn.ReLU), nn.MaxPool2d(3, 2, 1)]
    for inputs, outputs, units in _STAGES:
        layers += [DownUnit(inputs, outputs), *(Unit(outputs) for _ in range(units - 1))]
    layers += [conv_norm(464, 1024, activation=nn.ReLU), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1024, 1000))


BUILDERS = {"shufflenet-v2": shufflenet_v2}
