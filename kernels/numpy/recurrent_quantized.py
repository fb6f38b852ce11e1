"""com.microsoft DynamicQuantizeLSTM: an LSTM whose weights are 8-bit and whose activations are quantised as they come.

The semantics are those of ONNX Runtime's CPU kernel on one thread: the whole input (up to the longest sequence) is
quantised to uint8 at once, the hidden states of a batch together at each step; products are exact integers, scaled
by (activation scale * weight scale) and added in float32. (On several threads ONNX Runtime quantises parts of a batch
separately, which moves results by fractions of a quantisation step.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusible.kernels.numpy.integer_matmul import centred, integer_matmul, magnitude
from fusible.kernels.numpy.quantization import dynamic_range
from fusible.kernels.numpy.recurrent import Recurrence, checked_layer, directions_of, lstm_over, time_first

Array = np.ndarray[Any, Any]


def dynamic_quantize_lstm(
    X: Array, W: Array, R: Array, B: Array | None, sequence_lens: Array | None, initial_h: Array | None,
    initial_c: Array | None, P: Array | None, W_scale: Array, W_zero_point: Array, R_scale: Array,
    R_zero_point: Array, /, *, direction: str = "forward", activations: Sequence[str] = (),
    activation_alpha: Sequence[float] = (), activation_beta: Sequence[float] = (), clip: float | None = None,
    input_forget: int = 0, layout: int = 0,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Y, Y_h, Y_c as of `lstm`, all float32.

    X float32 [T, B, I]; W int8 or uint8 [D, I, 4H], R [D, H, 4H] (transposed against LSTM); their scales float32 and
    zero points of W's type, [D] or [D, 4H]; B, P, states and attributes as for `lstm`.
    """
    x, reverse = time_first(X, layout), directions_of(direction)
    hidden = R.shape[1] if R.ndim == 3 else -1
    for name, weight, rows in (("W", W, x.shape[2]), ("R", R, hidden)):
        wanted = (len(reverse), rows, 4 * hidden)
        if weight.shape != wanted:
            raise ValueError(f"{name} of dynamic_quantize_lstm must have shape {wanted}, got {weight.shape}")
    layer = checked_layer(x, B, sequence_lens, (initial_h, initial_c), reverse, layout, 4, hidden)
    time, batch, width = layer.X.shape
    steps = time if layer.lengths is None else int(layer.lengths.max(initial=0))
    used = layer.X[:steps].reshape(steps * batch, width)
    projected, recurrences = [], []
    for d in range(len(reverse)):
        product = _quantised_product(W[d], _row(W_scale, d), _row(W_zero_point, d))
        projected.append(product(used).reshape(steps, batch, 4 * hidden))
        recurrences.append(_quantised_product(R[d], _row(R_scale, d), _row(R_zero_point, d)))
    return lstm_over(
        layer, projected, recurrences, P, activations=activations,
        activation_alpha=activation_alpha, activation_beta=activation_beta, clip=clip, input_forget=input_forget,
    )  # fmt: skip


def _row(parameter: Array, direction: int) -> Array:
    """The scale or zero point of a direction: [] or [4H]."""
    if parameter.ndim not in (1, 2):
        raise ValueError(f"scales and zero points of dynamic_quantize_lstm are 1-D or 2-D, got shape {parameter.shape}")
    return np.asarray(parameter[direction])


def _quantised_product(weight: Array, scale: Array, zero_point: Array) -> Recurrence:
    """a [M, K] -> dequantised product of a, quantised to uint8 as a whole, with the weight [K, N]."""
    b = centred(weight, zero_point)
    bound = magnitude(b)

    def product(a: Array) -> Array:
        a_scale, a_zero_point = dynamic_range(a)
        levels = a / a_scale
        np.rint(levels, out=levels)
        # Not yet shifted by the zero point: its subtraction would only undo that.
        np.fmax(levels, -float(a_zero_point), out=levels)  # which, unlike clip, sends NaN to the lower bound
        np.fmin(levels, 255.0 - float(a_zero_point), out=levels)
        exact = integer_matmul(levels, b, a_magnitude=255, b_magnitude=bound)
        return np.asarray(exact.astype(np.float32) * (a_scale * scale))

    return product
