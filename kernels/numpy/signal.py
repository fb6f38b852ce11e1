"""Signals: DFT, STFT, windows, and the mel filter bank. Complex numbers are pairs along the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.kernels.numpy.halves import delivered, widened
from fusible.kernels.numpy.movement import normalise_axis

Array = np.ndarray[Any, Any]


def dft(
    X: Array, /, *, axis: int = -2, dft_length: int | None = None, inverse: bool = False, onesided: bool = False
) -> Array:
    """The discrete Fourier transform along `axis` of X [..., 1] (real) or [..., 2] (complex): Y [..., 2].

    y[k] = sum_n x[n] exp(-2 pi i k n / N), or inverse x[n] = 1 / N sum_k y[k] exp(2 pi i k n / N). The axis is cut or
    filled with zeros to N = dft_length (None: as it is). onesided: only the first N // 2 + 1 frequencies are returned;
    inverse and onesided: only those are read, and the result is real, [..., 1], N being 2 * (size - 1) if not given.
    """
    axis = _signal_axis(X, axis)
    signal = as_complex(X)
    if inverse and onesided:
        length = 2 * (X.shape[axis] - 1) if dft_length is None else dft_length
        _check_length(length)
        return delivered(np.fft.irfft(signal, length, axis=axis)[..., None], X.dtype)
    length = X.shape[axis] if dft_length is None else dft_length
    _check_length(length)
    if inverse:
        found = np.fft.ifft(signal, length, axis=axis)
    elif onesided and signal.dtype.kind != "c":
        found = np.fft.rfft(signal, length, axis=axis)
    else:
        found = np.fft.fft(signal, length, axis=axis)
        if onesided:
            found = found[(slice(None),) * axis + (slice(0, length // 2 + 1),)]
    return as_pairs(found, X.dtype)


def dft_dynamic(
    X: Array, dft_length: Array | None = None, axis: Array | None = None, /, *, inverse: bool = False,
    onesided: bool = False,
) -> Array:  # fmt: skip
    """`dft` with length and axis known at run time; absent ones have their defaults."""
    length = None if dft_length is None else int(dft_length.reshape(()))
    along = -2 if axis is None else int(axis.reshape(()))
    return dft(X, axis=along, dft_length=length, inverse=inverse, onesided=onesided)


def stft(
    X: Array, window: Array | None = None, /, *, frame_step: int, frame_length: int | None = None, onesided: bool = True
) -> Array:
    """The Fourier transforms of windowed frames, `frame_step` apart: X [B, length, 1 or 2] -> [B, frames, bins, 2].

    A frame has as many elements as the window, or frame_length, or all; only whole frames count. onesided: bins are
    frame_length // 2 + 1, for real signals.
    """
    if X.ndim != 3:
        raise ValueError(f"STFT takes a signal [B, length, 1 or 2], got shape {X.shape}")
    length = frame_length if frame_length is not None else len(window) if window is not None else X.shape[1]
    if window is not None and window.shape != (length,):
        raise ValueError(f"the window must have shape ({length},), got {window.shape}")
    if frame_step < 1 or not 1 <= length <= X.shape[1]:
        raise ValueError(f"frames of {length} elements every {frame_step} do not fit a signal of {X.shape[1]}")
    signal = as_complex(X)
    if onesided and signal.dtype.kind == "c":
        raise ValueError("a one-sided STFT takes a real signal")
    frames = np.lib.stride_tricks.sliding_window_view(signal, length, axis=1)[:, ::frame_step]
    if window is not None:
        frames = frames * widened(window)
    return as_pairs(np.fft.rfft(frames) if onesided else np.fft.fft(frames), X.dtype)


def stft_dynamic(
    X: Array, frame_step: Array, window: Array | None = None, frame_length: Array | None = None, /, *,
    onesided: bool = True,
) -> Array:  # fmt: skip
    """`stft` with step and length known at run time."""
    length = None if frame_length is None else int(frame_length.reshape(()))
    return stft(X, window, frame_step=int(frame_step.reshape(())), frame_length=length, onesided=onesided)


def _signal_axis(X: Array, axis: int) -> int:
    if X.ndim < 2 or X.shape[-1] not in (1, 2):
        raise ValueError(f"a signal has shape [..., 1] or [..., 2], got {X.shape}")
    along = normalise_axis(axis, X.ndim)
    if along == X.ndim - 1:
        raise ValueError("the last axis holds real and imaginary parts and cannot be transformed")
    return along


def _check_length(length: int) -> None:
    if length < 1:
        raise ValueError(f"a Fourier transform needs at least one element, got {length}")


def as_complex(X: Array) -> Array:
    """[..., 1] as real, [..., 2] as complex numbers [...]."""
    wide = widened(X)
    if X.shape[-1] == 1:
        return wide[..., 0]
    pairs = np.ascontiguousarray(wide)
    return pairs.view(np.complex64 if wide.dtype == np.float32 else np.complex128)[..., 0]


def as_pairs(values: Array, dtype: np.dtype[Any]) -> Array:
    """Complex numbers [...] as [..., 2] of a float type."""
    return delivered(np.stack([values.real, values.imag], axis=-1), dtype)


def hann_window(*, size: int, dtype: np.dtype[Any], periodic: bool = True) -> Array:
    """sin(pi n / N)**2 for n < size, N = size if periodic, else size - 1."""
    return _cosines((0.5, -0.5), size, dtype, periodic)


def hamming_window(*, size: int, dtype: np.dtype[Any], periodic: bool = True) -> Array:
    """25/46 - 21/46 cos(2 pi n / N); N as for `hann_window`."""
    return _cosines((25 / 46, -21 / 46), size, dtype, periodic)


def blackman_window(*, size: int, dtype: np.dtype[Any], periodic: bool = True) -> Array:
    """0.42 - 0.5 cos(2 pi n / N) + 0.08 cos(4 pi n / N); N as for `hann_window`."""
    return _cosines((0.42, -0.5, 0.08), size, dtype, periodic)


def _cosines(factors: tuple[float, ...], size: int, dtype: np.dtype[Any], periodic: bool) -> Array:
    """The sum of factors[k] * cos(2 pi k n / N); a symmetric window of one element is 1."""
    if size < 0:
        raise ValueError(f"a window cannot have {size} elements")
    whole = size if periodic else size - 1
    if size == 1 and not periodic:
        return np.ones(1, dtype)
    angle = 2 * np.pi * np.arange(size) / max(whole, 1)
    total = sum((f * np.cos(k * angle) for k, f in enumerate(factors)), start=np.zeros(size))
    return delivered(total, dtype)


def _window_dynamic(window: Any, size: Array, dtype: np.dtype[Any], periodic: bool) -> Array:
    return window(size=int(size.reshape(())), dtype=dtype, periodic=periodic)  # type: ignore[no-any-return]


def hann_window_dynamic(size: Array, /, *, dtype: np.dtype[Any], periodic: bool = True) -> Array:
    """`hann_window` of a size known at run time."""
    return _window_dynamic(hann_window, size, dtype, periodic)


def hamming_window_dynamic(size: Array, /, *, dtype: np.dtype[Any], periodic: bool = True) -> Array:
    """`hamming_window` of a size known at run time."""
    return _window_dynamic(hamming_window, size, dtype, periodic)


def blackman_window_dynamic(size: Array, /, *, dtype: np.dtype[Any], periodic: bool = True) -> Array:
    """`blackman_window` of a size known at run time."""
    return _window_dynamic(blackman_window, size, dtype, periodic)


def mel_weight_matrix(
    *, num_mel_bins: int, dft_length: int, sample_rate: int, lower_edge_hertz: float, upper_edge_hertz: float,
    dtype: np.dtype[Any],
) -> Array:  # fmt: skip
    """Triangular filters [dft_length // 2 + 1, num_mel_bins] that turn a spectrum into mel bands.

    The corners lie evenly on the scale mel(f) = 2595 log10(1 + f / 700), rounded down to whole frequencies; each band
    rises from its lower corner to 1 at the next and falls to 0 at the one after.
    """
    bins = dft_length // 2 + 1
    if num_mel_bins < 0 or dft_length < 0 or sample_rate < 1:
        raise ValueError(f"{num_mel_bins} bands of {dft_length} elements at {sample_rate} Hz make no filter bank")
    low, high = (2595 * np.log10(1 + edge / 700) for edge in (lower_edge_hertz, upper_edge_hertz))
    mel = low + np.arange(num_mel_bins + 2) * (high - low) / (num_mel_bins + 2)
    hertz = 700 * (10 ** (mel / 2595) - 1)
    corners = np.floor((dft_length + 1) * hertz / sample_rate).astype(np.int64)
    if num_mel_bins and not (corners.min() >= 0 and corners[:-1].max() < bins and corners.max() <= bins):
        raise ValueError(f"frequencies from {lower_edge_hertz} to {upper_edge_hertz} Hz do not lie in the spectrum")
    lower, centre, upper = corners[:-2], corners[1:-1], corners[2:]
    place = np.arange(bins)[:, None]
    with np.errstate(all="ignore"):
        rising = np.where(centre == lower, place == centre, (place - lower) / (centre - lower))
        falling = (upper - place) / (upper - centre)
    matrix = np.where((place >= lower) & (place <= centre), rising, 0.0)
    matrix = np.where((place >= centre) & (place < upper), np.where(upper > centre, falling, matrix), matrix)
    return delivered(matrix, dtype)


def mel_weight_matrix_dynamic(
    num_mel_bins: Array, dft_length: Array, sample_rate: Array, lower_edge_hertz: Array, upper_edge_hertz: Array, /, *,
    dtype: np.dtype[Any],
) -> Array:  # fmt: skip
    """`mel_weight_matrix` with everything known at run time."""
    numbers = (int(x.reshape(())) for x in (num_mel_bins, dft_length, sample_rate))
    bands, length, rate = numbers
    return mel_weight_matrix(
        num_mel_bins=bands, dft_length=length, sample_rate=rate, lower_edge_hertz=float(lower_edge_hertz.reshape(())),
        upper_edge_hertz=float(upper_edge_hertz.reshape(())), dtype=dtype,
    )  # fmt: skip
