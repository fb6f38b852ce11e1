"""A part-of-speech tagger (Huang et al., arXiv:1508.01991, without the CRF): token ids [n, t] to scores [n, t, 17]."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["BUILDERS"]

_VOCABULARY, _EMBEDDED, _HIDDEN = 20_000, 100, 256
_TAGS = 17  # of Universal Dependencies


class Tagger(nn.Module):
    """Embedding, two bidirectional LSTM layers, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_VOCABULARY, _EMBEDDED)
        self.lstm = nn.LSTM(_EMBEDDED, _HIDDEN, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * _HIDDEN, _TAGS)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Score each tag of each token."""
        states, _ = self.lstm(self.embedding(token_ids))
        return self.head(states)


BUILDERS = {"bilstm-tagger": Tagger}
