"""Regions in parts compute what the whole computes, and what is left are plain reads."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.region import region as regions
from fusible.compiler.region.evaluate import run_region
from fusible.compiler.region.parse import parse_region
from fusible.compiler.region.region import Load, Region
from fusible.compiler.region.split import digits_apart, pieces, simplified

SHUFFLE = """region [i0=3, i1=40]
  in x0: f32[3, 20]
  in x1: f32[3, 20]
  out y0: f32[3, 40]
  v0: f32 = load x1[i0, floordiv(i1, 2) + 20*mod(i1, 2) - 20] where 20 <= floordiv(i1, 2) + 20*mod(i1, 2) < 40 else 0
  v1: f32 = load x0[i0, floordiv(i1, 2) + 20*mod(i1, 2)] where 0 <= floordiv(i1, 2) + 20*mod(i1, 2) < 20 else 0
  v2: bool = test 0 <= floordiv(i1, 2) + 20*mod(i1, 2) < 20
  v3: f32 = select(v2, v1, v0)
  store y0[i0, i1] = v3
"""
JOIN = """region [i0=3, i1=30]
  in x0: f32[3, 10]
  in x1: f32[3, 20]
  out y0: f32[3, 30]
  v0: f32 = load x1[i0, i1 - 10] where 10 <= i1 < 30 else 0
  v1: f32 = load x0[i0, i1] where 0 <= i1 < 10 else 0
  v2: bool = test 0 <= i1 < 10
  v3: f32 = select(v2, v1, v0)
  v4: f32 = max(v3, 0)
  store y0[i0, i1] = v4
"""
PAD = """region [i0=3, i1=30]
  in x0: f32[3, 10]
  out y0: f32[3, 30]
  v0: f32 = load x0[i0, i1 - 10] where 0 <= i1 - 10 < 10 else 7
  store y0[i0, i1] = v0
"""


def in_parts(region: Region) -> list[Region]:
    """The parts over the last axis and its digits."""
    return pieces(digits_apart(region, 1), 1, limit=8, least=4)


@pytest.mark.parametrize(("text", "count"), [(SHUFFLE, 2), (JOIN, 2), (PAD, 3)])
def test_the_parts_are_the_whole(text: str, count: int) -> None:
    region, rng = parse_region(text), np.random.default_rng(0)
    inputs = [rng.standard_normal(tuple(map(int, b.shape))).astype(np.float32) for b in region.inputs]
    whole = run_region(region, inputs)[0]
    into = [np.full_like(whole, np.nan)]
    parts = in_parts(region)
    for part in parts:
        run_region(part, inputs, into=into)
    np.testing.assert_array_equal(into[0], whole)
    assert len(parts) == count
    for part in parts:
        assert not any(isinstance(s, regions.Test) or (isinstance(s, Load) and s.map.bounds) for s in part.stages)


def test_few_parts_at_most() -> None:
    assert len(pieces(parse_region(PAD), 1, limit=2, least=4)) == 2
    assert len(pieces(parse_region(PAD), 1, limit=8, least=11)) == 1


def test_a_bound_that_may_fail_stays() -> None:
    found = simplified(parse_region(PAD))
    load = found.stages[0]
    assert isinstance(load, Load) and len(load.map.bounds) == 1 and load.map.fill == 7
