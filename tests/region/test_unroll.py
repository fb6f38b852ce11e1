"""Small windows folded point by point compute what the reduction did; what cannot be unrolled stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.ir.symbols import Symbol
from fusible.compiler.region.evaluate import run_region
from fusible.compiler.region.parse import parse_region
from fusible.compiler.region.region import Reduce
from fusible.compiler.region.unroll import unrolled
from fusible.compiler.region.verify import verify_region

POOLED = """region [i0=2, i1=5, i2=4, i3=3, i4=6, i5=3]
  in x0: f32[2, 8, 6]
  in x1: f32[3, 6]
  out y0: f32[2, 5, 3]
  v0: f32 = load x0[i0, 2*i1 + i2 - 1, i4] where 0 <= 2*i1 + i2 - 1 < 8 else -inf
  v1: f32 = reduce max over i2 of v0
  v2: f32 = load x1[i3, i4]
  v3: f32 = contract over i4 of v1, v2
  store y0[i0, i1, i3] = v3
"""


def numbers(seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.standard_normal(s).astype(np.float32) for s in ((2, 8, 6), (3, 6))]


@pytest.mark.parametrize("combiner", ["max", "min", "sum", "prod"])
def test_windows_are_folded_point_by_point(combiner: str) -> None:
    fill = {"max": "-inf", "min": "inf", "sum": "0.0", "prod": "1.0"}[combiner]
    text = POOLED.replace("reduce max", f"reduce {combiner}").replace("else -inf", f"else {fill}")
    region = parse_region(text)
    flat = unrolled(region, 4)
    verify_region(flat)
    assert not any(isinstance(stage, Reduce) for stage in flat.stages)
    assert len(flat.extents) == len(region.extents) - 2  # i5, which nothing has, and the window
    np.testing.assert_allclose(run_region(flat, numbers())[0], run_region(region, numbers())[0], rtol=1e-5, atol=1e-6)


def test_nan_is_found_wherever_it_stands() -> None:
    region, given = parse_region(POOLED), numbers()
    given[0][0, 3, 2] = np.nan
    found, wanted = (run_region(r, given)[0] for r in (unrolled(region, 4), region))
    assert np.isnan(wanted).any() and np.array_equal(np.isnan(found), np.isnan(wanted))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("i2=4", "i2=n"),  # a size that is not known
        ("reduce max over i2", "reduce max over i4"),  # what the contraction sums over as well
    ],
)
def test_others_stay(old: str, new: str) -> None:
    region = parse_region(POOLED.replace(old, new), {"n": Symbol("n")})
    assert unrolled(region, 9) is region


def test_large_windows_stay() -> None:
    region = parse_region(POOLED)
    assert unrolled(region, 3) is region
