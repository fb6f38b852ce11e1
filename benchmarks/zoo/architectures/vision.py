"""Picture classifiers of transformers: ResNet-18, ResNet-50, ConvNeXt-tiny, ViT-B/16; [n, 3, 224, 224] to [n, 1000].

ResNet: He et al., arXiv:1512.03385, table 1, with the stride in the 3x3 convolution of a bottleneck (v1.5). ConvNeXt:
Liu et al., arXiv:2201.03545. ViT: Dosovitskiy et al., arXiv:2010.11929.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

__all__ = ["BUILDERS"]

_CLASSES = 1000


class Classifier(nn.Module):
    """The logits of a classifier alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """[n, 3, 224, 224] to [n, 1000]."""
        return self.model(pixel_values=pixel_values).logits


def _resnet(depths: list[int], widths: list[int], layer: str) -> nn.Module:
    config = ResNetConfig(
        embedding_size=64, hidden_sizes=widths, depths=depths, layer_type=layer, hidden_act="relu", num_labels=_CLASSES
    )
    return Classifier(ResNetForImageClassification(config))


def resnet_18() -> nn.Module:
    """Basic blocks."""
    return _resnet([2, 2, 2, 2], [64, 128, 256, 512], "basic")


def resnet_50() -> nn.Module:
    """Bottlenecks."""
    return _resnet([3, 4, 6, 3], [256, 512, 1024, 2048], "bottleneck")


def convnext_tiny() -> nn.Module:
    """ConvNeXt-T."""
    config = ConvNextConfig(
        patch_size=4,
        hidden_sizes=[96, 192, 384, 768],
        depths=[3, 3, 9, 3],
        hidden_act="gelu",
        num_labels=_CLASSES,
        layer_scale_init_value=0.2,
    )
    return Classifier(ConvNextForImageClassification(config))


def vit_b16() -> nn.Module:
    """ViT-B with patches of 16x16."""
    config = ViTConfig(
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        image_size=224,
        patch_size=16,
        num_labels=_CLASSES,
    )
    return Classifier(ViTForImageClassification(config))


BUILDERS = {"resnet-18": resnet_18, "resnet-50": resnet_50, "convnext-tiny": convnext_tiny, "vit-b16": vit_b16}
