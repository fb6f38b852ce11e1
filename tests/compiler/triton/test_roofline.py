"""The roofline model: properties of predicted times, and the stated errors beside public measurements."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import ceil

import pytest

from fusible.benchmarks.public_gemm import errors, host_seconds, predicted_tflops, public_rows
from fusible.compiler.backends.triton import roofline
from fusible.compiler.backends.triton.gpu_targets import GPUS, MatrixType, gpu_target
from fusible.compiler.backends.triton.roofline import (
    TILES,
    Bound,
    Launching,
    Product,
    Tile,
    Work,
    best_tile,
    model_seconds,
    predict,
    predict_product,
    reached,
    roofline_seconds,
)

A100, H100 = gpu_target("a100"), gpu_target("h100")
SQUARE = Tile(128, 128, 64, 3, 8)
# What docs/gpu_predictions.md states, rounded up: mean and greatest error of all rows, then of those that the device
# decides, scaled by the board's cuBLAS where that is known.
STATED = {
    ("03-matrix-multiplication.html", "tutorial 03"): (0.04, 0.11, 0.04, 0.11),
    ("3551", "tutorial 03"): (0.06, 0.29, 0.03, 0.06),
    ("6523", "tutorial 03"): (0.18, 0.51, 0.06, 0.08),
    ("7085", "tutorial 03; Triton 3.2"): (0.08, 0.12, 0.08, 0.16),
    ("7085", "tutorial 03; Triton 3.3"): (0.19, 0.27, 0.08, 0.18),
    ("3672", "tutorial 03"): (0.06, 0.11, 0.04, 0.05),
    ("3546", "tutorial 03"): (0.05, 0.23, 0.02, 0.04),
    ("5461", "tutorial 09; matmul_kernel"): (0.13, 0.13, 0.13, 0.13),
    ("5461", "tutorial 09; matmul_kernel_persistent"): (0.07, 0.07, 0.07, 0.07),
    ("5461", "tutorial 09; matmul_kernel_descriptor_persistent"): (0.03, 0.03, 0.03, 0.03),
    ("5461", "tutorial 09; matmul_kernel_tma_persistent"): (0.02, 0.02, 0.02, 0.02),
    ("2339", "tutorial 10 of 2023"): (0.67, 0.93, 0.67, 0.93),
}


def test_the_stated_errors_beside_public_figures_hold() -> None:
    found = {(e.source.rpartition("/")[2], e.kernel): e for e in errors(public_rows())}
    assert found.keys() == STATED.keys()
    for run, stated in STATED.items():
        device = found[run].scaled or found[run].device
        got = (found[run].mean, found[run].worst, *device[1:])
        assert tuple(ceil(100 * value) / 100 for value in got) == stated, run


def test_a_wrong_constant_breaks_what_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {target: replace(rates, matrix=rates.matrix * 0.9) for target, rates in roofline._REACHED.items()}
    monkeypatch.setattr(roofline, "_REACHED", wrong)
    found = {(e.source.rpartition("/")[2], e.kernel): e for e in errors(public_rows())}
    run = ("03-matrix-multiplication.html", "tutorial 03")
    assert found[run].mean > STATED[run][0]


def test_what_fits_is_seen_as_launches_below_2048() -> None:
    """Issue 3672: below 2048 every product takes what its launch takes, whatever its size."""
    rows = [row for row in public_rows() if row.source.endswith("3672")]
    host = host_seconds(rows)
    assert 80e-6 < host < 90e-6
    assert all(abs(predicted_tflops(row, host) / row.triton - 1) < 0.1 for row in rows if row.m < 2048)


def test_more_work_never_takes_less_time() -> None:
    for gpu in GPUS.values():
        times = [predict_product(gpu, Product(m, 1024, 1024), SQUARE).seconds for m in range(1, 4096, 61)]
        assert all(later > before * (1 - 1e-9) for before, later in pairwise(times))


def test_the_last_wave_counts_whole() -> None:
    """108 programs are one wave on 108 multiprocessors, one more are nearly two."""
    long = Work(1e12, 1e6, kind=MatrixType.FP16)
    whole, more = predict(A100, long, 108, 1).seconds, predict(A100, long, 109, 1).seconds
    assert more / whole == pytest.approx(2 * 108 / 109, rel=0.01)


def test_a_prediction_is_never_below_the_roofline() -> None:
    for gpu in GPUS.values():
        for m, n, k in ((64, 1000, 2048), (4096, 4096, 4096), (12544, 64, 147), (1, 4096, 4096)):
            product = Product(m, n, k)
            least = roofline_seconds(gpu, product.operations, product.bytes, product.kind)
            for tile in TILES:
                assert predict_product(gpu, product, tile).seconds > least


def test_bounds_are_named() -> None:
    assert predict(A100, Work(1e13, 1e6, kind=MatrixType.FP16), 10_000, 2).bound is Bound.MATRIX
    assert predict(A100, Work(1e13, 1e6), 10_000, 2).bound is Bound.VECTOR
    assert predict(A100, Work(1e6, 1e9), 10_000, 8).bound is Bound.MEMORY
    assert predict(A100, Work(1e6, 0, cached=1e7, fetched=1e9), 10_000, 8).bound is Bound.CACHE
    assert predict(A100, Work(1e6, 1e5), 10, 8).bound is Bound.LATENCY
    assert predict(A100, Work(1e6, 1e5), 0, 8).seconds == 0


def test_the_level_of_memory_matters() -> None:
    cold = predict(A100, Work(0, 1e8), 10_000, 8).seconds
    warm = predict(A100, Work(0, 0, cached=1e8), 10_000, 8).seconds
    assert 0.25 < warm / cold < 0.5


def test_few_programs_do_not_reach_the_bandwidth() -> None:
    assert predict(H100, Work(0, 1e8), 4, 1).seconds > 5 * predict(H100, Work(0, 1e8), 1000, 1).seconds


def test_operands_without_matrix_units_count_as_vectors() -> None:
    assert roofline_seconds(A100, 1e12, 0, MatrixType.FP8) == 1e12 / A100.fp32
    assert roofline_seconds(H100, 1e12, 0, MatrixType.FP8) == 1e12 / 1_978_900e9


def test_long_thin_products_are_split() -> None:
    tile, _ = best_tile(A100, Product(64, 64, 65536))
    assert tile.split > 1
    tile, _ = best_tile(A100, Product(4096, 4096, 4096))
    assert tile.split == 1 and tile.m * tile.n >= 128 * 128


def test_tiles_that_do_not_fit_are_not_taken() -> None:
    tile, _ = best_tile(gpu_target("rtx4090"), Product(4096, 4096, 4096, size=4, kind=MatrixType.TF32))
    assert tile.shared(4) <= gpu_target("rtx4090").shared_per_block


def test_graphs_pay_off_where_kernels_are_short() -> None:
    costs = Launching(host=5e-6, gap=1e-6, graph=6e-6)
    short, long = [2e-6] * 100, [50e-6] * 100
    assert model_seconds(short, graph=True, launching=costs) == pytest.approx(306e-6)
    assert model_seconds(short, graph=False, launching=costs) == pytest.approx(503e-6)  # the host decides
    assert model_seconds(long, graph=False, launching=costs) == pytest.approx(5105e-6)  # the device does
    assert model_seconds([], graph=False) == 0
    few = Launching(graph=5e-6, gap=1e-6, hidden=2e-6, least=0.5e-6)
    assert model_seconds([4e-6, 1e-6], graph=True, overlaps=True, launching=few) == pytest.approx(8.5e-6)


def test_each_gpu_says_what_it_reaches() -> None:
    for gpu in GPUS.values():
        rates = reached(gpu)
        assert all(0.3 < share <= 1 for share in (rates.matrix, rates.vector, rates.memory, rates.cache))
