"""gemm_bf16.h, and gemv.h with words of bf16: operands rounded by ml_dtypes, products in float64; guard pages."""

from __future__ import annotations

import ctypes
import functools

import ml_dtypes
import numpy as np
import pytest

from fusible.kernels.cpu.packing import pack_panels_bf16
from tests.kernels.cpu.harness import compile_c, pointer
from tests.kernels.cpu.layers import guarded, random
from tests.kernels.cpu.products import PRODUCT_HOOKS, Operands, gemm_arguments
from tests.kernels.cpu.variants import BF16_VARIANTS, bf16_variant
from tests.tolerance import assert_close, poisoned

INCLUDE_GEMM = '#include "gemm_bf16.h"'
SOURCE = INCLUDE_GEMM + PRODUCT_HOOKS + """
long items(long batch, long m, long n, long k, long threads) {
    return gemm_items(batch, m, n, bf16_pairs(k), threads).items;
}
long scratch(long batch, long m, long n, long k, long threads) {
    struct gemm_tiling tiling = gemm_items(batch, m, n, bf16_pairs(k), threads);
    return gemm_scratch_size(&tiling, m, bf16_pairs(k));
}
long size(const struct gemm *g) { return gemm_bf16_size(g); }
void rounded(const struct gemm *g, long threads, float *words) {
    const long parts = gemm_bf16_parts(g, threads);
    for (long part = parts - 1; part >= 0; part--) gemm_bf16_round(g, words, part, parts);
}
void run(const struct gemm *g, const float *rounded, long threads, long item, float *scratch, const float *bias,
         float *c, long c_batch, long c_row) {
    struct gemm_tiling tiling = gemm_items(g->batch, g->rows, g->columns, bf16_pairs(g->depth), threads);
    struct output o = {bias, c + gemm_item_batch(&tiling, item) * c_batch, c_row};
    const struct gemm words = gemm_bf16_words(g, rounded);
    gemm_bf16_item(&words, &tiling, item, scratch, start, finish, &o);
}
void round_row(float *to, const float *from, long step, long count) { bf16_round_row(to, from, step, count); }
"""
INCLUDE_GEMV = '#include "gemv.h"'
FEW_ROWS = INCLUDE_GEMV + PRODUCT_HOOKS + """
struct gemm { long batch, rows, columns, depth; const float *a; long a_batch, a_row, a_depth; const float *b; };
long gemv_count(long m, long n, long k, long threads) { (void)m; return gemv_items(n, bf16_pairs(k), threads); }
void gemv_run(const struct gemm *g, long threads, long item, const float *bias, float *c, long c_row) {
    struct gemv v = {g->rows, g->columns, g->depth, g->a, g->a_row, g->a_depth, g->b};
    struct output o = {bias, c, c_row};
    gemv_bf16_item(&v, gemv_items(v.columns, bf16_pairs(v.depth), threads), item, start, finish, &o);
}
"""


@functools.cache
def _library(variant: str) -> ctypes.CDLL:
    library = compile_c(*bf16_variant(SOURCE, variant))
    library.items.restype = library.scratch.restype = library.size.restype = ctypes.c_long
    return library


@functools.cache
def _few_rows(variant: str) -> ctypes.CDLL:
    """Built fast in every variant: gemv.h has code for each number of rows and width of a panel."""
    source, instruction_set, flags = bf16_variant(FEW_ROWS, variant)
    library = compile_c(source, instruction_set, (*flags, "-O0"))
    library.gemv_count.restype = ctypes.c_long
    return library


def _gemm(
    operands: Operands, variant: str, threads: int = 1, strides: tuple[int, int, int] | None = None
) -> np.ndarray:
    """C [batch, M, N]; the last item runs first."""
    library = _library(variant)
    batch, m, n, k = operands.sizes
    strides = strides or (m * k, k, 1)
    words = pack_panels_bf16(operands.b).view(np.float32)
    a, b = operands.laid_out(strides), guarded(words)
    bias, c = guarded(operands.bias), guarded(poisoned((batch, m, n), np.float32))
    sizes = [ctypes.c_long(v) for v in (batch, m, n, k, threads)]
    scratch = guarded(poisoned((library.scratch(*sizes),), np.float32))
    arguments = gemm_arguments(operands, a, b, strides)
    rounded = guarded(poisoned((library.size(ctypes.byref(arguments)),), np.float32))
    library.rounded(ctypes.byref(arguments), ctypes.c_long(threads), pointer(rounded))
    for item in reversed(range(library.items(*sizes))):
        places = [pointer(scratch), pointer(bias), pointer(c), ctypes.c_long(m * n), ctypes.c_long(n)]
        library.run(ctypes.byref(arguments), pointer(rounded), ctypes.c_long(threads), ctypes.c_long(item), *places)
    return c.copy()


