"""MobileNetV2 and MobileNetV3-small: pictures [n, 3, 224, 224] to logits [n, 1000].

Sandler et al., arXiv:1801.04381, table 2; Howard et al., arXiv:1905.02244, table 2. V3 follows the released model where
that differs from the table: no squeeze-excitation after the last convolution.
"""

from __future__ import annotations

from torch import nn

from fusible.benchmarks.zoo.architectures.blocks import (
    EPSILON,
    InvertedResidual,
    SqueezeExcitation,
    conv_norm,
    divisible,
)

__all__ = ["BUILDERS"]

# expansion, channels, repetitions, stride of the first
_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

# kernel, expanded channels, channels, squeeze-excitation, activation, stride
_V3_SMALL = (
    (3, 16, 16, True, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 2),
    (3, 88, 24, False, nn.ReLU, 1),
    (5, 96, 40, True, nn.Hardswish, 2),
    (5, 240, 40, True, nn.Hardswish, 1),
    (5, 240, 40, True, nn.Hardswish, 1),
    (5, 120, 48, True, nn.Hardswish, 1),
    (5, 144, 48, True, nn.Hardswish, 1),
    (5, 288, 96, True, nn.Hardswish, 2),
    (5, 576, 96, True, nn.Hardswish, 1),
    (5, 576, 96, True, nn.Hardswish, 1),
)


def mobilenet_v2() -> nn.Module:
    """MobileNetV2 of width 1.0."""
    layers: list[nn.Module] = [conv_norm(3, 32, 3, stride=2, activation=nn.ReLU6)]
    channels = 32
    for expansion, outputs, repetitions, stride in _V2:
        for place in range(repetitions):
            first = stride if place == 0 else 1
            layers.append(InvertedResidual(channels, channels * expansion, outputs, 3, first, nn.ReLU6))
            channels = outputs
    layers += [conv_norm(channels, 1280, activation=nn.ReLU6), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(1280, 1000))


def mobilenet_v3_small() -> nn.Module:
    """MobileNetV3-small of width 1.0."""
    layers: list[nn.Module] = [conv_norm(3, 16, 3, stride=2, epsilon=EPSILON, activation=nn.Hardswish)]
    channels = 16
    for kernel, expanded, outputs, squeezed, activation, stride in _V3_SMALL:
        excitation = SqueezeExcitation(expanded, divisible(expanded / 4), nn.ReLU, nn.Hardsigmoid) if squeezed else None
        layers.append(
            InvertedResidual(
                channels, expanded, outputs, kernel, stride, activation, epsilon=EPSILON, excitation=excitation
            )
        )
        channels = outputs
    layers += [conv_norm(channels, 576, epsilon=EPSILON, activation=nn.Hardswish), nn.AdaptiveAvgPool2d(1)]
    layers += [nn.Flatten(), nn.Linear(576, 1024), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1024, 1000)]
    return nn.Sequential(*layers)


BUILDERS = {"mobilenet-v2": mobilenet_v2, "mobilenet-v3-small": mobilenet_v3_small}
