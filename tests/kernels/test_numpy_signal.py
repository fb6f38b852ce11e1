"""Fourier transforms, windows and mel filters against their sums in float64, and ONNX Runtime."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fusible.kernels.numpy import signal
from tests.kernels.single_node import run_node
from tests.tolerance import assert_close


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.asarray(np.random.default_rng(shape).standard_normal(shape)).astype(dtype)


def transform(x: np.ndarray, axis: int, length: int, sign: int) -> np.ndarray:
    """The sum that the transform stands for, over complex128 values, zero-padded or cut to `length`."""
    x = np.moveaxis(x, axis, -1)[..., :length]
    k = np.arange(length)[:, None] * np.arange(x.shape[-1])
    return np.moveaxis(x @ np.exp(sign * 2j * np.pi * k / length).T, -1, axis)


def pairs(x: np.ndarray) -> np.ndarray:
    return np.stack([x.real, x.imag], axis=-1)


def numbers(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    return wide[..., 0] if x.shape[-1] == 1 else wide[..., 0] + 1j * wide[..., 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(("axis", "length"), [(1, None), (-2, None), (1, 4), (2, 9), (0, 1)])
def test_dft(axis: int, length: int | None, parts: int, dtype: Any) -> None:
    x = normal(3, 6, 5, parts, dtype=dtype)
    along, values = axis % 4, numbers(x)
    size = length or x.shape[along]
    forward = transform(values, along, size, -1)
    assert_close(signal.dft(x, axis=axis, dft_length=length), pairs(forward), accumulation=64)
    half = np.take(forward, range(size // 2 + 1), axis=along)
    assert_close(signal.dft(x, axis=axis, dft_length=length, onesided=True), pairs(half), accumulation=64)
    backward = transform(values, along, size, 1) / size
    assert_close(signal.dft(x, axis=axis, dft_length=length, inverse=True), pairs(backward), accumulation=64)


@pytest.mark.parametrize("size", [6, 7])
def test_one_sided_transforms_undo_each_other(size: int) -> None:
    x = normal(2, size, 3, 1)
    spectrum = signal.dft(x, axis=1, onesided=True)
    assert_close(signal.dft(spectrum, axis=1, dft_length=size, inverse=True, onesided=True), x, accumulation=64)
    if size == 6:
        assert_close(signal.dft(spectrum, axis=1, inverse=True, onesided=True), x, accumulation=64)


def test_dft_dynamic_and_onnx_runtime() -> None:
    x = normal(2, 8, 3, 1)
    for onesided in (0, 1):
        (expected,) = run_node("DFT", [x, np.array(6), np.array(1)], opset=20, onesided=onesided)
        got = signal.dft_dynamic(x, np.array(6), np.array(1), onesided=bool(onesided))
        assert_close(got, expected, accumulation=64)
    assert_close(signal.dft_dynamic(x), signal.dft(x, axis=-2))
    for wrong in ({"axis": -1}, {"axis": 4}, {"dft_length": 0}):
        with pytest.raises(ValueError, match=r"axis|element"):
            signal.dft(x, **wrong)


@pytest.mark.parametrize("onesided", [True, False])
def test_stft(onesided: bool) -> None:
    x, window = normal(2, 30, 1), np.abs(normal(8))
    operands = [x, np.array(3), window, np.array(8)]
    (expected,) = run_node("STFT", operands, opset=17, onesided=int(onesided))
    got = signal.stft(x, window, frame_step=3, frame_length=8, onesided=onesided)
    assert_close(got, expected, accumulation=64)
    assert_close(signal.stft_dynamic(*operands, onesided=onesided), expected, accumulation=64)
    frames = np.stack([x[:, i : i + 8, 0] * window for i in range(0, 23, 3)], axis=1)
    full = transform(frames.astype(np.complex128), 2, 8, -1)
    assert_close(got, pairs(full[..., : got.shape[2]]), accumulation=64)


def test_stft_of_complex_signals_and_defaults() -> None:
    x = normal(1, 12, 2)
    got = signal.stft(x, frame_step=4, frame_length=8, onesided=False)
    expected = np.stack([numbers(x)[:, i : i + 8] for i in (0, 4)], axis=1)
    assert_close(got, pairs(transform(expected, 2, 8, -1)), accumulation=64)
    assert signal.stft(x[..., :1], frame_step=4).shape == (1, 1, 7, 2)
    assert signal.stft(normal(0, 12, 1), frame_step=4, frame_length=4).shape == (0, 3, 3, 2)
    with pytest.raises(ValueError, match="real"):
        signal.stft(x, frame_step=4)
    with pytest.raises(ValueError, match="fit"):
        signal.stft(x, frame_step=4, frame_length=13, onesided=False)


@pytest.mark.parametrize("name", ["Hann", "Hamming", "Blackman"])
@pytest.mark.parametrize("periodic", [True, False])
def test_windows(name: str, periodic: bool) -> None:
    window = getattr(signal, f"{name.lower()}_window")
    for size in (2, 9, 10):
        (expected,) = run_node(f"{name}Window", [np.array(size)], periodic=int(periodic))
        assert np.allclose(window(size=size, dtype=np.dtype(np.float32), periodic=periodic), expected, atol=1e-6)
    assert window(size=0, dtype=np.dtype(np.float16)).shape == (0,)
    assert window(size=1, dtype=np.dtype(np.float64), periodic=False).tolist() == [1.0]
    dynamic = getattr(signal, f"{name.lower()}_window_dynamic")
    assert dynamic(np.array([5]), dtype=np.dtype(ml_dtypes.bfloat16)).dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(("bands", "length", "rate"), [(8, 64, 16000), (20, 65, 16384), (40, 64, 16000)])
def test_mel_weight_matrix(bands: int, length: int, rate: int) -> None:
    low, high = 20.0, rate / 2.2
    operands = [
        *(np.array(v, np.int64) for v in (bands, length, rate)),
        np.array(low, np.float32),
        np.array(high, np.float32),
    ]
    (expected,) = run_node("MelWeightMatrix", operands)
    got = signal.mel_weight_matrix_dynamic(*operands, dtype=np.dtype(np.float32))
    assert got.shape == expected.shape
    # A corner may fall on either side of a whole frequency in float32.
    assert np.mean(np.abs(got - expected).max(axis=0) > 1e-5) <= 2 / bands
    assert got.max() == 1
    assert ((got > 0).sum(axis=0) > 0).all()
    with pytest.raises(ValueError, match="spectrum"):
        signal.mel_weight_matrix(
            num_mel_bins=8, dft_length=16, sample_rate=8000, lower_edge_hertz=0.0, upper_edge_hertz=9000.0,
            dtype=np.dtype(np.float32),
        )  # fmt: skip
