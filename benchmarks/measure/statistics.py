"""From seconds to numbers that can be believed: medians over blocks, and the interval of a ratio.

A block is some iterations in a row; its time is their mean, as of a plain loop, and blocks are short, so that a
disturbance spoils few of them and the median over blocks does not see it. Contestants are timed in rounds, and in each
round block by block next to each other, so that what slows the machine down for longer hits both; what is compared are
the logarithms of the ratios of block times. Rounds are grouped by launch: two
processes that run the same program differ (placement of memory and threads) by more than the rounds within one launch
show, so an interval must know how much launches differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fusible.benchmarks.records import Interval, Latency

__all__ = ["CONFIDENCE", "half_width", "latency_of", "log_ratios", "ratio_interval"]

CONFIDENCE = 0.95
RESAMPLES = 2000


def latency_of(blocks: Sequence[Sequence[float]]) -> Latency:
    """Quantiles of the blocks' times. blocks: seconds of each iteration, at least one block of one."""
    p20, p50, p80 = (float(q) for q in np.quantile([np.mean(block) for block in blocks], (0.2, 0.5, 0.8)))
    least = min(min(block) for block in blocks)
    return Latency(p20, p50, p80, float(least), len(blocks), sum(len(block) for block in blocks))


def log_ratios(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> list[float]:
    """ln(time of block r of `first` / time of block r of `second`), for each round r."""
    pairs = zip(first, second, strict=True)
    return [float(np.log(np.mean(a)) - np.log(np.mean(b))) for a, b in pairs]


def ratio_interval(groups: Sequence[Sequence[float]], *, seed: int = 0) -> Interval:
    """The ratio and its 95 % interval. groups: log ratios, one group a launch, each with at least one round.

    Each launch counts once, by the median of its rounds; a single group counts round by round. The estimate is the
    median of all pairwise means (Hodges and Lehmann 1963): hardly less efficient than the mean, and one launch that
    went astray does not move it. The interval is a percentile bootstrap over the launches (Efron and Tibshirani, "An
    Introduction to the Bootstrap", 1993, section 13.3), widened for their small number as Student's t is against the
    normal distribution: unwidened it held the truth in 87 % of simulated runs (decision 006).
    """
    units = [float(np.median(group)) for group in groups] if len(groups) > 1 else list(groups[0]) if groups else []
    if not units:
        raise ValueError("an interval needs at least one round")
    middle = _pairwise_median(np.asarray([units]))[0]
    if len(units) == 1:
        return Interval(0.0, math.exp(middle), math.inf)  # one measurement says nothing of its own spread
    chance = np.random.default_rng(seed)
    drawn = np.asarray(units)[chance.integers(0, len(units), (RESAMPLES, len(units)))]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(_pairwise_median(drawn), (tail, 1 - tail))
    wider = _small_sample_factor(len(units))
    return Interval(
        math.exp(middle - wider * max(middle - low, 0.0)),
        math.exp(middle),
        math.exp(middle + wider * max(high - middle, 0.0)),
    )


def _pairwise_median(samples: np.ndarray) -> np.ndarray:
    """The median of (x_i + x_j) / 2 over i <= j, of each row of `samples` [draws, units]."""
    first, second = np.triu_indices(samples.shape[1])
    estimates: np.ndarray = np.median((samples[:, first] + samples[:, second]) / 2, axis=1)
    return estimates


def _small_sample_factor(units: int) -> float:
    """t / z * sqrt(n / (n - 1)): what an interval made from n resampled units lacks."""
    return _student_quantile(units - 1) / _Z * math.sqrt(units / (units - 1))


_Z = 1.959964  # the 97.5 % quantile of the normal distribution
_FEW = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}


def _student_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t (Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.5)."""
    if freedom in _FEW:
        return _FEW[freedom]
    z, n = _Z, float(freedom)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3


def half_width(interval: Interval) -> float:
    """Half the width of a ratio's interval, relative to the ratio."""
    return (math.log(interval.high) - math.log(interval.low)) / 2
