"""Regions over memory that is not theirs alone: blocks of something larger, results in an operand's place."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.region.evaluate import run_region
from fusible.compiler.region.overwrite import overwritable
from fusible.compiler.region.parse import parse_region
from fusible.compiler.region.region import Region
from fusible.compiler.region.reorder import reordered, widened
from fusible.compiler.region.verify import verify_region


def region(stages: str, inputs: str = "x0: f32[4, 6]", extents: str = "i0=4, i1=6", output: str = "[4, 6]") -> Region:
    lines = [f"  in {i}" for i in inputs.split("; ")]
    return parse_region(f"\nregion [{extents}]\n" + "\n".join(lines) + f"\n  out y0: f32{output}\n{stages}\n")


NEGATED = "  v0: f32 = load x0[i0, i1]\n  v1: f32 = neg(v0)\n  store y0[i0, i1] = v1"


@pytest.mark.parametrize("order", [None, (1, 0)])
def test_a_region_over_blocks_computes_the_same(order: tuple[int, int] | None) -> None:
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    wide = widened(region(NEGATED), {0: (4, 9)}, {0: (7, 6)})
    assert [b.shape for b in (*wide.inputs, *wide.outputs)] == [(4, 9), (7, 6)]
    held = np.full((4, 9), np.nan, np.float32)
    held[:, :6] = x
    if order is not None:
        wide, held = reordered(wide, {0: order}, {}), held.transpose(order)
    verify_region(wide)
    (got,) = run_region(wide, [held])
    assert np.array_equal(got[:4], -x)


def test_nothing_wide_is_the_same_region() -> None:
    plain = region(NEGATED)
    assert widened(plain, {}, {}) is plain


def contracted(residual: str) -> Region:
    stages = f"""  v0: f32 = load x0[i0, i2]
  v1: f32 = load x1[i2, i1]
  v2: f32 = contract over i2 of v0, v1
  v3: f32 = load {residual}
  v4: f32 = add(v2, v3)
  store y0[i0, i1] = v4"""
    return region(stages, "x0: f32[6, 6]; x1: f32[6, 6]; x2: f32[6, 6]", "i0=6, i1=6, i2=6", "[6, 6]")


SOFTMAX = """  v0: f32 = load x0[i0, i1]
  v1: f32 = reduce max over i1 of v0
  v2: f32 = exp(sub(v0, v1))
  v3: f32 = reduce sum over i1 of v2
  v4: f32 = div(v2, v3)
  store y0[i0, i1] = v4"""

TURNED = "  v0: f32 = load x0[i1, i0]\n  v1: f32 = neg(v0)\n  store y0[i0, i1] = v1"
NEIGHBOURS = """  v0: f32 = load x0[i0, i1]
  v1: f32 = load x0[i0, i1 - 1] where 0 <= i1 - 1 < 6 else 0.0
  v2: f32 = add(v0, v1)
  store y0[i0, i1] = v2"""
SPREAD = "  v0: f32 = load x0[i0, 0]\n  v1: f32 = neg(v0)\n  store y0[i0, i1] = v1"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (region(NEGATED), (0,)),
        (region(SOFTMAX), (0,)),
        (contracted("x2[i0, i1]"), (2,)),
        (contracted("x0[i0, i1]"), ()),  # the product still reads what the residual's place would hold
        (contracted("x2[i1, i0]"), ()),
        (region(TURNED, "x0: f32[6, 6]", "i0=6, i1=6", "[6, 6]"), ()),
        (region(NEIGHBOURS), ()),
        (region(SPREAD), ()),
        (region(SPREAD, "x0: f32[4, 1]"), ()),
        (widened(region(NEGATED), {0: (4, 9)}, {}), ()),
        (widened(region(NEGATED), {0: (4, 9)}, {0: (4, 9)}), (0,)),
    ],
)
def test_what_may_be_overwritten(made: Region, expected: tuple[int, ...]) -> None:
    assert overwritable(made) == expected
