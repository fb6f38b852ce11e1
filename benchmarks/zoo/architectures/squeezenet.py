"""SqueezeNet 1.1 (Iandola et al., arXiv:1602.07360, and the authors' release 1.1): [n, 3, 224, 224] to [n, 1000]."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["BUILDERS"]


class Fire(nn.Module):
    """A 1x1 convolution to few channels, then 1x1 and 3x3 convolutions side by side: [n, c, h, w] to [n, 2e, h, w]."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(inputs, squeezed, 1), nn.ReLU())
        self.narrow = nn.Sequential(nn.Conv2d(squeezed, expanded, 1), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(squeezed, expanded, 3, padding=1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the module."""
        squeezed = self.squeeze(x)
        return torch.cat([self.narrow(squeezed), self.wide(squeezed)], 1)


def squeezenet() -> nn.Module:
    """The network, which ends in a convolution and has no batch normalisation."""

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    features = [nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(), Fire(64, 16, 64), Fire(128, 16, 64), pool()]
    features += [Fire(128, 32, 128), Fire(256, 32, 128), pool(), Fire(256, 48, 192), Fire(384, 48, 192)]
    features += [Fire(384, 64, 256), Fire(512, 64, 256)]
    head = [nn.Dropout(0.5), nn.Conv2d(512, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*features, *head)


BUILDERS = {"squeezenet-1.1": squeezenet}
