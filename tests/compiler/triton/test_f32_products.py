"""Products of f32 as three of tf32: where they are taken, how their kernels are printed, and what is known of them."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.backends.triton.f32_products import IEEE, TF32, TF32X3, multiplied_as
from fusible.compiler.backends.triton.gpu_targets import GPUS, MatrixType, gpu_target
from fusible.compiler.backends.triton.print_kernel import design_of, print_kernel
from fusible.compiler.backends.triton.roofline import Product, Tile, predict_product
from fusible.compiler.backends.triton.schedule_contraction import (
    Sizes,
    matrix_unit,
    schedule_contraction,
    shared_bytes,
    tiles_of,
)
from fusible.compiler.backends.triton.tuned import Tuning
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt
from fusible.compiler.ir.types import DType
from fusible.compiler.options import Options
from fusible.compiler.tuning import TuningLock
from fusible.passes.exactness import Exactness
from tests.compiler.triton.contractions import Case, Model

H100, A100 = gpu_target("h100"), gpu_target("a100")
N = SymInt.of(Symbol("n", 1, None))


def product(rows: int, dtype: str = "float32") -> Case:
    m = Model(np.dtype(dtype))
    return m.case(m("matmul", m.x(rows, 192), m.w(192, 256)))


def test_products_are_split_where_matrix_units_are_more_than_three_times_as_fast() -> None:
    split = {gpu.target for gpu in GPUS.values() if Options().products(gpu) == TF32X3}
    assert split == {"cuda:sm_80", "cuda:sm_90", "cuda:sm_100"}
    for gpu in GPUS.values():
        assert gpu.backend == "hip" or gpu.splits_f32 == (gpu.matrix_peak(MatrixType.TF32X3) > gpu.fp32)  # type: ignore[operator]
        assert Options(exactness=Exactness.EXACT).products(gpu) == IEEE
        assert Options(precision="tf32").products(gpu) == TF32
    assert Options(also=("cuda:sm_120",)).products(H100) == TF32X3
    assert Options(also=("cuda:sm_80", "hip:gfx942")).products(H100) == IEEE  # one text for all of them


@pytest.mark.parametrize(
    ("kind", "sides", "expected"),
    [
        (DType.F32, (16, 16, 16), TF32X3),
        (DType.F32, (N, 768, 768), TF32X3),
        (DType.F32, (15, 768, 768), IEEE),
        (DType.F32, (768, 8, 768), IEEE),
        (DType.F32, (N, 768, 12), IEEE),
        (DType.F16, (768, 768, 768), IEEE),
    ],
)
def test_few_rows_columns_or_terms_stay_exact(kind: DType, sides: tuple[Dim, ...], expected: str) -> None:
    assert multiplied_as(TF32X3, kind, sides) == expected
    assert multiplied_as(IEEE, kind, sides) == IEEE and multiplied_as(TF32, kind, sides) == TF32


def test_weights_of_split_products_lie_by_depth() -> None:
    made = product(64)
    split, exact = (print_kernel(made.region, H100, made.constants, precision=p) for p in (TF32X3, IEEE))
    assert '"tf32x3"' in split.source and dict(split.repacked) == {1: (1, 0)} and not split.serial
    assert '"ieee"' in exact.source and not exact.repacked and exact.serial
    few = product(12)
    kernel = print_kernel(few.region, H100, few.constants, precision=TF32X3)
    assert kernel.source == print_kernel(few.region, H100, few.constants).source and kernel.serial
    half = product(64, "float16")
    assert print_kernel(half.region, H100, half.constants, precision=TF32X3).source == (
        print_kernel(half.region, H100, half.constants).source
    )


def test_weights_whose_rows_by_depth_are_odd_keep_whole_accesses_by_column() -> None:
    def order(columns: int) -> dict[int, tuple[int, ...]]:
        m = Model(np.float32)
        made = m.case(m.conv(m.x(1, 3, 32, 32), m.w(columns, 3, 7, 7), pads=3, strides=2), last=True)
        return dict(print_kernel(made.region, H100, made.constants, precision=TF32X3).repacked)

    assert order(64) == {1: (2, 3, 1, 0)}  # 147 terms, 64 columns
    assert order(63) == {1: (0, 2, 3, 1)}  # neither


def test_keys_of_lockfiles_tell_split_products_apart() -> None:
    def key(made: Case, precision: str) -> str:
        design = design_of(made.region, H100, made.constants, precision=precision)
        tuning = Tuning("cuda:sm_90", precision, TuningLock())
        chosen = tuning.kernel(design, made.region, list(made.constants), ()).chosen
        assert chosen is not None
        return chosen.key

    made = product(64)
    assert key(made, TF32X3).split()[:3] == ["cuda:sm_90", "product", "tf32x3"]
    assert key(made, IEEE).split()[:3] == ["cuda:sm_90", "product", "ieee"]
    for same in (product(12), product(64, "float16"), product(1)):
        assert key(same, TF32X3) == key(same, IEEE)


def test_tiles_leave_registers_for_both_parts_of_operands() -> None:
    def chosen(rows: int, columns: int, depth: int) -> tuple[int, int, int, int, int]:
        found = schedule_contraction(Sizes(1, rows, columns, (depth,)), DType.F32, TF32X3, H100)
        assert not found.bulk and found.slices == 1
        return found.block_m, found.block_n, found.warps, found.stages, found.split

    assert chosen(4096, 4096, 4096) == (128, 128, 8, 3, 1)  # measured: 82 TFLOP/s on an H200
    assert chosen(128, 768, 768) == (64, 64, 4, 4, 4)
    assert chosen(128, 768, 3072)[4] > 1 and chosen(128, 3072, 768)[4] > 1
    large = Sizes(1, 4096, 4096, (4096,))
    for gpu, most, terms in ((H100, 128 * 128, 32), (A100, 128 * 64, 16)):
        assert max(rows * columns for rows, columns, _ in tiles_of(large, DType.F32, TF32X3, gpu)) == most
        assert schedule_contraction(large, DType.F32, TF32X3, gpu).block_k == terms
    odd = Sizes(1, 1001, 1005, (1003,))  # elements are fetched one by one
    assert schedule_contraction(odd, DType.F32, TF32X3, H100).block_k == 16


def test_parts_of_the_right_operand_need_shared_memory_on_hopper() -> None:
    made = schedule_contraction(Sizes(1, 4096, 4096, (4096,)), DType.F32, TF32X3, H100)
    unit = matrix_unit(DType.F32, TF32X3, H100)
    assert unit is MatrixType.TF32X3 and matrix_unit(DType.F32, IEEE, H100) is None
    assert shared_bytes(made, DType.F32, H100, unit) == 98304  # two blocks of both, and two of the right one: as built


def test_predictions_know_what_splitting_costs() -> None:
    assert 3 * (H100.matrix_peak(MatrixType.TF32X3) or 0) == H100.tf32
    large = Product(4096, 4096, 4096, 1, 4, MatrixType.TF32X3)
    seconds = predict_product(gpu_target("h200"), large, Tile(128, 128, 32, 3, 8)).seconds
    assert 70e12 < large.operations / seconds < 95e12  # measured: 82
    exact = Product(4096, 4096, 4096, 1, 4, None)
    assert predict_product(gpu_target("h200"), exact, Tile(64, 64, 16, 2, 8)).seconds > 1.5 * seconds
