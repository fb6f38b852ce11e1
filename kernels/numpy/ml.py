"""Classical machine learning (domain ai.onnx.ml): feature extraction, encoding, scaling and linear models.

Trees are in `tree_ensemble`. Maps (ZipMap, DictVectorizer, CastMap) have no kernel: there is no type for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def array_feature_extractor(x: Array, y: Array, /) -> Array:
    """The columns y (int64, any shape) of the last axis of x: [..., number of columns]; a vector yields [1, n]."""
    rows = x.reshape(1, -1) if x.ndim == 1 else x
    columns = y.ravel()
    if columns.size and not 0 <= columns.min() <= columns.max() < rows.shape[-1]:
        raise ValueError(f"array_feature_extractor: the last axis has {rows.shape[-1]} elements, asked for {columns}")
    return np.take(rows, columns, axis=-1)


def binarizer(x: Array, /, *, threshold: float = 0.0) -> Array:
    """1 where x > threshold, else 0, in the type of x."""
    return np.greater(x, threshold).astype(x.dtype)


def feature_vectorizer(*inputs: Array, inputdimensions: Sequence[int]) -> Array:
    """The inputs [N, C_i] side by side as float32 [N, sum], each cut or zero-padded to inputdimensions[i] columns.

    Vectors are rows; further dimensions count as columns.
    """
    if len(inputs) != len(inputdimensions):
        raise ValueError(f"feature_vectorizer: {len(inputs)} inputs, but {len(inputdimensions)} inputdimensions")
    tables = [x.reshape(1, -1) if x.ndim == 1 else x.reshape(x.shape[0], -1) for x in inputs]
    y = np.zeros((tables[0].shape[0], sum(inputdimensions)), np.float32)
    end = 0
    for table, width in zip(tables, inputdimensions, strict=True):
        used = min(width, table.shape[1])
        y[:, end : end + used] = table[:, :used]
        end += width
    return y


def imputer(x: Array, imputed: Array, replaced: Array, /) -> Array:
    """x [..., F] with `imputed` ([1] or [F]) where it equals `replaced` ([]); NaN equals NaN here. All of one type."""
    missing = np.isnan(x) if replaced.dtype.kind == "f" and np.isnan(replaced) else x == replaced
    return np.where(missing, imputed, x)


def label_encoder(x: Array, keys: Array, values: Array, default: Array, /) -> Array:
    """values[i] where x is keys[i], else `default` ([] of the type of values).

    NaN equals NaN; of equal keys the last counts, as the standard says.
    """
    if keys.shape != values.shape or keys.ndim != 1:
        raise ValueError(f"label_encoder takes as many values as keys, got {keys.shape} and {values.shape}")
    table = np.concatenate([values, default.reshape(1)])
    places = {_key(key): at for at, key in enumerate(keys.tolist())}
    distinct, inverse = np.unique(x.ravel(), return_inverse=True)
    at = [places.get(_key(item), len(keys)) for item in distinct.tolist()]
    return table[np.array(at, np.intp)[inverse]].reshape(x.shape)


def _key(item: str | float) -> str | float:
    """What stands for the item in a dictionary: itself, and one object for all NaN."""
    return np.nan if isinstance(item, float) and np.isnan(item) else item


def linear_regressor(
    x: Array, coefficients: Array, intercepts: Array | None = None, /, *, post_transform: str = "NONE"
) -> Array:
    """x [N, F] or [F] times coefficients [targets, F] plus intercepts [targets], transformed: float32 [N, targets]."""
    rows = x.reshape(1, -1) if x.ndim == 1 else x
    y = rows.astype(np.float32) @ coefficients.T
    if intercepts is not None:
        y += intercepts
    return transformed(y, post_transform)


def normalizer(x: Array, /, *, norm: str = "MAX") -> Array:
    """Rows divided by their maximum ("MAX"), sum of magnitudes ("L1") or Euclidean norm ("L2"): float32.

    A row whose divisor is 0 stays as it is.
    """
    y = x.astype(np.float32)
    match norm:
        case "MAX":
            divisor = y.max(axis=-1, keepdims=True, initial=-np.inf)
        case "L1":
            divisor = np.abs(y).sum(axis=-1, keepdims=True)
        case "L2":
            divisor = np.sqrt(np.square(y).sum(axis=-1, keepdims=True))
        case _:
            raise ValueError(f"normalizer: norm must be MAX, L1 or L2, got {norm!r}")
    with np.errstate(all="ignore"):
        return np.asarray(y / np.where(divisor == 0, np.float32(1), divisor), np.float32)


def one_hot_encoder(x: Array, categories: Array, /, *, zeros: bool = True) -> Array:
    """float32 [..., number of categories] with 1 at the category of each element, numbers being truncated to integers.

    An element of no category becomes all zeros, or raises ValueError if `zeros` is False.
    """
    items = x if x.dtype == object else x.astype(np.int64)
    y = np.equal(items[..., None], categories).astype(np.bool_)
    if not zeros and not y.any(axis=-1).all():
        raise ValueError("one_hot_encoder: an element is of no category")
    return y.astype(np.float32)


def scaler(x: Array, offset: Array, scale: Array, /) -> Array:
    """(x - offset) * scale as float32; offset and scale (float32) have one element or one for each of the last axis."""
    return np.asarray((x.astype(np.float32) - offset) * scale, np.float32)


def transformed(scores: Array, post_transform: str) -> Array:
    """Scores [..., C] after "NONE", "SOFTMAX", "SOFTMAX_ZERO" (zeros stay zero) or "LOGISTIC"."""
    match post_transform:
        case "NONE":
            return scores
        case "LOGISTIC":
            with np.errstate(over="ignore"):
                return np.asarray(1 / (1 + np.exp(-scores)), scores.dtype)
        case "SOFTMAX" | "SOFTMAX_ZERO":
            powers = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-np.inf))
            if post_transform == "SOFTMAX_ZERO":
                powers = np.where(scores == 0, np.zeros((), scores.dtype), powers)
            total = powers.sum(axis=-1, keepdims=True)
            return np.asarray(powers / np.where(total == 0, 1, total), scores.dtype)
        case _:
            raise ValueError(f"post_transform {post_transform!r} is not supported")
