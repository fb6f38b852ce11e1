"""EfficientNet-B0 (Tan and Le, arXiv:1905.11946, table 1): pictures [n, 3, 224, 224] to logits [n, 1000]."""

from __future__ import annotations

from torch import nn

from fusible.benchmarks.zoo.architectures.blocks import EPSILON, InvertedResidual, SqueezeExcitation, conv_norm

__all__ = ["BUILDERS"]

# expansion, kernel, channels, repetitions, stride of the first
_STAGES = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)


def _block(inputs: int, expansion: int, outputs: int, kernel: int, stride: int) -> InvertedResidual:
    """MBConv; the squeeze is to a quarter of the channels that enter the block."""
    expanded = inputs * expansion
    excitation = SqueezeExcitation(expanded, inputs // 4, nn.SiLU, nn.Sigmoid)
    return InvertedResidual(inputs, expanded, outputs, kernel, stride, nn.SiLU, epsilon=EPSILON, excitation=excitation)


def efficientnet_b0() -> nn.Module:
    """The baseline network, with symmetric padding."""
    layers: list[nn.Module] = [conv_norm(3, 32, 3, stride=2, epsilon=EPSILON, activation=nn.SiLU)]
    channels = 32
    for expansion, kernel, outputs, repetitions, stride in _STAGES:
        for place in range(repetitions):
            layers.append(_block(channels, expansion, outputs, kernel, stride if place == 0 else 1))
            channels = outputs
    layers += [conv_norm(channels, 1280, epsilon=EPSILON, activation=nn.SiLU), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(1280, 1000))


BUILDERS = {"efficientnet-b0": efficientnet_b0}
