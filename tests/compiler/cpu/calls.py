"""Call a printed kernel on the caller's thread, its operands between guard pages."""

from __future__ import annotations

import ctypes

import numpy as np

from tests.kernels.cpu.layers import guarded

__all__ = ["call"]


def call(function: object, operands: list[np.ndarray], outputs: list[np.ndarray], dims: tuple[int, ...] = ()) -> int:
    """Run a kernel on the caller's thread; the error that it noted."""
    held = [*(guarded(a) for a in operands), *outputs]
    buffers = (ctypes.c_void_p * len(held))(*(a.ctypes.data for a in held))
    error = ctypes.c_int(0)
    numbers = (ctypes.c_int64 * (len(dims) + 1))(*dims)
    function(None, buffers, numbers, ctypes.byref(error))  # type: ignore[operator]
    return error.value
