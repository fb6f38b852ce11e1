"""Tiles of contractions are functions of sizes, element types and a description: no device takes part."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fusible.compiler.backends.triton import schedule_contraction as schedule_contraction_module
from fusible.compiler.backends.triton.gpu_targets import GPUS, gpu_target
from fusible.compiler.backends.triton.schedule_contraction import (
    ContractionSchedule,
    Sizes,
    schedule_contraction,
    shared_bytes,
)
from fusible.compiler.ir.symbols import Symbol, SymInt
from fusible.compiler.ir.types import DType

H100, A100 = gpu_target("h100"), gpu_target("a100")
N = SymInt.of(Symbol("n", 1, None))


def made(
    rows: int, columns: int, *depths: int, batch: int = 1, kind: DType = DType.F16, gpu: str = "h100"
) -> ContractionSchedule:
    return schedule_contraction(Sizes(batch, rows, columns, depths), kind, "ieee", gpu_target(gpu))


def test_a_large_product_has_large_tiles() -> None:
    found = made(4096, 4096, 4096)
    assert (found.block_m, found.block_n, found.block_k, found.warps) == (128, 256, 64, 8)
    assert found.stages >= 3


def test_a_small_product_has_tiles_enough_for_every_multiprocessor() -> None:
    found = made(512, 512, 512)
    assert (found.block_m, found.block_n) == (64, 64)


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("kind", [DType.F16, DType.BF16, DType.I8])
def test_matrix_units_get_whole_instructions(kind: DType, gpu: str) -> None:
    for rows, columns in ((64, 64), (64, 4096), (196, 512), (3136, 64), (12544, 96), (1, 1 << 20)):
        found = made(rows, columns, 256, kind=kind, gpu=gpu)
        assert min(found.block_m, found.block_n) >= min(64, rows, columns)
        assert found.warps >= 4 or min(rows, columns) < 64


@pytest.mark.parametrize("gpu", GPUS)
def test_blocks_fit_shared_memory(gpu: str) -> None:
    target = gpu_target(gpu)
    for rows, columns, depth in ((1 << 16, 1 << 16, 1 << 12), (64, 64, 64), (49, 2048, 512)):
        for kind in (DType.F32, DType.F16, DType.I8):
            found = made(rows, columns, depth, kind=kind, gpu=gpu)
            assert shared_bytes(found, kind, target) <= target.shared_per_block
            for number in (found.block_m, found.block_n, found.block_k, found.warps):
                assert number & (number - 1) == 0


def test_shared_memory_is_that_of_the_instructions() -> None:
    """As Triton's builds for these targets report it."""
    large, small = ContractionSchedule(128, 128, 64, 1, 8, 8, 4), ContractionSchedule(16, 64, 64, 1, 8, 4, 4)
    assert shared_bytes(large, DType.F16, H100) == 4 * 256 * 64 * 2
    assert shared_bytes(small, DType.F16, H100) == 3 * 80 * 64 * 2
    assert shared_bytes(large, DType.F16, A100) == 3 * 256 * 64 * 2
    assert made(4096, 4096, 4096, gpu="mi300x").stages == 2


def test_heavy_functions_of_many_sums_leave_registers_for_operands_that_lie_there() -> None:
    """128 sums a thread, both operands in tf32 and GELU: ptxas spills if operands come from registers too."""
    plain = Sizes(1, 1500, 1536, (384,))
    for heavy, most in ((False, 128), (True, 64)):
        found = schedule_contraction(replace(plain, heavy=heavy), DType.F32, "tf32", A100)
        assert found.block_m * found.block_n == 32 * found.warps * most


def test_a_step_stays_at_one_tap_of_a_window_where_channels_fill_it() -> None:
    assert made(3136, 64, 3, 3, 64).together == 1
    assert made(3136, 64, 3, 3, 96).block_k == 32  # divides the channels
    assert made(12544, 32, 3, 3, 3).together == 3  # few channels: blocks of all terms
    assert made(12544, 32, 3, 3, 24).together == 1


