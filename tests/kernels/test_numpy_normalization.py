"""Normalisations and Dropout against float64 formulas and ONNX Runtime."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fusible.kernels.numpy import normalization
from fusible.kernels.numpy.dropout import dropout
from tests.kernels.kernel_calls import agrees, call, normal, same_bits
from tests.kernels.single_node import run_node
from tests.tolerance import assert_close

FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
SHAPES = [(2, 3, 5, 7), (4, 6), (1, 3, 9), (0, 3, 4), (2, 3, 1, 2, 2)]


def parameters(channels: int, dtype: Any) -> list[np.ndarray]:
    """scale, bias, mean, variance."""
    rows = normal(4, channels, dtype=np.float64)
    rows[3] = np.abs(rows[3]) + 0.1
    return [np.ascontiguousarray(r).astype(dtype) for r in rows]


def spread(parameter: Any, rank: int) -> Any:
    return np.reshape(parameter, (-1, *(1,) * (rank - 2)))


def batch_reference(x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    s, b, m, v = (spread(p, x.ndim) for p in (scale, bias, mean, variance))
    return (x - m) / np.sqrt(v + 1e-3) * s + b


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_normalization(dtype: Any, shape: tuple[int, ...]) -> None:
    x, given = normal(*shape, dtype=dtype), parameters(shape[1], dtype)
    got = call(normalization.batch_normalization, x, *given, epsilon=1e-3)
    assert got.dtype == dtype
    agrees(got, [x, *given], batch_reference, accumulation=4)


def test_batch_normalization_of_mixed_types_and_of_a_vector() -> None:
    x, given = normal(2, 3, 4, dtype=np.float16), parameters(3, np.float32)
    agrees(call(normalization.batch_normalization, x, *given, epsilon=1e-3), [x, *given], batch_reference)
    vector, one = normal(5), parameters(1, np.float32)
    got = call(normalization.batch_normalization, vector, *one, epsilon=1e-3)
    agrees(got, [vector, *one], lambda v, *p: batch_reference(v[:, None], *p)[:, 0], accumulation=4)


@pytest.mark.parametrize("length", [1, 2, 4])
def test_parameters_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match="3 channels"):
        normalization.batch_normalization(normal(2, 3, 4), *parameters(length, np.float32))


@pytest.mark.parametrize("dtype", FLOATS)
def test_batch_normalization_in_training(dtype: Any) -> None:
    x, (scale, bias, mean, variance) = normal(4, 3, 5, dtype=dtype), parameters(3, dtype)
    y, running_mean, running_variance = normalization.batch_normalization_training(
        x, scale, bias, mean, variance, epsilon=1e-3, momentum=0.75
    )
    wide = x.astype(np.float64)
    m, v = wide.mean(axis=(0, 2)), wide.var(axis=(0, 2))
    agrees(y, [x, scale, bias], lambda a, s, b: batch_reference(a, s, b, m, v), accumulation=20)
    agrees(running_mean, [mean], lambda old: old * 0.75 + m * 0.25, accumulation=20)
    agrees(running_variance, [variance], lambda old: old * 0.75 + v * 0.25, accumulation=20)
    assert {a.dtype for a in (y, running_mean, running_variance)} == {np.dtype(dtype)}


def grouped_reference(x: Any, scale: Any, bias: Any, groups: int) -> Any:
    rows = x.reshape(x.shape[0], groups, -1)
    normal_ = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + 1e-3)
    return normal_.reshape(x.shape) * spread(scale, x.ndim) + spread(bias, x.ndim)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(2, 6, 5, 7), (1, 6, 4), (3, 6)])
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_group_and_instance_normalization(dtype: Any, shape: tuple[int, ...], groups: int) -> None:
    x = normal(*shape, dtype=dtype) + np.asarray(2, dtype)
    scale, bias, _, _ = parameters(6, dtype)
    count = int(np.prod(shape[1:])) // groups
    got = call(normalization.group_normalization, x, scale, bias, num_groups=groups, epsilon=1e-3)
    assert got.dtype == dtype
    agrees(got, [x, scale, bias], lambda a, s, b: grouped_reference(a, s, b, groups), accumulation=count + 2)
    if groups == 6:
        assert same_bits(call(normalization.instance_normalization, x, scale, bias, epsilon=1e-3), got)


def test_groups_that_do_not_divide_are_refused() -> None:
    scale, bias, _, _ = parameters(6, np.float32)
    for groups in (0, 4, 12):
        with pytest.raises(ValueError, match="divide"):
            normalization.group_normalization(normal(2, 6, 3), scale, bias, num_groups=groups)
    empty = call(normalization.group_normalization, normal(0, 6, 3), scale, bias, num_groups=2)
    assert empty.shape == (0, 6, 3)


def layer_reference(x: Any, axis: int) -> Any:
    axes = tuple(range(axis % x.ndim, x.ndim))
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-3), mean, 1 / np.sqrt(variance + 1e-3)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("axis", [-1, 1, 0])
@pytest.mark.parametrize("with_bias", [True, False])
def test_layer_normalization_and_its_statistics(dtype: Any, axis: int, with_bias: bool) -> None:
    x = normal(3, 4, 33, dtype=dtype) + np.asarray(1, dtype)
    scale = normal(*x.shape[axis:], dtype=dtype)
    bias = normal(*x.shape[axis:], 1, dtype=dtype)[..., 0] if with_bias else None
    count = int(np.prod(x.shape[axis:]))
    wide = x.astype(np.float64)
    expected, mean, inverse = layer_reference(wide, axis)
    expected = expected * scale.astype(np.float64) + (0 if bias is None else bias.astype(np.float64))
    got = call(normalization.layer_normalization, x, scale, bias, axis=axis, epsilon=1e-3)
    assert got.dtype == dtype
    assert_close(got, expected, accumulation=count)
    y, m, i = normalization.layer_normalization_statistics(x, scale, bias, axis=axis, epsilon=1e-3)
    assert same_bits(y, got)
    assert (m.dtype, i.dtype) == (np.float32, np.float32)
    assert_close(m, mean, accumulation=count)
    assert_close(i, inverse, accumulation=count)


def test_layer_normalization_as_in_onnx_runtime() -> None:
    x, scale, bias = normal(2, 5, 16, scale=10), normal(16), normal(16, 1)[:, 0]
    expected = run_node("LayerNormalization", [x, scale, bias], 3, opset=17)
    got = normalization.layer_normalization_statistics(x, scale, bias)
    for ours, theirs in zip(got, expected, strict=True):
        assert_close(ours, theirs, accumulation=16)


def test_variance_survives_a_large_mean() -> None:
    """E[x^2] - E[x]^2 would lose every digit here; the mean itself is a float32 and moves all of a row alike."""
    x = np.float32(4096) + normal(3, 64)
    expected, _, _ = layer_reference(x.astype(np.float64), -1)
    got = call(normalization.layer_normalization, x, np.ones(64, np.float32), epsilon=1e-3).astype(np.float64)
    assert np.abs(got - expected).max() < 1e-3
    assert np.abs(got - got.mean(axis=1, keepdims=True) - expected).max() < 1e-5


def test_statistics_in_bfloat16_and_in_float64() -> None:
    x, scale = normal(3, 8), normal(8)
    for stash in (ml_dtypes.bfloat16, np.float64):
        _, mean, inverse = normalization.layer_normalization_statistics(x, scale, stash_dtype=np.dtype(stash))
        assert {mean.dtype, inverse.dtype} == {np.dtype(stash)}
    exact = normalization.layer_normalization(x, scale, stash_dtype=np.dtype(np.float64), epsilon=1e-3)
    expected, _, _ = layer_reference(x.astype(np.float64), -1)
    assert np.array_equal(exact, (expected * scale.astype(np.float64)).astype(np.float32))


def test_normalizations_refuse_what_does_not_fit() -> None:
    x = normal(2, 3, 4)
    with pytest.raises(ValueError, match="axis"):
        normalization.layer_normalization(x, normal(4), axis=3)
    with pytest.raises(ValueError, match="broadcast"):
        normalization.layer_normalization(x, normal(3))
    with pytest.raises(ValueError, match="broadcast"):
        normalization.rms_normalization(x, normal(5))
    assert call(normalization.layer_normalization, x[:0], normal(4)).shape == (0, 3, 4)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("scale_dtype", FLOATS)
@pytest.mark.parametrize("axis", [-1, 1])
def test_rms_normalization(dtype: Any, scale_dtype: Any, axis: int) -> None:
    x, scale = normal(3, 4, 21, dtype=dtype), normal(*(3, 4, 21)[axis:], dtype=scale_dtype)
    axes = tuple(range(axis % 3, 3))
    got = call(normalization.rms_normalization, x, scale, axis=axis, epsilon=1e-3)
    assert got.dtype == scale_dtype
    agrees(
        got,
        [x, scale],
        lambda a, s: a / np.sqrt((a * a).mean(axes, keepdims=True) + 1e-3) * s,
        accumulation=84,
    )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_lp_normalization(dtype: Any, p: int, axis: int) -> None:
    x = normal(3, 5, 4, dtype=dtype)
    x[:, :, 2] = 0
    x[1] = 0
    x[:, 0] = 0

    def reference(a: Any) -> Any:
        norm = np.linalg.norm(a, p, axis=axis, keepdims=True)
        return np.where(norm == 0, 0, a / np.where(norm == 0, 1, norm))

    got = call(normalization.lp_normalization, x, axis=axis, p=p)
    assert got.dtype == dtype
    agrees(got, [x], reference, accumulation=5)
    with pytest.raises(ValueError, match="p must be"):
        normalization.lp_normalization(x, p=3)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("shape", [(2, 7, 3, 2), (1, 4), (2, 0, 3)])
def test_lrn(dtype: Any, size: int, shape: tuple[int, ...]) -> None:
    x = normal(*shape, dtype=dtype)

    def reference(a: Any) -> Any:
        total = np.zeros_like(a)
        for c in range(a.shape[1]):
            low, high = max(0, c - (size - 1) // 2), min(a.shape[1] - 1, c + -(-(size - 1) // 2))
            total[:, c] = (a[:, low : high + 1] ** 2).sum(axis=1)
        return a / (1.5 + 0.25 / size * total) ** 0.625

    got = call(normalization.lrn, x, size=size, alpha=0.25, beta=0.625, bias=1.5)
    assert got.dtype == dtype
    agrees(got, [x], reference, accumulation=20)


def test_lrn_as_in_onnx_runtime() -> None:
    x = normal(2, 9, 3, 4, scale=5)
    assert_close(call(normalization.lrn, x, size=5), run_node("LRN", [x], size=5)[0], accumulation=5)
    with pytest.raises(ValueError, match="size"):
        normalization.lrn(x, size=0)


def test_dropout_at_inference_changes_nothing() -> None:
    x = normal(3, 4)
    for arguments in ((), (np.asarray(0.9, np.float32),), (None, np.asarray(False))):
        y, mask = dropout(x, *arguments)
        assert same_bits(y, x) and mask.all() and mask.shape == x.shape and mask.dtype == np.bool_
    y, mask = dropout(x, np.asarray(0.0, np.float32), np.asarray(True))
    assert same_bits(y, x) and mask.all()


@pytest.mark.parametrize("dtype", [*FLOATS, ml_dtypes.float8_e5m2])
def test_dropout_in_training(dtype: Any) -> None:
    x, ratio, training = np.ones((100, 100), dtype), np.asarray(0.75, np.float32), np.asarray(True)
    y, mask = dropout(x, ratio, training, seed=5)
    assert abs(mask.mean() - 0.25) < 0.02
    assert y.dtype == dtype
    assert np.array_equal(y.astype(np.float64), mask * 4.0)
    assert same_bits(dropout(x, ratio, training, seed=5)[1], mask)
    assert not same_bits(dropout(x, ratio, training, seed=6)[1], mask)
    assert not same_bits(dropout(x, ratio, training)[1], dropout(x, ratio, training)[1])


def test_dropout_of_everything_is_refused() -> None:
    for ratio in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="ratio"):
            dropout(normal(2), np.asarray(ratio, np.float32), np.asarray(True))
