"""The table of architectures: what each is, how it is exported by default, its inputs and outputs. No torch needed.

By default TorchScript exports the convolutional networks, for which the graphs
are alike and it is the faster, and the LSTM, whose weights the other slices at every run. torch.export ("dynamo")
exports the transformers: with a symbolic batch in at most half of the nodes, and GPT-2's tied embedding only once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from fusible.benchmarks.zoo.synthetic_inputs import (
    InputBuilder,
    Inputs,
    cached_token,
    pictures,
    spectrograms,
    tokens,
)
from fusible.errors import UsageError

__all__ = ["ARCHITECTURES", "EXPORTERS", "SEED", "Architecture", "architecture", "example_inputs"]

SEED = 20261123
"""Of all weights and inputs."""

EXPORTERS = ("torchscript", "dynamo")
"""`torch.onnx.export(dynamo=False)`, which traces, and `dynamo=True`, which goes through torch.export."""
_TS, _DYNAMO = EXPORTERS


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture. family: the module beside this one that builds it. exporter: the default one.

    parameters: how many are published, in millions (None where the sizes are our own). outputs: their names.
    weights: what the seed of the weights depends on, by default the name; the two forms of GPT-2 have the same weights.
    """

    name: str
    family: str
    exporter: str
    parameters: float | None
    summary: str
    inputs: InputBuilder
    outputs: tuple[str, ...]
    weights: str


def _row(
    name: str,
    family: str,
    exporter: str,
    parameters: float | None,
    summary: str,
    inputs: InputBuilder,
    outputs: str,
    weights: str = "",
) -> Architecture:
    return Architecture(name, family, exporter, parameters, summary, inputs, tuple(outputs.split()), weights or name)


def _classifier(name: str, family: str, exporter: str, parameters: float, summary: str) -> Architecture:
    return _row(name, family, exporter, parameters, f"picture classifier, {summary}", pictures(224), "logits")


_BERT = tokens(30522, 128, "attention_mask", "token_type_ids")
_DISTILBERT = tokens(30522, 128, "attention_mask")
_PROMPT = tokens(50257, 64, "attention_mask")
_NEXT_TOKEN = cached_token(50257, past=64, layers=12, heads=12, width=64)
_WITH_CACHE = " ".join(["logits", *(f"present.{layer}.{kind}" for layer in range(12) for kind in ("key", "value"))])
_POOLED = "last_hidden_state pooler_output"

_TABLE = (
    _classifier("mobilenet-v2", "mobilenet", _TS, 3.50, "inverted residuals, ReLU6"),
    _classifier("mobilenet-v3-small", "mobilenet", _TS, 2.54, "squeeze-excitation, hard-swish"),
    _classifier("efficientnet-b0", "efficientnet", _TS, 5.29, "squeeze-excitation, SiLU"),
    _classifier("squeezenet-1.1", "squeezenet", _TS, 1.24, "fire modules, no normalisation"),
    _classifier("shufflenet-v2", "shufflenet", _TS, 2.28, "channel shuffles"),
    _classifier("resnet-18", "vision", _TS, 11.69, "basic residual blocks"),
    _classifier("resnet-50", "vision", _TS, 25.56, "residual bottlenecks"),
    _classifier("densenet-121", "densenet", _TS, 7.98, "dense concatenations"),
    _classifier("convnext-tiny", "vision", _TS, 28.6, "depthwise 7x7, LayerNorm, GELU"),
    _classifier("vit-b16", "vision", _DYNAMO, 86.6, "transformer on patches of 16x16"),
    _classifier("swin-tiny", "swin", _DYNAMO, 28.3, "attention in shifted windows"),
    _row("bert-base", "text", _DYNAMO, 110, "text encoder, 128 tokens", _BERT, _POOLED),
    _row("minilm-l6", "text", _DYNAMO, 22.7, "sentence encoder, 128 tokens", _BERT, _POOLED),
    _row("distilbert", "text", _DYNAMO, 66, "text encoder, 128 tokens", _DISTILBERT, "last_hidden_state"),
    _row("gpt2-prefill", "gpt2", _DYNAMO, 124, "language model, 64 tokens to cache", _PROMPT, _WITH_CACHE, "gpt2"),
    _row("gpt2-decode", "gpt2", _DYNAMO, 124, "language model, a token after 64", _NEXT_TOKEN, _WITH_CACHE, "gpt2"),
    _row("whisper-tiny-encoder", "whisper", _DYNAMO, 8.2, "speech, 30 s", spectrograms(80, 3000), "last_hidden_state"),
    _row("bilstm-tagger", "lstm_tagger", _TS, None, "tagger, 64 words", tokens(20_000, 64, name="token_ids"), "scores"),
    _row("unet", "unet", _TS, None, "segmentation, 256x256, skip connections", pictures(256), "scores"),
)

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType({row.name: row for row in _TABLE})
"""Every architecture by its name."""


def architecture(name: str) -> Architecture:
    """The row of an architecture. Raises UsageError for a name that is not in the table."""
    found = ARCHITECTURES.get(name)
    if found is None:
        raise UsageError(f"no architecture is named {name!r}; there are {', '.join(ARCHITECTURES)}")
    return found


def example_inputs(name: str, batch: int = 1) -> Inputs:
    """The inputs of an architecture by name, in the order of its signature, the same at every call."""
    return architecture(name).inputs(np.random.default_rng(SEED), batch)
