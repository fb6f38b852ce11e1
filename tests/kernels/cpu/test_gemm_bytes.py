"""gemm_bytes.h: the integers of NumPy to the bit, for every instruction set; operands and results at guard pages."""

from __future__ import annotations

import ctypes
import functools

import numpy as np
import pytest

from fusible.kernels.cpu.packing import pack_panels_bytes
from tests.kernels.cpu.harness import pointer
from tests.kernels.cpu.layers import guarded
from tests.kernels.cpu.variants import VARIANTS, compile_variant
from tests.tolerance import poisoned

SOURCE = """
#include "gemm_bytes.h"
static void both(struct pool *pool, pool_task *task, void *context, long items) {
    (void)pool;
    for (long item = items - 1; item >= 0; item--) task(context, item);
}
static int number(const struct pool *pool) { return pool->threads - 1; }
long size(long rows, long columns, long depth, int flip, int threads) {
    struct pool pool = {threads, both, number};
    struct gemm_bytes g = {.flip = (uint8_t)flip, .rows = rows, .columns = columns, .depth = depth, .pool = &pool};
    return gemm_bytes_floats(&g);
}
void run(const uint8_t *a, const float *panels, const int32_t *start, int32_t *c, float *scratch, long rows,
         long columns, long depth, int flip, int threads) {
    struct pool pool = {threads, both, number};
    struct gemm_bytes g = {.a = a, .flip = (uint8_t)flip, .panels = panels, .start = start, .c = c, .rows = rows,
                           .columns = columns, .depth = depth, .pool = &pool};
    gemm_bytes_run(&g, scratch);
}
"""


@functools.cache
def _library(variant: str) -> ctypes.CDLL:
    library = compile_variant(SOURCE, variant)
    library.size.restype = ctypes.c_long
    return library


def _check(
    variant: str, m: int, n: int, k: int, *, signed: bool = False, zero: int = 0, threads: int = 1, most: bool = False
) -> None:
    rng = np.random.default_rng((m, n, k))
    kind = np.int8 if signed else np.uint8
    a = rng.integers(np.iinfo(kind).min, np.iinfo(kind).max + 1, (m, k)).astype(kind)
    b = rng.integers(-128, 128, (k, n)).astype(np.int8)
    if most:
        a[...], b[...] = np.iinfo(kind).max, -128
    flip = 0x80 if signed else 0
    start = (-(zero + 128 * signed) * b.astype(np.int64).sum(axis=0)).astype(np.int32)
    library, sizes = _library(variant), [ctypes.c_long(v) for v in (m, n, k)]
    scratch = guarded(poisoned((library.size(*sizes, flip, threads),), np.float32))
    c = guarded(poisoned((m, n), np.int32))
    operands = guarded(a), guarded(pack_panels_bytes(b)), guarded(start)
    library.run(*map(pointer, operands), pointer(c), pointer(scratch), *sizes, flip, threads)
    np.testing.assert_array_equal(c, (a.astype(np.int64) - zero) @ b.astype(np.int64))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("m", [1, 2, 5, 6, 7, 8, 13, 14, 15, 29])
def test_every_count_of_rows(m: int, variant: str) -> None:
    _check(variant, m, 39, 20, zero=37)
    _check(variant, m, 39, 21, signed=True, zero=-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("n", [1, 7, 8, 9, 16, 17, 24, 31, 32, 33, 65])
def test_every_kind_of_tail_in_the_columns(n: int, variant: str) -> None:
    _check(variant, 13, n, 34, zero=128)
    _check(variant, 3, n, 32, zero=128, threads=2)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("k", [0, 1, 2, 3, 4, 5, 63, 64, 257, 4096, 6143, 6145, 12290])
def test_depths_and_their_chunks(k: int, variant: str) -> None:
    _check(variant, 9, 40, k, zero=200)
    _check(variant, 9, 40, k, signed=True, threads=2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_greatest_sums(variant: str) -> None:
    """Pairs that saturate where products of bytes are added up in int16."""
    _check(variant, 5, 33, 1000, most=True)
    _check(variant, 5, 33, 1000, most=True, signed=True)


@pytest.mark.parametrize(("m", "n"), [(0, 5), (5, 0)])
def test_nothing_to_do(m: int, n: int) -> None:
    _check("native", m, n, 8)
    _check("native", m, n, 7, signed=True)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_many_items(threads: int) -> None:
    _check("native", 150, 200, 515, zero=3, threads=threads)


def test_what_cannot_be_packed() -> None:
    with pytest.raises(TypeError, match="int8"):
        pack_panels_bytes(np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="two axes"):
        pack_panels_bytes(np.zeros((2, 2, 2), np.int8))
