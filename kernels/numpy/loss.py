"""Losses over classes: NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss.

Scores: (N, C, d1, ..., dk) with the classes along axis 1; labels: (N, d1, ..., dk), int32 or int64, each a class in
[0, C) or `ignore_index`; weight: (C,) or None. `reduction` is "none" (a loss for each label), "sum" or "mean" (the sum
over the sum of the weights that took part). float16 and bfloat16 are computed in float32 and rounded once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.kernels.numpy.halves import delivered, widened
from fusible.kernels.numpy.softmax import log_softmax

Array = np.ndarray[Any, Any]

_quiet = np.errstate(all="ignore")


@_quiet
def negative_log_likelihood_loss(
    scores: Array, labels: Array, weight: Array | None = None, /, *, reduction: str = "mean",
    ignore_index: int | None = None,
) -> Array:  # fmt: skip
    """loss = -scores[n, label, ...] * weight[label], 0 where the label is ignored; then reduced.

    Raises ValueError for labels that name no class, shapes that do not fit, or an unknown reduction.
    """
    return delivered(_loss(widened(scores), labels, weight, reduction, ignore_index), scores.dtype)


@_quiet
def softmax_cross_entropy_loss(
    scores: Array, labels: Array, weight: Array | None = None, /, *, reduction: str = "mean",
    ignore_index: int | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """The negative log likelihood of log_softmax(scores) along axis 1, and these logarithms themselves."""
    logarithms = log_softmax(widened(scores), axis=1)
    loss = _loss(logarithms, labels, weight, reduction, ignore_index)
    return delivered(loss, scores.dtype), delivered(logarithms, scores.dtype)


def _loss(scores: Array, labels: Array, weight: Array | None, reduction: str, ignore_index: int | None) -> Array:
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction must be 'none', 'sum' or 'mean', got {reduction!r}")
    if scores.ndim < 2 or labels.shape != scores.shape[:1] + scores.shape[2:]:
        raise ValueError(f"labels of shape {labels.shape} do not fit scores of shape {scores.shape}")
    classes = scores.shape[1]
    kept = np.ones(labels.shape, np.bool_) if ignore_index is None else labels != ignore_index
    named = np.where(kept, labels, 0)
    if named.size and (classes == 0 or named.min() < 0 or named.max() >= classes):
        raise ValueError(f"labels must lie in [0, {classes}) or be the ignored one")
    factor = np.ones((), scores.dtype) if weight is None else widened(weight)[named]
    factor = np.where(kept, factor, np.zeros((), scores.dtype))
    picked = np.take_along_axis(scores, np.expand_dims(named, 1), axis=1).squeeze(1)
    loss = np.where(kept, -picked * factor, np.zeros((), scores.dtype))
    if reduction == "none":
        return np.asarray(loss)
    total = np.asarray(np.sum(loss))
    return total if reduction == "sum" else np.asarray(total / np.sum(factor))
