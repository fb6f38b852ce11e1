"""Seeded inputs for the zoo's architectures that look like what such models are fed, made with NumPy alone.

Each function returns a builder, which takes a generator and the batch and returns the arrays by input name.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fusible.benchmarks.zoo.pages import DEVIATION, MEAN

__all__ = ["InputBuilder", "Inputs", "cached_token", "pictures", "spectrograms", "tokens"]

Inputs = dict[str, np.ndarray]
InputBuilder = Callable[[np.random.Generator, int], Inputs]


def pictures(side: int, name: str = "pixel_values") -> InputBuilder:
    """Colour pictures, float32 [batch, 3, side, side], normalised by mean and deviation; side a multiple of 32.

    Patches of noise of several sizes, the larger the stronger, as in natural pictures.
    """

    def build(generator: np.random.Generator, batch: int) -> Inputs:
        picture = np.full((batch, 3, side, side), 0.45)
        for patch in (32, 16, 8, 4, 2, 1):
            cells = generator.normal(0, 0.02 * patch**0.5, (batch, 3, side // patch, side // patch))
            picture += cells.repeat(patch, 2).repeat(patch, 3)
        mean, deviation = (np.reshape(colour, (3, 1, 1)) for colour in (MEAN, DEVIATION))
        return {name: ((picture.clip(0, 1) - mean) / deviation).astype(np.float32)}

    return build


def tokens(vocabulary: int, length: int, *others: str, name: str = "input_ids") -> InputBuilder:
    """Token ids, int64 [batch, length], and `others` of the same shape.

    An `attention_mask` is ones; `token_type_ids` are 0 in the first half and 1 in the second, as of two sentences.
    """
    made = {
        "attention_mask": np.ones(length, np.int64),
        "token_type_ids": (np.arange(length) >= length // 2).astype(np.int64),
    }

    def build(generator: np.random.Generator, batch: int) -> Inputs:
        ids = {name: generator.integers(0, vocabulary, (batch, length))}
        return ids | {other: np.tile(made[other], (batch, 1)) for other in others}

    return build


def cached_token(vocabulary: int, past: int, layers: int, heads: int, width: int) -> InputBuilder:
    """One token, a mask of ones, and for each layer the keys and values, float32 [batch, heads, past, width]."""

    def build(generator: np.random.Generator, batch: int) -> Inputs:
        inputs = {
            "input_ids": generator.integers(0, vocabulary, (batch, 1)),
            "attention_mask": np.ones((batch, past + 1), np.int64),
        }
        for layer in range(layers):
            for kind in ("key", "value"):
                states = generator.normal(0, 0.5, (batch, heads, past, width))
                inputs[f"past.{layer}.{kind}"] = states.astype(np.float32)
        return inputs

    return build


def spectrograms(bands: int, frames: int) -> InputBuilder:
    """Log-mel spectrograms scaled as for Whisper, float32 [batch, bands, frames]: syllables with formants, in noise."""

    def build(generator: np.random.Generator, batch: int) -> Inputs:
        band, frame = np.arange(bands)[:, np.newaxis], np.arange(frames)
        loud = np.full((batch, bands, frames), -1.0)
        for _ in range(3):
            pitch = generator.uniform(0.1, 0.9, (batch, 1, frames // 50)).repeat(50, 2) * bands
            loud += np.exp(-(((band - pitch) / 4) ** 2))
        syllables = 0.5 + 0.5 * np.sin(frame * 2 * np.pi / generator.uniform(18, 30, (batch, 1, 1)))
        level = loud * syllables + generator.normal(0, 0.1, loud.shape)
        return {"input_features": level.clip(level.max() - 2).astype(np.float32)}

    return build
