"""The encoder of Whisper-tiny (Radford et al., arXiv:2212.04356, table 1), of transformers."""

from __future__ import annotations

import torch
from torch import nn
from transformers import WhisperConfig, WhisperModel

__all__ = ["BUILDERS"]


class Encoder(nn.Module):
    """30 seconds of sound to states: log-mel spectrogram [n, 80, 3000] to [n, 1500, 384]."""

    def __init__(self) -> None:
        super().__init__()
        config = WhisperConfig(
            num_mel_bins=80,
            d_model=384,
            encoder_layers=4,
            encoder_attention_heads=6,
            encoder_ffn_dim=1536,
            max_source_positions=1500,
        )
        self.encoder = WhisperModel(config).encoder

    def forward(self, input_features: torch.Tensor) -> torch.Tensor:
        """Encode."""
        return self.encoder(input_features).last_hidden_state


BUILDERS = {"whisper-tiny-encoder": Encoder}
