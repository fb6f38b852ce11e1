"""softmax.h against float64 NumPy: odd lengths, huge and infinite scores, in place and not."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest

from tests.kernels.cpu.harness import pointer
from tests.kernels.cpu.layers import guarded, random
from tests.kernels.cpu.variants import VARIANTS, compile_variant
from tests.tolerance import assert_close, poisoned

# The row is scaled and masked while it is loaded, and doubled while it is stored.
SOURCE = """
#include "softmax.h"
struct rows { const float *x, *mask; float *y; long n; };
INLINE vf load(const void *context, long row, long column, long lanes) {
    const struct rows *r = context;
    return vf_load_first(r->x + row * r->n + column, lanes) * 0.5f + vf_load_first(r->mask + column, lanes);
}
INLINE void finish(const void *context, vf value, long row, long column, long lanes) {
    const struct rows *r = context;
    vf_store_first(r->y + row * r->n + column, value * 2.0f, lanes);
}
void run(const struct rows *r, long rows, float *buffer, int logarithm) {
    for (long row = 0; row < rows; row++) {
        float *at = buffer ? buffer : r->y + row * r->n;
        if (logarithm) log_softmax_row(row, r->n, at, load, finish, r);
        else softmax_row(row, r->n, at, load, finish, r);
    }
}
"""


class _Rows(ctypes.Structure):
    _fields_ = [("x", ctypes.c_void_p), ("mask", ctypes.c_void_p), ("y", ctypes.c_void_p), ("n", ctypes.c_long)]


def _run(x: np.ndarray, mask: np.ndarray, variant: str, logarithm: bool, in_place: bool) -> np.ndarray:
    library = compile_variant(SOURCE, variant)
    held, masks, y = guarded(x), guarded(mask), guarded(poisoned(x.shape, np.float32))
    buffer = None if in_place else guarded(poisoned((x.shape[1],), np.float32))
    rows = _Rows(held.ctypes.data, masks.ctypes.data, y.ctypes.data, x.shape[1])
    at = None if buffer is None else pointer(buffer)
    library.run(ctypes.byref(rows), ctypes.c_long(x.shape[0]), at, ctypes.c_int(logarithm))
    return y.copy()


def _reference(x: np.ndarray, mask: np.ndarray, logarithm: bool) -> np.ndarray:
    scores = x.astype(np.float64) * 0.5 + mask
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = scores - scores.max(axis=1, keepdims=True)
        total = np.exp(scores).sum(axis=1, keepdims=True)
        return 2 * (scores - np.log(total) if logarithm else np.exp(scores) / total)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("logarithm", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 197, 1001])
def test_every_kind_of_tail(n: int, logarithm: bool, variant: str) -> None:
    x, mask = random((3, n)) * 20, random((n,), seed=1)
    for in_place in (False, True):
        got = _run(x, mask, variant, logarithm, in_place)
        assert_close(got, _reference(x, mask, logarithm), accumulation=n)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("n", [3, 13, 41])
def test_the_maximum_is_that_of_the_row_alone(n: int, variant: str) -> None:
    # A zero from beyond the row would make every exponential zero. All sums of these are exact.
    x, mask = (np.round(64 * random(shape)) / np.float32(64) for shape in ((2, n), (n,)))
    x -= 900
    assert_close(_run(x, mask, variant, False, False), _reference(x, mask, False), accumulation=n)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("logarithm", [False, True])
def test_masked_huge_and_undefined_scores(logarithm: bool, variant: str) -> None:
    x = random((7, 37)) * 3
    x[0] *= 1e37
    x[1, 5] = math.nan
    x[2, 36] = math.nan
    x[3, 11] = math.inf
    x[4] = -math.inf
    x[5, :30] = -math.inf
    mask = np.zeros(37, dtype=np.float32)
    mask[[3, 17, 35]] = -math.inf
    with np.errstate(invalid="ignore"):
        expected = _reference(x, mask, logarithm)
    expected[~np.isfinite(expected) & ~np.isnan(expected)] = -math.inf
    assert_close(_run(x, mask, variant, logarithm, False), expected, accumulation=37)
