"""top_k.h against the NumPy kernel, to the bit: ties, NaN, infinities, odd sizes, threads, guard pages."""

from __future__ import annotations

import ctypes
import functools

import numpy as np
import pytest

from fusible.kernels.numpy.selection import top_k
from tests.kernels.cpu.layers import guarded, random
from tests.kernels.cpu.variants import VARIANTS, compile_variant
from tests.tolerance import poisoned

SOURCE = """
#include "top_k.h"
#define TASK(name, kind, largest) static void name(void *t, long item) { top_k_item(kind, largest, t, item); }
TASK(task0, TOP_K_F32, 0)
TASK(task1, TOP_K_F32, 1)
TASK(task2, TOP_K_I32, 0)
TASK(task3, TOP_K_I32, 1)
static int pool_number(const struct pool *pool) { (void)pool; return 1; }
static void pool_backwards(struct pool *pool, pool_task *task, void *context, long items) {
    (void)pool;
    while (items--) task(context, items);
}
static struct pool two = {2, pool_backwards, pool_number};
int fits(const struct top_k *t) { return top_k_fits(t); }
long scratch(struct top_k *t, int threads) { top_k_plan(t, threads > 1 ? &two : NULL); return top_k_floats(t); }
void run(struct top_k *t, int which, float *scratch) {
    pool_task *const tasks[] = {task0, task1, task2, task3};
    top_k_run(t, tasks[which], scratch);
}
"""


class _TopK(ctypes.Structure):
    _fields_ = (
        [(n, ctypes.c_void_p) for n in ("x", "values", "indices")]
        + [(n, ctypes.c_long) for n in ("outer", "size", "inner", "k")]
        + [("pool", ctypes.c_void_p)]
        + [(n, ctypes.c_long) for n in ("lines_per_item", "columns", "capacity")]
        + [("scratch", ctypes.c_void_p)]
    )


@functools.cache
def _library(variant: str) -> ctypes.CDLL:
    library = compile_variant(SOURCE, variant)
    library.scratch.restype = ctypes.c_long
    return library


def _check(x: np.ndarray, k: int, largest: bool, variant: str, threads: int = 1) -> None:
    """x: [outer, size, inner]."""
    library, (outer, size, inner) = _library(variant), x.shape
    held = guarded(x)
    values, indices = (guarded(poisoned((outer, k, inner), kind)) for kind in (x.dtype, np.int64))
    call = _TopK(held.ctypes.data, values.ctypes.data, indices.ctypes.data, outer, size, inner, k)
    assert library.fits(ctypes.byref(call))
    floats = library.scratch(ctypes.byref(call), threads)
    # Scratch memory ends at a page's end, and begins at a cache line.
    scratch = guarded(poisoned((floats + -floats % 16,), np.float32))
    which = 2 * (x.dtype == np.int32) + largest
    library.run(ctypes.byref(call), ctypes.c_int(which), ctypes.c_void_p(scratch.ctypes.data))
    expected_values, expected_indices = top_k(x, k=k, axis=1, largest=largest)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(values.view(np.int32), np.ascontiguousarray(expected_values).view(np.int32))


def _kinds(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Elements that come in every order, and many that are equal or no numbers."""
    x, count = random(shape), int(np.prod(shape))
    generator = np.random.default_rng([3, *shape])
    special = np.asarray([0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-40, -1e-40, 1, -1], np.float32)
    rising = np.arange(count, dtype=np.float32).reshape(shape) - 7
    wide = generator.integers(-(2**31), 2**31, shape, dtype=np.int32)
    return {
        "random": x,
        "rising": rising,
        "falling": -rising,
        "few distinct": np.round(x),
        "special": generator.choice(special, shape),
        "mostly NaN": np.where(generator.random(shape) < 0.1, x, np.float32(np.nan)),
        "few NaN": np.where(generator.random(shape) < 0.01, np.float32(np.nan), x),
        "all equal": np.full(shape, -0.0, np.float32),
        "infinite": np.full(shape, np.inf, np.float32),
        "negative infinite": np.full(shape, -np.inf, np.float32),
        "integers": generator.integers(-5, 5, shape, dtype=np.int32),
        "wide integers": wide,
        "extreme integers": np.where(wide > 0, np.int32(2**31 - 1), np.int32(-(2**31))),
    }


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(
    ("size", "k"),
    [(1, 1), (1, 0), (0, 0), (7, 3), (65, 65), (129, 128), (300, 1), (1000, 5), (1003, 17), (2500, 300), (5000, 40)],
)
def test_every_order_of_elements(size: int, k: int, largest: bool, variant: str) -> None:
    for x in _kinds((2, size, 1)).values():
        _check(x, k, largest, variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("largest", [True, False])
def test_every_length_of_a_short_line(largest: bool, variant: str) -> None:
    for size in range(1, 70):
        for k in {1, size // 2, size}:
            _check(np.round(random((3, size, 1)) * 4), k, largest, variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(2, 9, 5), (3, 700, 37), (3, 1, 2), (0, 5, 3), (4, 6, 0), (1, 20001, 17)], ids=str)
def test_lines_that_are_not_contiguous(shape: tuple[int, ...], threads: int, variant: str) -> None:
    for x in (random(shape), np.round(random(shape)).astype(np.int32)):
        for k in {1, min(shape[1], 30)}:
            _check(x, k, True, variant, threads)


@pytest.mark.parametrize("variant", VARIANTS)
def test_many_lines_in_items(variant: str) -> None:
    for shape in ((257, 100, 1), (67, 1100, 1)):
        _check(random(shape), 50, False, variant, threads=2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_long_lines(variant: str) -> None:
    for k in (1, 300, 6001):
        for x in (random((1, 70001, 1)), np.arange(70001, dtype=np.float32).reshape(1, -1, 1)):
            _check(x, k, True, variant)


def test_more_than_there_are_is_refused() -> None:
    for size, k in ((3, 4), (0, 1), (3, -1), (2**31, 1)):
        assert not _library("native").fits(ctypes.byref(_TopK(outer=1, size=size, inner=1, k=k)))