def _gemv(operands: Operands, variant: str, threads: int, strides: tuple[int, int, int]) -> np.ndarray:
    library = _few_rows(variant)
    _, m, n, k = operands.sizes
    a, b = operands.laid_out(strides), guarded(pack_panels_bf16(operands.b).view(np.float32))
    bias, c = guarded(operands.bias), guarded(poisoned((m, n), np.float32))
    arguments = gemm_arguments(operands, a, b, strides)
    for item in reversed(range(library.gemv_count(*(ctypes.c_long(v) for v in (m, n, k, threads))))):
        places = [pointer(bias), pointer(c), ctypes.c_long(n)]
        library.gemv_run(ctypes.byref(arguments), ctypes.c_long(threads), ctypes.c_long(item), *places)
    return c.copy()


@pytest.mark.parametrize("variant", BF16_VARIANTS)
@pytest.mark.parametrize("m", [*range(1, 16), 27, 29])
def test_every_count_of_rows(m: int, variant: str) -> None:
    operands = Operands.random(1, m, 39, 21)
    assert_close(_gemm(operands, variant), operands.rounded().reference(), accumulation=22)


@pytest.mark.parametrize("variant", BF16_VARIANTS)
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32, 33, 48, 57, 65, 95])
def test_every_kind_of_tail_in_the_columns(n: int, variant: str) -> None:
    operands = Operands.random(1, 13, n, 34)
    assert_close(_gemm(operands, variant), operands.rounded().reference(), accumulation=35)


@pytest.mark.parametrize("variant", BF16_VARIANTS)
@pytest.mark.parametrize("k", [0, 1, 2, 3, 5, 64, 257, 3071, 3072, 3073, 6149])
def test_depths_and_their_chunks(k: int, variant: str) -> None:
    operands = Operands.random(1, 9, 77, k)
    assert_close(_gemm(operands, variant), operands.rounded().reference(), accumulation=k + 1)


@pytest.mark.parametrize("variant", BF16_VARIANTS)
@pytest.mark.parametrize("strides", [(7 * 23, 23, 1), (7 * 29, 29, 1), (7 * 23, 1, 7), (500, 2, 17), (11, 46, 2)])
@pytest.mark.parametrize("shared", [False, True])
def test_strides_and_batches(shared: bool, strides: tuple[int, int, int], variant: str) -> None:
    operands = Operands.random(1 if strides[0] == 11 else 3, 7, 45, 23, shared=shared)
    assert_close(_gemm(operands, variant, strides=strides), operands.rounded().reference(), accumulation=24)


@pytest.mark.parametrize("variant", BF16_VARIANTS)
@pytest.mark.parametrize("sizes", [(1, 211, 37, 65), (1, 5, 733, 67), (5, 31, 70, 61), (1, 26, 70, 3200)])
def test_the_number_of_threads_changes_no_bit(sizes: tuple[int, int, int, int], variant: str) -> None:
    operands = Operands.random(*sizes)
    alone = _gemm(operands, variant)
    assert_close(alone, operands.rounded().reference(), accumulation=sizes[3] + 1)
    for threads in (2, 7):
        np.testing.assert_array_equal(_gemm(operands, variant, threads=threads), alone)


@pytest.mark.parametrize("variant", BF16_VARIANTS)
@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 5), (8, 130), (24, 129), (47, 64), (112, 255), (1000, 77), (33, 700)])
def test_few_rows_round_the_weights_only(n: int, k: int, m: int, variant: str) -> None:
    operands = Operands.random(1, m, n, k)
    wanted = operands.rounded(left=False).reference()[0]
    for strides in ((m * k, k, 1), (m * k, 1, m)):
        alone = _gemv(operands, variant, 1, strides)
        assert_close(alone, wanted, accumulation=k + 1)
        np.testing.assert_array_equal(_gemv(operands, variant, 3, strides), alone)


def test_operands_that_are_not_rounded_are_noticed() -> None:
    operands = Operands.random(1, 9, 40, 64)
    for other in (operands, operands.rounded(left=False)):
        with pytest.raises(AssertionError, match="exceeds"):
            assert_close(_gemm(operands, "native"), other.reference(), accumulation=65)


@pytest.mark.parametrize("variant", BF16_VARIANTS)
@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 31, 32, 33, 61, 64, 95])
def test_floats_are_rounded_as_ml_dtypes_does(count: int, step: int, variant: str) -> None:
    bits = np.random.default_rng(count).integers(0, 2**32, count, dtype=np.uint32)
    ties = [0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00001]
    bits[: len(ties)] = ties[:count]
    spread = np.zeros(max(0, (count - 1) * step + 1), np.uint32)
    spread[::step][:count] = bits
    values = spread[::step][:count].view(np.float32)
    values[(np.abs(values) < np.finfo(np.float32).tiny) | np.isnan(values)] = np.nan  # see bf16.h on subnormal numbers
    given, to = guarded(spread.view(np.float32)), guarded(random(((count + 1) // 2,)))
    _library(variant).round_row(pointer(to), pointer(given), ctypes.c_long(step), ctypes.c_long(count))
    got = to.view(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(got[:count].astype(np.float32), values.astype(ml_dtypes.bfloat16).astype(np.float32))
    assert not got[count:].view(np.uint16).any()
