"""Candidates of schedules are pure functions: bounded, different, the static choice first; configurations go back."""

from __future__ import annotations

import pytest

from fusible.compiler.backends.triton.attention import attention_in
from fusible.compiler.backends.triton.designs import AnyDesign, config_of, configured
from fusible.compiler.backends.triton.gpu_targets import GPUS, gpu_target
from fusible.compiler.backends.triton.print_kernel import design_of
from fusible.compiler.backends.triton.schedule import Form, Schedule
from fusible.compiler.backends.triton.schedule_attention import shared_bytes
from fusible.compiler.backends.triton.schedule_candidates import attention_candidates, contraction_candidates
from fusible.compiler.backends.triton.schedule_contraction import ContractionSchedule, Sizes, schedule_contraction
from fusible.compiler.ir.symbols import Symbol, SymInt
from fusible.compiler.ir.types import DType
from fusible.compiler.region.parse import parse_region
from tests.compiler.triton.attention_forms import made

N = SymInt.of(Symbol("n", 1, None))
ROWS = """
region [i0={rows}, i1={columns}]
  in x0: f16[{rows}, {columns}]
  out y0: f16[{rows}, {columns}]
  v0: f16 = load x0[i0, i1]
  v1: f16 = reduce max over i1 of v0
  v2: f16 = sub(v0, v1)
  store y0[i0, i1] = v2
"""
POINTS = """
region [i0={points}]
  in x0: f32[{points}]
  out y0: f32[{points}]
  v0: f32 = load x0[i0]
  v1: f32 = add(v0, v0)
  store y0[i0] = v1
"""
ACROSS = """
region [i0=64, i1=96]
  in x0: f32[96, 64]
  out y0: f32[64, 96]
  v0: f32 = load x0[i1, i0]
  store y0[i0, i1] = v0
"""


def design(text: str, gpu: str = "h100", **sizes: int) -> AnyDesign:
    return design_of(parse_region(text.strip("\n").format(**sizes)), gpu_target(gpu))


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("kind", [DType.F16, DType.F32, DType.I8])
def test_products(gpu: str, kind: DType) -> None:
    target = gpu_target(gpu)
    for rows, columns, depth in ((4096, 4096, 4096), (196, 512, 1024), (3136, 64, 576), (16, 1000, 2048), (N, 768, 64)):
        sizes = Sizes(1, rows, columns, (depth,))
        found = contraction_candidates(sizes, kind, "ieee", target)
        assert found[0] == schedule_contraction(sizes, kind, "ieee", target)
        assert 6 <= len(found) <= 40 and len(set(found)) == len(found)
        assert len({(s.block_m, s.block_n) for s in found[:8]}) >= 3  # tiles and other numbers take turns
        for s in found:
            assert (s.block_m + s.block_n) * s.block_k * s.slices * kind.numpy.itemsize * 2 <= target.shared_per_block
            assert s.warps <= 8 and s.block_k >= 16


def test_attention() -> None:
    target = gpu_target("h100")
    attention, dtype, _ = attention_in(made("bool_mask").region)
    found = attention_candidates(attention, dtype, target)
    assert len(set(found)) == len(found) <= 40 and len(found) >= 3
    assert all(shared_bytes(s, attention, dtype) <= target.shared_per_block for s in found)


@pytest.mark.parametrize("gpu", ["h100", "l4"])
def test_regions(gpu: str) -> None:
    cases = [design(POINTS, gpu, points=points) for points in (100, 100_000)] + [design(ACROSS, gpu)]
    cases += [design(ROWS, gpu, rows=r, columns=c) for r, c in ((1000, 768), (8, 4096), (3, 100_000), (100_000, 10))]
    forms = set()
    for case in cases:
        found = case.candidates()
        assert found[0] == case.static() and 2 <= len(found) <= 24 and len(set(found)) == len(found)
        for schedule in found:
            assert isinstance(schedule, Schedule)
            forms.add(schedule.form)
            assert case.printed(schedule).rule.warps == schedule.warps  # type: ignore[arg-type]
    assert forms == set(Form)


def test_configurations_go_back() -> None:
    for case in (design(POINTS, points=64), design(ROWS, rows=8, columns=8), design(ACROSS)):
        static = case.static()
        for schedule in case.candidates():
            assert configured(static, config_of(schedule)) == schedule  # type: ignore[type-var]
    static = ContractionSchedule(64, 64, 32, 1, 8, 4, 3)
    assert configured(static, {"block_m": 128}) == ContractionSchedule(128, 64, 32, 1, 8, 4, 3)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"block_m": 48}, "block_m is 48, no power of two"),
        ({"block_n": 8}, "block_n is 8, and products of tiles take at least 16"),
        ({"warps": 64}, "warps is 64, no number from 1 to 32"),
        ({"stages": 0}, "stages is 0, no number from 1 to 8"),
        ({"rows": 4}, "it has no rows, but block_m, block_n"),
        ({"group": "8"}, "group is '8', and 8 is of the kind expected"),
        ({"block_m": 4096, "block_n": 4096}, "its tile of 4096 x 4096 has more than 1048576 points"),
    ],
)
def test_configurations_that_cannot_be(config: dict[str, int | str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        configured(ContractionSchedule(64, 64, 32, 1, 8, 4, 3), config)


def test_forms_that_there_are_not() -> None:
    with pytest.raises(ValueError, match="form is none of points, transposed"):
        configured(design(POINTS, points=64).static(), {"form": "square"})  # type: ignore[type-var]