def test_programs_share_tiles_where_these_are_few_and_sums_long() -> None:
    deep = made(49, 512, 3, 3, 512)
    tiles = -(-49 // deep.block_m) * 512 // deep.block_n
    assert deep.split > 1 and deep.warps >= 4 and tiles * deep.split <= 2 * H100.multiprocessors
    assert 3 * 3 * 512 // deep.block_k >= 4 * deep.split  # steps of a part
    assert made(128, 768, 3072).split > 1  # a decoder's projection
    assert made(196, 256, 3, 3, 256).split > 1
    for rows in (2, 8, 16):
        thin = made(rows, 4096, 4096)
        assert thin.block_m == 16 and 4096 // thin.block_n * thin.split >= 0.9 * H100.multiprocessors
        assert thin.block_n * 2 >= 128  # whole lines of weights


def test_programs_share_no_tiles_where_that_gains_nothing() -> None:
    assert made(4096, 4096, 4096).split == 1  # many tiles
    assert made(49, 512, 256).split == 1  # few steps
    assert made(512, 512, 512).split == 1
    assert schedule_contraction(Sizes(1, N, 512, (4608,)), DType.F16, "ieee", H100).split == 1  # many rows, perhaps
    assert schedule_contraction(Sizes(1, 16, 512, (N,)), DType.F16, "ieee", H100).split == 1


def test_tiles_behind_the_last_whole_wave_are_shared() -> None:
    tail = made(6304, 768, 3072)
    tiles = -(-6304 // tail.block_m) * 768 // tail.block_n
    left = tiles % H100.multiprocessors
    assert tail.wave == H100.multiprocessors < tiles and tail.split > 1
    assert left * tail.split <= H100.multiprocessors  # all at once
    assert made(4096, 4096, 4096).wave == 0  # the last wave is nearly full
    assert made(512, 512, 512).wave == 0  # there is none
    assert schedule_contraction(Sizes(1, N, 768, (3072,)), DType.F16, "ieee", H100).wave == 0


def test_slower_joining_splits_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decision is the roofline's: were it costly to learn who comes last, nothing would be split."""
    monkeypatch.setattr(
        schedule_contraction_module, "joining_seconds", lambda _gpu, programs, _bytes: 0.0 if programs == 1 else 1e-4
    )
    assert made(49, 512, 3, 3, 512).split == 1


def test_the_depth_is_sliced_where_programs_are_few_and_steps_many() -> None:
    deep = made(49, 320, 960)
    assert deep.slices == 1  # 15 steps
    deep = made(49, 2048, 512)
    assert deep.slices > 1 and deep.warps <= 8 and deep.block_m < 64
    assert (512 // deep.block_k) % deep.slices == 0
    assert made(49, 512, 64).slices == 1  # few steps
    assert made(4096, 512, 4608).slices == 1  # many programs
    assert made(196, 256, 1152).slices == 1  # tiles of Hopper's instruction
    assert made(49, 512, 4608, gpu="mi300x").slices == 1


def test_unknown_sizes_count_as_many() -> None:
    found = schedule_contraction(Sizes(1, N, 4096, (4096,)), DType.F16, "ieee", H100)
    assert found.block_m >= 64
    bounded = SymInt.of(Symbol("n", 1, 20))
    assert schedule_contraction(Sizes(1, bounded, 4096, (4096,)), DType.F16, "ieee", H100).block_m <= 32


def test_single_precision_has_no_matrix_unit_unless_it_may_round() -> None:
    sizes = Sizes(1, 1024, 1024, (1024,))
    assert schedule_contraction(sizes, DType.F32, "ieee", A100).block_k == 16
    assert schedule_contraction(sizes, DType.F32, "tf32", A100).block_k == 32


def test_programs_alone_on_their_multiprocessors_have_more_blocks_on_their_way() -> None:
    def stages(rows: int, columns: int, depth: int, gpu: str = "h100") -> int:
        return schedule_contraction(Sizes(1, rows, columns, (depth,)), DType.F16, "ieee", gpu_target(gpu)).stages

    assert stages(128, 2304, 768) == 5
    assert stages(4096, 4096, 768) == 4  # many programs
    assert stages(128, 2304, 128) == 4  # two steps
    assert stages(128, 2304, 768, "mi300x") == 2


@pytest.mark.parametrize(
    ("depths", "block", "together"),
    [
        ((7, 7, 4), 32, 2),  # 28 terms of a row of the window, seven steps, as of all 196
        ((3, 3, 4), 64, 3),  # one step of 36 terms; rows would be three
        ((5, 5, 4), 64, 3),  # 20 terms of a row would be padded to 32
        ((3, 3, 64), 64, 1),
    ],
)
def test_a_step_is_a_row_of_a_window_where_that_makes_no_more_steps(
    depths: tuple[int, ...], block: int, together: int
) -> None:
    found = made(1 << 17, 64, *depths)
    assert (found.block_k, found.together) == (block, together)
