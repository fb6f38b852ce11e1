"""Optimiser steps against their formulas in float64, one tensor at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusible.kernels.numpy.training import adagrad, adam, momentum
from tests.tolerance import assert_close

RATE = np.array(0.1, np.float32)


def tensors(groups: int, dtype: Any) -> list[list[np.ndarray]]:
    """For each of two parameters its value, gradient and (positive) states."""
    random = np.random.default_rng(0)
    shapes = [(3, 5), (0,)]
    made = [[random.standard_normal(shape).astype(dtype) for _ in range(groups)] for shape in shapes]
    return [[*parameter[:2], *(np.abs(state) for state in parameter[2:])] for parameter in made]


def interleaved(parameters: list[list[np.ndarray]]) -> list[np.ndarray]:
    return [tensor for group in zip(*parameters, strict=True) for tensor in group]


def check(got: tuple[np.ndarray, ...], expected: list[list[np.ndarray]], dtype: Any) -> None:
    wanted = interleaved(expected)
    assert len(got) == len(wanted)
    for tensor, reference in zip(got, wanted, strict=True):
        assert tensor.dtype == dtype
        assert_close(tensor, reference, accumulation=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [0, 3])
def test_adagrad(dtype: Any, count: int) -> None:
    parameters = tensors(3, dtype)
    expected = []
    for x, g, h in ([t.astype(np.float64) for t in p] for p in parameters):
        g = g + 0.01 * x
        h = h + g * g
        expected.append([x - float(RATE) / (1 + count * 0.1) * g / (np.sqrt(h) + 1e-5), h])
    attributes = {"norm_coefficient": 0.01, "decay_factor": 0.1, "epsilon": 1e-5}
    check(adagrad(RATE, np.array(count), *interleaved(parameters), **attributes), expected, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [0, 3])
def test_adam(dtype: Any, count: int) -> None:
    parameters = tensors(4, dtype)
    rate = float(RATE) * (np.sqrt(1 - 0.99**count) / (1 - 0.8**count) if count else 1)
    expected = []
    for x, g, v, h in ([t.astype(np.float64) for t in p] for p in parameters):
        g = g + 0.01 * x
        v, h = 0.8 * v + 0.2 * g, 0.99 * h + 0.01 * g * g
        expected.append([0.95 * (x - rate * v / (np.sqrt(h) + 1e-5)), v, h])
    attributes = {"alpha": 0.8, "beta": 0.99, "norm_coefficient": 0.01, "norm_coefficient_post": 0.05, "epsilon": 1e-5}
    check(adam(RATE, np.array(count), *interleaved(parameters), **attributes), expected, dtype)


@pytest.mark.parametrize("mode", ["standard", "nesterov"])
@pytest.mark.parametrize("count", [0, 3])
def test_momentum(mode: str, count: int) -> None:
    parameters = tensors(3, np.float32)
    expected = []
    for x, g, v in ([t.astype(np.float64) for t in p] for p in parameters):
        g = g + 0.01 * x
        v = 0.9 * v + (0.3 if count else 1) * g
        expected.append([x - float(RATE) * (g + 0.9 * v if mode == "nesterov" else v), v])
    attributes = {"alpha": 0.9, "beta": 0.3, "norm_coefficient": 0.01}
    check(momentum(RATE, np.array(count), *interleaved(parameters), mode=mode, **attributes), expected, np.float32)


def test_bad_arguments() -> None:
    x = np.zeros(2, np.float32)
    with pytest.raises(ValueError, match="standard or nesterov"):
        momentum(RATE, np.array(0), x, x, x, alpha=0.9, beta=0.9, norm_coefficient=0, mode="other")
    with pytest.raises(ValueError, match="3 tensors"):
        adagrad(RATE, np.array(0), x, x)
