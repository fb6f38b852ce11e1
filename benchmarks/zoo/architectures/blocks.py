"""What several convolutional networks are made of: normalised convolutions, squeeze-excitation, inverted residuals."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["InvertedResidual", "SqueezeExcitation", "conv_norm", "divisible"]

EPSILON = 1e-3
"""Of the batch normalisations in MobileNetV3 and EfficientNet, as released."""


def divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` next to `channels`, never more than 10 % below (MobileNetV2, released code)."""
    near = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * channels else near


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    epsilon: float = 1e-5,
    activation: type[nn.Module] | None = None,
) -> nn.Sequential:
    """Convolution with "same" padding and no bias, batch normalisation, activation (none if None)."""
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, epsilon),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class SqueezeExcitation(nn.Module):
    """`x * gate(expand(act(squeeze(mean(x)))))`, [n, c, h, w] to the same (Hu et al., arXiv:1709.01507)."""

    def __init__(self, channels: int, squeezed: int, activation: type[nn.Module], gate: type[nn.Module]) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.activation = activation()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale each channel of each picture."""
        return x * self.gate(self.expand(self.activation(self.squeeze(self.pool(x)))))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, squeeze-excitation or none, linear 1x1 projection; a shortcut if it fits.

    [n, inputs, h, w] to [n, outputs, h / stride, w / stride] (Sandler et al., arXiv:1801.04381, figure 4).
    """

    def __init__(
        self,
        inputs: int,
        expanded: int,
        outputs: int,
        kernel: int,
        stride: int,
        activation: type[nn.Module],
        *,
        epsilon: float = 1e-5,
        excitation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        widen = [conv_norm(inputs, expanded, epsilon=epsilon, activation=activation)] if expanded != inputs else []
        depthwise = conv_norm(
            expanded, expanded, kernel, stride=stride, groups=expanded, epsilon=epsilon, activation=activation
        )
        excite = [] if excitation is None else [excitation]
        self.layers = nn.Sequential(*widen, depthwise, *excite, conv_norm(expanded, outputs, epsilon=epsilon))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block."""
        return x + self.layers(x) if self.shortcut else self.layers(x)
