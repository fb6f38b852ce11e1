"""Contractions of dequantised operands: how their region is written before it is printed.

Scales that are the same for all terms go behind the sum, 4-bit constants are packed two in a byte, and an axis whose
terms share a scale by blocks is taken apart, so that a step through one block reads each scale once.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.schedule_contraction import ContractionSchedule
from fusible.compiler.ir.types import DType
from fusible.compiler.region.digits import divisors_of, with_digits
from fusible.compiler.region.halves import in_halves
from fusible.compiler.region.region import Contract, Region
from fusible.compiler.region.scales import scales_behind

__all__ = ["as_stored", "multiplies_floats8", "packed_alone", "whole_depth"]

_STORED = frozenset({DType.I8, DType.U8, DType.I4, DType.U4, DType.F8E4M3FN, DType.F8E5M2})
_LARGEST_TILE = 64 * 128  # elements
_SHORTEST = 16  # terms of a block that is worth steps of its own


def as_stored(
    region: Region, constants: Collection[int], target: GpuTarget
) -> tuple[Region, int | None, dict[int, int]]:
    """The region of one contraction by what its dequantised operands are stored as; others stay as they are.

    constants: the inputs that may be stored anew. Returns also the axis that is the half of a byte, if there is one,
    and which input is packed along which of its dimensions.
    """
    region = scales_behind(region, products_of_floats8=multiplies_floats8(target))
    if not any(region.inputs[n].dtype in _STORED for n in constants):
        return region, None, {}
    halves = in_halves(region, constants)
    if halves is None:
        return _by_blocks(region), None, {}
    return _by_blocks(halves.region), halves.axis, {halves.buffer: halves.dimension}


def packed_alone(region: Region, constants: Collection[int]) -> tuple[Region, dict[int, int]]:
    """The region of no contraction with two elements of a 4-bit constant in a byte, and along which dimension."""
    halves = in_halves(region, constants)
    return (region, {}) if halves is None else (halves.region, {halves.buffer: halves.dimension})


def multiplies_floats8(target: GpuTarget) -> bool:
    """True if a GPU's matrix units multiply 8-bit floats as OCP has them, and Triton knows it."""
    return target.backend == "cuda" and target.fp8 is not None


def _by_blocks(region: Region) -> Region:
    """The region with contracted axes that loads divide by one number taken apart by it."""
    (position,) = region.contractions
    contract = region.stages[position]
    assert isinstance(contract, Contract)
    for axis in contract.axes:
        sizes = divisors_of(region, axis)
        if len(sizes) == 1 and sizes[0] >= _SHORTEST:
            region = with_digits(region, axis, sizes[0])
    return region


def whole_depth(schedule: ContractionSchedule) -> ContractionSchedule:
    """The schedule of a product in halves: the depth in no slices, and blocks and registers for two products a step."""
    stages = max(2, schedule.stages - 1)
    rows = schedule.block_m // 2 if schedule.block_m * schedule.block_n > _LARGEST_TILE else schedule.block_m
    warps = schedule.warps // schedule.slices
    split = 1 if schedule.wave else schedule.split  # this template has no tail that is shared
    return replace(schedule, slices=1, warps=warps, stages=stages, block_m=rows, bulk=False, split=split, wave=0)
