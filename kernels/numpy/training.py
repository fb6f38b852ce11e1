"""One step of an optimiser: ai.onnx.preview.training Adagrad, Adam, Momentum (version 1).

Tensors come grouped: all values X first, then all gradients G, then all states; the new values and states are returned
in the same grouping. Everything is computed in the type of the tensors (float32 or float64). (Gradient, the fourth op
of that domain, differentiates a subgraph: that is a compiler's task and has no kernel.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def adagrad(
    R: Array, T: Array, /, *tensors: Array, norm_coefficient: float = 0.0, decay_factor: float = 0.0,
    epsilon: float = 1e-6,
) -> tuple[Array, ...]:  # fmt: skip
    """New X, then new H, of tensors X, G, H (accumulated squared gradients).

    g = norm_coefficient * X + G; H' = H + g^2; X' = X - R / (1 + T * decay_factor) * g / (sqrt(H') + epsilon).
    R: learning rate, float []; T: update count, int64 []. Duchi, Hazan, Singer, JMLR 12 (2011).
    """
    rate = R / (1 + T * decay_factor)
    updated: list[tuple[Array, ...]] = []
    for x, gradient, squares in _grouped(tensors, 3):
        g = norm_coefficient * x + gradient
        new_squares = squares + g * g
        updated.append((x - rate.astype(x.dtype) * g / (np.sqrt(new_squares) + epsilon), new_squares))
    return _regrouped(updated)


def adam(
    R: Array, T: Array, /, *tensors: Array, alpha: float = 0.9, beta: float = 0.999, norm_coefficient: float = 0.0,
    norm_coefficient_post: float = 0.0, epsilon: float = 1e-6,
) -> tuple[Array, ...]:  # fmt: skip
    """New X, then new V, then new H, of tensors X, G, V (mean gradients), H (mean squared gradients).

    g = norm_coefficient * X + G; V' = alpha V + (1 - alpha) g; H' = beta H + (1 - beta) g^2;
    X' = (1 - norm_coefficient_post) * (X - r V' / (sqrt(H') + epsilon)),
    r = R sqrt(1 - beta^T) / (1 - alpha^T) for T > 0, else R. Kingma, Ba, arXiv:1412.6980.
    """
    count = int(T)
    correction = np.sqrt(1 - beta**count) / (1 - alpha**count) if count > 0 else 1.0
    updated: list[tuple[Array, ...]] = []
    for x, gradient, mean, squares in _grouped(tensors, 4):
        g = norm_coefficient * x + gradient
        new_mean = alpha * mean + (1 - alpha) * g
        new_squares = beta * squares + (1 - beta) * g * g
        moved = x - (R * correction).astype(x.dtype) * new_mean / (np.sqrt(new_squares) + epsilon)
        updated.append(((1 - norm_coefficient_post) * moved, new_mean, new_squares))
    return _regrouped(updated)


def momentum(
    R: Array, T: Array, /, *tensors: Array, alpha: float, beta: float, norm_coefficient: float, mode: str
) -> tuple[Array, ...]:
    """New X, then new V, of tensors X, G, V (momenta).

    g = norm_coefficient * X + G; V' = alpha V + (beta if T > 0 else 1) g; X' = X - R V' in mode "standard",
    X - R (g + alpha V') in mode "nesterov". Raises ValueError for another mode.
    """
    if mode not in ("standard", "nesterov"):
        raise ValueError(f"momentum: mode must be standard or nesterov, got {mode!r}")
    weight = beta if int(T) > 0 else 1.0
    updated: list[tuple[Array, ...]] = []
    for x, gradient, velocity in _grouped(tensors, 3):
        g = norm_coefficient * x + gradient
        new_velocity = alpha * velocity + weight * g
        direction = g + alpha * new_velocity if mode == "nesterov" else new_velocity
        updated.append((x - R.astype(x.dtype) * direction, new_velocity))
    return _regrouped(updated)


def _grouped(tensors: tuple[Array, ...], groups: int) -> list[tuple[Array, ...]]:
    """(X1, X2, G1, G2, ...) -> [(X1, G1, ...), (X2, G2, ...)]."""
    count, rest = divmod(len(tensors), groups)
    if rest or not tensors:
        raise ValueError(f"an optimiser takes {groups} tensors for each parameter, got {len(tensors)} in all")
    return [tensors[k::count] for k in range(count)]


def _regrouped(updated: list[tuple[Array, ...]]) -> tuple[Array, ...]:
    return tuple(np.asarray(tensor) for group in zip(*updated, strict=True) for tensor in group)
