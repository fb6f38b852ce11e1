"""Arrays at cache lines: the same elements, whatever their type, order and number."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from fusible.kernels.aligned import aligned_array, aligned_joined, aligned_zeros, is_aligned
from fusible.kernels.cpu.packing import pack_panels, pack_panels_bf16

ARRAYS = {
    "scalar": np.array(3.0, np.float32),
    "empty": np.zeros((3, 0), np.int64),
    "transposed": np.arange(12, dtype=np.float64).reshape(3, 4).T,
    "shifted": np.arange(64, dtype=np.int8)[3:],
    "bfloat16": np.arange(7).astype(ml_dtypes.bfloat16),
    "strings": np.array(["a", "bc"], object),
    "strings turned": np.array([["a", "bc"], ["d", "e"]], object).T,
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_keeps_its_elements(name: str) -> None:
    array = ARRAYS[name]
    made = aligned_array(array)
    assert made.shape == array.shape and made.dtype == array.dtype and made.flags.c_contiguous
    assert np.array_equal(made, array)
    assert array.dtype.hasobject or not array.size or is_aligned(made)
    assert aligned_array(made) is made


def test_zeros_and_joined_arrays() -> None:
    assert is_aligned(aligned_zeros((3, 5), np.float32)) and not aligned_zeros((3, 5), np.float32).any()
    parts = [np.arange(n, dtype=np.float32) for n in (3, 0, 5)]
    joined = aligned_joined(parts)
    assert is_aligned(joined) and np.array_equal(joined, np.concatenate(parts))
    assert aligned_joined(parts[:1]) is parts[0]
    with pytest.raises(ValueError, match="no arrays"):
        aligned_joined([])


def test_packed_weights_begin_at_cache_lines() -> None:
    matrix = np.ones((37, 50), np.float32)
    assert all(is_aligned(pack(matrix)) for pack in (pack_panels, pack_panels_bf16) for _ in range(8))
