"""norm.h against float64 NumPy: odd lengths, a large mean, a residual that is stored on the way, in place and not."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import pytest

from tests.kernels.cpu.harness import pointer
from tests.kernels.cpu.layers import guarded, random
from tests.kernels.cpu.variants import VARIANTS, compile_variant
from tests.tolerance import assert_close, poisoned

SOURCE = """
#include "norm.h"
struct rows { const float *x, *residual, *gain, *bias; float *sum, *y; long n; };
INLINE vf load(const void *context, long row, long column, long lanes) {
    const struct rows *r = context;
    long at = row * r->n + column;
    vf value = vf_load_first(r->x + at, lanes) + vf_load_first(r->residual + at, lanes);
    vf_store_first(r->sum + at, value, lanes);
    return value;
}
INLINE void finish(const void *context, vf value, long row, long column, long lanes) {
    const struct rows *r = context;
    value = value * vf_load_first(r->gain + column, lanes) + vf_load_first(r->bias + column, lanes);
    vf_store_first(r->y + row * r->n + column, value, lanes);
}
void run(const struct rows *r, long rows, float *buffer, int layer, struct norm_moments *moments) {
    for (long row = 0; row < rows; row++) {
        float *at = buffer ? buffer : r->y + row * r->n;
        if (layer) moments[row] = layer_norm_row(row, r->n, 1e-5f, at, load, finish, r);
        else moments[row] = rms_norm_row(row, r->n, 1e-5f, at, load, finish, r);
    }
}
"""


class _Rows(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "residual", "gain", "bias", "sum", "y")),
        ("n", ctypes.c_long),
    ]


@dataclass(frozen=True)
class _Result:
    y: np.ndarray
    sum: np.ndarray
    mean: np.ndarray
    inverse: np.ndarray


def _run(inputs: tuple[np.ndarray, ...], variant: str, layer: bool, in_place: bool) -> _Result:
    held = [guarded(array) for array in inputs]
    rows, n = inputs[0].shape
    total, y = (guarded(poisoned((rows, n), np.float32)) for _ in range(2))
    moments = guarded(poisoned((rows, 2), np.float32))
    buffer = None if in_place else guarded(poisoned((n,), np.float32))
    arguments = _Rows(*(array.ctypes.data for array in (*held, total, y)), n)
    compile_variant(SOURCE, variant).run(
        ctypes.byref(arguments),
        ctypes.c_long(rows),
        None if buffer is None else pointer(buffer),
        ctypes.c_int(layer),
        pointer(moments),
    )
    return _Result(y.copy(), total.copy(), moments[:, 0].copy(), moments[:, 1].copy())


def _reference(inputs: tuple[np.ndarray, ...], layer: bool) -> _Result:
    x, residual, gain, bias = (array.astype(np.float64) for array in inputs)
    total = x + residual
    mean = total.mean(axis=1) if layer else np.zeros(x.shape[0])
    inverse = 1 / np.sqrt(np.square(total - mean[:, None]).mean(axis=1) + 1e-5)
    return _Result((total - mean[:, None]) * inverse[:, None] * gain + bias, total, mean, inverse)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("layer", [True, False])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 8, 9, 17, 31, 33, 64, 65, 100, 127, 771])
def test_every_kind_of_tail(n: int, layer: bool, variant: str) -> None:
    inputs = (random((3, n)), random((3, n), seed=1), random((n,)), random((n,), seed=1))
    reference = _reference(inputs, layer)
    for in_place in (False, True):
        got = _run(inputs, variant, layer, in_place)
        assert_close(got.y, reference.y, accumulation=max(n, 2))
        assert_close(got.sum, reference.sum)
        assert_close(got.mean, reference.mean, accumulation=n)
        assert_close(got.inverse, reference.inverse, accumulation=n)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_mean_far_larger_than_the_deviation(variant: str) -> None:
    x = random((2, 515)) + 16  # in float32 the mean of squares less the squared mean would have four digits left
    zero = np.zeros_like(x)
    inputs = (x, zero, np.ones(515, dtype=np.float32), np.zeros(515, dtype=np.float32))
    assert_close(_run(inputs, variant, True, False).y, _reference(inputs, True).y, accumulation=515)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("layer", [True, False])
def test_a_nan_spoils_its_row_and_no_other(layer: bool, variant: str) -> None:
    x = random((3, 29))
    x[1, 28] = np.nan
    y = _run((x, np.zeros_like(x), x[0], x[0]), variant, layer, False).y
    assert np.isnan(y[1]).all() and np.isfinite(y[[0, 2]]).all()
