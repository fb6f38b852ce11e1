"""Text encoders of transformers: BERT-base, MiniLM-L6 and DistilBERT; token ids and masks [n, 128] to states.

BERT: Devlin et al., arXiv:1810.04805. MiniLM-L6 has the sizes of the sentence encoder all-MiniLM-L6-v2 (Wang et al.,
arXiv:2002.10957). DistilBERT: Sanh et al., arXiv:1910.01108.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

__all__ = ["BUILDERS"]


class Bert(nn.Module):
    """BERT with plain tensors as results."""

    def __init__(self, *, width: int, layers: int, perceptron: int) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=30522,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=12,
            intermediate_size=perceptron,
            max_position_embeddings=512,
        )
        self.model = BertModel(config)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """int64 [n, t] each to the last hidden states [n, t, width] and the pooled first one [n, width]."""
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return found.last_hidden_state, found.pooler_output


class DistilBert(nn.Module):
    """DistilBERT with a plain tensor as result."""

    def __init__(self) -> None:
        super().__init__()
        config = DistilBertConfig(
            vocab_size=30522, max_position_embeddings=512, n_layers=6, n_heads=12, dim=768, hidden_dim=3072
        )
        self.model = DistilBertModel(config)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """int64 [n, t] each to the last hidden states [n, t, 768]."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def bert_base() -> nn.Module:
    """12 layers of 768."""
    return Bert(width=768, layers=12, perceptron=3072)


def minilm_l6() -> nn.Module:
    """6 layers of 384."""
    return Bert(width=384, layers=6, perceptron=1536)


BUILDERS = {"bert-base": bert_base, "minilm-l6": minilm_l6, "distilbert": DistilBert}
