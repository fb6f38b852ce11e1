"""The activation functions that RNN, GRU and LSTM name in their attributes.

Each is built by name, alpha and beta and maps an array to an array of the same shape; it may overwrite its argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array = np.ndarray[Any, Any]
Activation: TypeAlias = Callable[[Array], Array]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), in place. The caller silences the overflow of exp, whose reciprocal is the right 0."""
    np.negative(x, out=x)
    np.exp(x, out=x)
    x += 1
    return np.reciprocal(x, out=x)


def tanh(x: Array) -> Array:
    """tanh(x), in place."""
    return np.tanh(x, out=x)


def _relu(x: Array) -> Array:
    return np.maximum(x, 0, out=x)


def _softsign(x: Array) -> Array:
    return np.asarray(x / (1 + np.abs(x)))


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, np.zeros((), x.dtype))


def _affine(alpha: float, beta: float) -> Activation:
    return lambda x: alpha * x + beta


def _leaky_relu(alpha: float, _: float) -> Activation:
    return lambda x: np.where(x >= 0, x, alpha * x)


def _thresholded_relu(alpha: float, _: float) -> Activation:
    return lambda x: np.where(x >= alpha, x, 0).astype(x.dtype, copy=False)


def _scaled_tanh(alpha: float, beta: float) -> Activation:
    return lambda x: alpha * np.tanh(beta * x)


def _hard_sigmoid(alpha: float, beta: float) -> Activation:
    return lambda x: np.clip(alpha * x + beta, 0, 1)


def _elu(alpha: float, _: float) -> Activation:
    return lambda x: np.where(x >= 0, x, alpha * np.expm1(x))


_PLAIN: dict[str, Activation] = {
    "sigmoid": sigmoid,
    "tanh": tanh,
    "relu": _relu,
    "softsign": _softsign,
    "softplus": _softplus,
}
_UNUSED = "unused"
_Default: TypeAlias = float | str | None  # "unused": the function has no such parameter; None: it must be given
_PARAMETRIC: dict[str, tuple[Callable[[float, float], Activation], _Default, _Default]] = {
    "affine": (_affine, 1.0, 0.0),
    "leakyrelu": (_leaky_relu, 0.01, _UNUSED),
    "thresholdedrelu": (_thresholded_relu, 1.0, _UNUSED),
    "scaledtanh": (_scaled_tanh, None, None),
    "hardsigmoid": (_hard_sigmoid, 0.2, 0.5),
    "elu": (_elu, 1.0, _UNUSED),
}


@dataclass(frozen=True)
class ActivationChoice:
    """An activation by its lower-case name, with its parameters (0 where it has none)."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0

    def build(self) -> Activation:
        """The function."""
        plain = _PLAIN.get(self.name)
        return plain if plain is not None else _PARAMETRIC[self.name][0](self.alpha, self.beta)


def choose_activations(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]
) -> list[ActivationChoice]:
    """The named activations; alphas and betas are handed out in order to those that take them.

    Names are compared without regard to case. Raises ValueError for an unknown name and for ScaledTanh, which has no
    default parameters, without them.
    """
    alpha_values, beta_values = iter(alphas), iter(betas)
    return [_choose(name, alpha_values, beta_values) for name in names]


def _choose(name: str, alphas: Iterator[float], betas: Iterator[float]) -> ActivationChoice:
    key = name.lower()
    if key in _PLAIN:
        return ActivationChoice(key)
    if key not in _PARAMETRIC:
        known = ", ".join(sorted([*_PLAIN, *_PARAMETRIC]))
        raise ValueError(f"activation {name!r} of a recurrent layer is unknown; expected one of {known}")
    _, alpha, beta = _PARAMETRIC[key]
    return ActivationChoice(key, _parameter(name, "alpha", alphas, alpha), _parameter(name, "beta", betas, beta))


def _parameter(name: str, which: str, values: Iterator[float], default: _Default) -> float:
    if isinstance(default, str):
        return 0.0
    value = next(values, default)
    if value is None:
        raise ValueError(f"activation {name!r} has no default activation_{which}; it must be given")
    return float(value)
