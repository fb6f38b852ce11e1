"""Random tensors: RandomNormal, RandomUniform, Bernoulli, Multinomial.

The numbers come from NumPy's PCG64. The same `seed` (a float, as in ONNX) gives the same numbers at every call;
without a seed each call is seeded by the operating system. Other implementations give other numbers for a seed: ONNX
asks for no more.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def _generator(seed: float | None) -> np.random.Generator:
    """A fresh generator; the bits of the float are the seed, so that 0.25 and 0.5 differ."""
    bits = None if seed is None else struct.unpack("<Q", struct.pack("<d", seed))[0]
    return np.random.Generator(np.random.PCG64(bits))


def _draw_dtype(dtype: np.dtype[Any]) -> type[np.float32] | type[np.float64]:
    return np.float64 if dtype == np.float64 else np.float32


def random_normal(
    *, shape: Sequence[int], dtype: np.dtype[Any], mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Array:
    """Normal variates of the given mean and standard deviation."""
    drawn: Array = np.asarray(_generator(seed).standard_normal(tuple(shape), dtype=_draw_dtype(dtype)))
    with np.errstate(all="ignore"):
        return np.asarray(drawn * drawn.dtype.type(scale) + drawn.dtype.type(mean)).astype(dtype, copy=False)


def random_normal_like(
    x: Array, /, *, dtype: np.dtype[Any], mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Array:
    """RandomNormal in the shape of x."""
    return random_normal(shape=x.shape, dtype=dtype, mean=mean, scale=scale, seed=seed)


def random_uniform(
    *, shape: Sequence[int], dtype: np.dtype[Any], low: float = 0.0, high: float = 1.0, seed: float | None = None
) -> Array:
    """Uniform variates in [low, high); rounding to a small type may reach `high`."""
    drawn: Array = np.asarray(_generator(seed).random(tuple(shape), dtype=_draw_dtype(dtype)))
    with np.errstate(all="ignore"):
        return np.asarray(drawn * drawn.dtype.type(high - low) + drawn.dtype.type(low)).astype(dtype, copy=False)


def random_uniform_like(
    x: Array, /, *, dtype: np.dtype[Any], low: float = 0.0, high: float = 1.0, seed: float | None = None
) -> Array:
    """RandomUniform in the shape of x."""
    return random_uniform(shape=x.shape, dtype=dtype, low=low, high=high, seed=seed)


def bernoulli(x: Array, /, *, dtype: np.dtype[Any], seed: float | None = None) -> Array:
    """1 with probability x, else 0, element by element."""
    drawn = np.asarray(_generator(seed).random(x.shape, dtype=_draw_dtype(x.dtype)))
    return np.asarray(drawn < x.astype(drawn.dtype, copy=False)).astype(dtype)


def multinomial(x: Array, /, *, dtype: np.dtype[Any], sample_size: int = 1, seed: float | None = None) -> Array:
    """Draw `sample_size` classes for each row of unnormalised log-probabilities [batch, classes]: [batch, samples].

    By inversion: the first class whose cumulative probability exceeds a uniform variate.
    """
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"multinomial takes log-probabilities [batch, classes >= 1], got shape {x.shape}")
    logits = x.astype(np.float64)
    with np.errstate(all="ignore"):
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        cumulative = np.cumsum(weights, axis=1)
        cumulative /= cumulative[:, -1:]
    if not np.isfinite(cumulative).all():
        raise ValueError("multinomial takes log-probabilities with a finite greatest value in each row")
    uniform = _generator(seed).random((x.shape[0], sample_size))
    drawn = np.empty(uniform.shape, dtype)
    for row in range(x.shape[0]):
        drawn[row] = np.searchsorted(cumulative[row], uniform[row], side="right")
    return drawn
