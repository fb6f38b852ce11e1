"""gemm.h and gemv.h against float64 NumPy: odd shapes, strides, batches, every item by itself, guard pages."""

from __future__ import annotations

import ctypes
import functools

import numpy as np
import pytest

from fusible.kernels.cpu.packing import pack_panels
from tests.kernels.cpu.harness import pointer
from tests.kernels.cpu.layers import guarded
from tests.kernels.cpu.products import PRODUCT_HOOKS, Operands, gemm_arguments
from tests.kernels.cpu.variants import VARIANTS, compile_variant
from tests.tolerance import assert_close, poisoned

INCLUDES = """
#include "gemm.h"
#include "gemv.h"
"""
SOURCE = INCLUDES + PRODUCT_HOOKS + """
long items(long batch, long m, long n, long k, long threads) { return gemm_items(batch, m, n, k, threads).items; }
long scratch(long batch, long m, long n, long k, long threads) {
    struct gemm_tiling tiling = gemm_items(batch, m, n, k, threads);
    return gemm_scratch_size(&tiling, m, k);
}
void run(const struct gemm *g, long threads, long item, float *scratch, const float *bias, float *c, long c_batch,
         long c_row) {
    struct gemm_tiling tiling = gemm_items(g->batch, g->rows, g->columns, g->depth, threads);
    struct output o = {bias, c + gemm_item_batch(&tiling, item) * c_batch, c_row};
    gemm_item(g, &tiling, item, scratch, start, finish, &o);
}
long gemv_count(long m, long n, long k, long threads) { (void)m; return gemv_items(n, k, threads); }
void gemv_run(const struct gemm *g, long threads, long item, const float *bias, float *c, long c_row) {
    struct gemv v = {g->rows, g->columns, g->depth, g->a, g->a_row, g->a_depth, g->b};
    struct output o = {bias, c, c_row};
    gemv_item(&v, gemv_items(v.columns, v.depth, threads), item, start, finish, &o);
}
"""


@functools.cache
def _library(variant: str) -> ctypes.CDLL:
    library = compile_variant(SOURCE, variant)
    for name in ("items", "scratch", "gemv_count"):
        getattr(library, name).restype = ctypes.c_long
    return library


def _gemm(
    operands: Operands, variant: str, threads: int = 1, strides: tuple[int, int, int] | None = None
) -> np.ndarray:
    """C [batch, M, N]; the last item runs first."""
    library = _library(variant)
    batch, m, n, k = operands.sizes
    strides = strides or (m * k, k, 1)
    a, b = operands.laid_out(strides), guarded(pack_panels(operands.b))
    bias, c = guarded(operands.bias), guarded(poisoned((batch, m, n), np.float32))
    sizes = [ctypes.c_long(v) for v in (batch, m, n, k, threads)]
    scratch = guarded(poisoned((library.scratch(*sizes),), np.float32))
    arguments = gemm_arguments(operands, a, b, strides)
    for item in reversed(range(library.items(*sizes))):
        library.run(
            ctypes.byref(arguments),
            ctypes.c_long(threads),
            ctypes.c_long(item),
            pointer(scratch),
            pointer(bias),
            pointer(c),
            ctypes.c_long(m * n),
            ctypes.c_long(n),
        )
    return c.copy()


def _gemv(operands: Operands, variant: str, threads: int, strides: tuple[int, int, int]) -> np.ndarray:
    library = _library(variant)
    _, m, n, k = operands.sizes
    a, b = operands.laid_out(strides), guarded(pack_panels(operands.b))
    bias, c = guarded(operands.bias), guarded(poisoned((m, n), np.float32))
    arguments = gemm_arguments(operands, a, b, strides)
    for item in reversed(range(library.gemv_count(*(ctypes.c_long(v) for v in (m, n, k, threads))))):
        library.gemv_run(
            ctypes.byref(arguments),
            ctypes.c_long(threads),
            ctypes.c_long(item),
            pointer(bias),
            pointer(c),
            ctypes.c_long(n),
        )
    return c.copy()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("m", [*range(1, 20), 27, 28, 29, 49])
def test_every_count_of_rows(m: int, variant: str) -> None:
    operands = Operands.random(1, m, 39, 21)
    assert_close(_gemm(operands, variant), operands.reference(), accumulation=22)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32, 33, 48, 57, 65, 95])
def test_every_kind_of_tail_in_the_columns(n: int, variant: str) -> None:
    operands = Operands.random(1, 13, n, 33)
    assert_close(_gemm(operands, variant), operands.reference(), accumulation=34)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("k", [0, 1, 2, 3, 5, 64, 257, 1535, 1536, 1537, 3073])
def test_depths_and_their_chunks(k: int, variant: str) -> None:
    operands = Operands.random(1, 9, 77, k)
    assert_close(_gemm(operands, variant), operands.reference(), accumulation=k + 1)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("strides", [(7 * 23, 23, 1), (7 * 29, 29, 1), (7 * 23, 1, 7), (500, 2, 17), (11, 46, 2)])
@pytest.mark.parametrize("shared", [False, True])
def test_strides_and_batches(shared: bool, strides: tuple[int, int, int], variant: str) -> None:
    operands = Operands.random(1 if strides[0] == 11 else 3, 7, 45, 23, shared=shared)
    assert_close(_gemm(operands, variant, strides=strides), operands.reference(), accumulation=24)


SHARED_OUT = [(1, 211, 37, 65), (1, 5, 733, 67), (1, 128, 150, 97), (5, 31, 70, 61), (1, 26, 70, 1600)]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("sizes", SHARED_OUT)
def test_the_number_of_threads_changes_no_bit(sizes: tuple[int, int, int, int], variant: str) -> None:
    operands = Operands.random(*sizes)
    alone = _gemm(operands, variant)
    assert_close(alone, operands.reference(), accumulation=sizes[3] + 1)
    for threads in (2, 7):
        np.testing.assert_array_equal(_gemm(operands, variant, threads=threads), alone)


@pytest.mark.parametrize(("m", "n"), [(16, 768), (784, 24), (49, 576), (196, 64), (6, 4096)])
def test_two_cores_have_enough_items_each(m: int, n: int) -> None:
    sizes = [ctypes.c_long(v) for v in (1, m, n, 768, 2)]
    assert _library("native").items(*sizes) >= 4


def test_nothing_to_do_has_no_items() -> None:
    for m, n in ((0, 5), (5, 0)):
        assert _library("native").items(*(ctypes.c_long(v) for v in (1, m, n, 3, 2))) == 0


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 5), (8, 130), (24, 129), (47, 64), (112, 255), (1000, 77), (33, 700)])
def test_few_rows(n: int, k: int, m: int, variant: str) -> None:
    operands = Operands.random(1, m, n, k)
    for strides in ((m * k, k, 1), (m * k, 1, m)):
        alone = _gemv(operands, variant, 1, strides)
        assert_close(alone, operands.reference()[0], accumulation=k + 1)
        np.testing.assert_array_equal(_gemv(operands, variant, 3, strides), alone)
