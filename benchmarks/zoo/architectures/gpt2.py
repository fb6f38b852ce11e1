"""GPT-2 (Radford et al., 2019; the smallest, 124 M parameters) of transformers, in the two forms that serve text.

Prefill reads a prompt; decode reads one token more, with the keys and values of the tokens before. Both return the
logits [n, t, 50257] and, for each layer, the keys and values of all tokens so far, [n, 12, tokens, 64].
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel
from transformers.utils import ModelOutput

__all__ = ["BUILDERS"]


def _model() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(vocab_size=50257, n_positions=1024, n_embd=768, n_layer=12, n_head=12))


class Prefill(nn.Module):
    """A prompt to logits and cache."""

    def __init__(self) -> None:
        super().__init__()
        self.model = _model()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """int64 [n, t] each."""
        return _logits_and_cache(self.model(input_ids, attention_mask=attention_mask, use_cache=True))


class Decode(nn.Module):
    """One token and the cache of those before to logits and the cache with it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = _model()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, *past: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """int64 [n, 1] and [n, tokens + 1]; past: keys, values, keys, ... [n, 12, tokens, 64]."""
        cache = DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
        return _logits_and_cache(self.model(input_ids, cache, attention_mask=attention_mask, use_cache=True))


def _logits_and_cache(found: ModelOutput) -> tuple[torch.Tensor, ...]:
    """By position: the name of the cache differs between releases of transformers."""
    logits, cache = found[:2]
    return logits, *(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))


BUILDERS = {"gpt2-prefill": Prefill, "gpt2-decode": Decode}
