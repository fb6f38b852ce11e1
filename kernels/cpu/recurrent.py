"""The weights of recurrent layers as `recurrent.h` reads them: units in blocks of 16, their gates together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusible.kernels.aligned import aligned_array

__all__ = ["RECURRENT_UNITS", "pack_bias", "pack_gates", "pack_recurrent"]

RECURRENT_UNITS = 16

Floats = npt.NDArray[np.float32]


def pack_recurrent(matrix: Floats, gates: int) -> Floats:
    """W or R, [D, gates * H, K], as [D, blocks, gates, K, 16], flat; zeros beyond unit H."""
    directions, _, depth = matrix.shape
    blocked = _blocked(matrix.reshape(directions, gates, -1, depth))  # [D, gates, blocks, 16, K]
    return aligned_array(blocked.transpose(0, 2, 1, 4, 3)).reshape(-1)


def pack_gates(vectors: Floats, gates: int) -> Floats:
    """Biases or peepholes, [D, gates * H], as [D, blocks, gates * 16], flat; zeros beyond unit H."""
    blocked = _blocked(vectors.reshape(vectors.shape[0], gates, -1))  # [D, gates, blocks, 16]
    return aligned_array(blocked.transpose(0, 2, 1, 3)).reshape(-1)


def pack_bias(bias: Floats, gates: int, *, linear_before_reset: bool = False) -> Floats:
    """B, [D, 2 * gates * H] (of the input, then recurrent), added up and packed.

    A GRU (three gates) gets a fourth line: what its last gate adds to h R before the reset gate multiplies it, zero
    unless `linear_before_reset`.
    """
    inputs, recurrent = np.split(bias, 2, axis=1)
    if gates != 3:
        return pack_gates(inputs + recurrent, gates)
    total, last = inputs + recurrent, 2 * (inputs.shape[1] // 3)
    apart = np.zeros_like(recurrent[:, last:])
    if linear_before_reset:
        total[:, last:], apart = inputs[:, last:], recurrent[:, last:]
    return pack_gates(np.concatenate([total, apart], axis=1), 4)


def _blocked(array: Floats) -> Floats:
    """[D, gates, H, ...] as [D, gates, blocks, 16, ...]."""
    directions, gates, hidden, *rest = array.shape
    blocks = -(-hidden // RECURRENT_UNITS)
    padded = np.zeros((directions, gates, blocks * RECURRENT_UNITS, *rest), np.float32)
    padded[:, :, :hidden] = array
    return padded.reshape(directions, gates, blocks, RECURRENT_UNITS, *rest)
