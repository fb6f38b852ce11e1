"""The region interpreter against NumPy: combiners, scans, gathers, bounds, empty extents, symbols."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.ir.symbols import Symbol
from fusible.compiler.region.evaluate import run_region
from fusible.compiler.region.parse import parse_region
from tests.tolerance import assert_close


def rows(stages: str, dtype: str = "f32", result: str = "f32") -> str:
    return f"""
region [i0=3, i1=7]
  in x0: {dtype}[3, 7]
  out y0: {result}[3]
  v0: {dtype} = load x0[i0, i1]
{stages}
"""


def folded(combiner: str, x: np.ndarray, args: str, dtypes: str, number: int) -> np.ndarray:
    """One result of a tuple combiner along the rows; v1 is the position, v2 is 1, v3 is 0."""
    kind, result = "f32", dtypes.split(", ")[number]
    names = ", ".join(f"v{4 + n}" for n in range(dtypes.count(",") + 1))
    stages = f"""  v1: i64 = index i1
  v2: f32 = 1.0
  v3: f32 = 0.0
  {names}: {dtypes} = reduce {combiner} over i1 of {args}
  store y0[i0] = v{4 + number}"""
    return run_region(parse_region(rows(stages, kind, result)), [x])[0]


VALUES = np.asarray(np.random.default_rng(3).standard_normal((3, 7)), np.float32)
TIES = np.asarray([[1, 3, 3, 0, 3, -2, 1], [np.nan, 5, 1, np.nan, 0, 0, 0], [-np.inf] * 7], np.float32)


@pytest.mark.parametrize("x", [VALUES, TIES])
def test_positions_of_extremes(x: np.ndarray) -> None:
    for combiner, find in (("argmax", np.argmax), ("argmin", np.argmin)):
        assert np.array_equal(folded(combiner, x, "v0, v1", "f32, i64", 1), find(x, 1))
        last = 6 - find(x[:, ::-1], 1)
        assert np.array_equal(folded(f"{combiner}_last", x, "v0, v1", "f32, i64", 1), last)


def test_welford() -> None:
    x = VALUES + 1000  # where sums of squares would lose every digit
    wide = x.astype(np.float64)
    assert_close(folded("welford", x, "v0, v3, v2", "f32, f32, f32", 0), wide.mean(1), accumulation=7)
    got = folded("welford", x, "v0, v3, v2", "f32, f32, f32", 1) / 7
    assert np.allclose(got, wide.var(1), rtol=1e-3)
    assert np.array_equal(folded("welford", x, "v0, v3, v2", "f32, f32, f32", 2), [7, 7, 7])


def test_online_softmax() -> None:
    x = np.where(VALUES > 0.8, -np.inf, VALUES * 50).astype(np.float32)
    top = x.max(1)
    assert np.array_equal(folded("online_softmax", x, "v0, v2", "f32, f32", 0), top)
    total = np.exp(x.astype(np.float64) - top[:, None]).sum(1)
    assert_close(folded("online_softmax", x, "v0, v2", "f32, f32", 1), total, accumulation=7)
    masked = np.full((3, 7), -np.inf, np.float32)
    assert np.array_equal(folded("online_softmax", masked, "v0, v2", "f32, f32", 1), [7, 7, 7])


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_scans(exclusive: bool, reverse: bool) -> None:
    words = f"{'exclusive ' if exclusive else ''}{'reverse ' if reverse else ''}"
    text = f"""
region [i0=3, i1=7]
  in x0: f32[3, 7]
  out y0: f32[3, 7]
  v0: f32 = load x0[i0, i1]
  v1: f32 = scan {words}sum over i1 of v0
  store y0[i0, i1] = v1
"""
    wide = VALUES.astype(np.float64)[:, ::-1] if reverse else VALUES.astype(np.float64)
    expected = np.cumsum(wide, 1) - (wide if exclusive else 0)
    expected = expected[:, ::-1] if reverse else expected
    assert_close(run_region(parse_region(text), [VALUES])[0], expected, accumulation=7)


def test_a_constant_folded_over_an_axis_counts_each_element() -> None:
    stages = "  v1: f32 = 2.0\n  v2: f32 = reduce sum over i1 of v1\n  v3: f32 = max(v2, v0)\n"
    stages += "  v4: f32 = reduce max over i1 of v3\n  store y0[i0] = v4"
    assert np.array_equal(run_region(parse_region(rows(stages)), [VALUES])[0], [14, 14, 14])
    contracted = "  v1: f32 = 2.0\n  v2: f32 = contract over i1 of v1, v1\n  v3: f32 = max(v2, v0)\n"
    contracted += "  v4: f32 = reduce max over i1 of v3\n  store y0[i0] = v4"
    assert np.array_equal(run_region(parse_region(rows(contracted)), [VALUES])[0], [28, 28, 28])


def test_symbols_and_empty_extents() -> None:
    text = """
region [i0=n, i1=m]
  in x0: f32[n, m]
  out y0: f32[n]
  v0: f32 = load x0[i0, i1]
  v1: f32 = reduce sum over i1 of v0
  v2: i64 = index m
  v3: f32 = f32(v2)
  v4: f32 = add(v1, v3)
  store y0[i0] = v4
"""
    region = parse_region(text, {"n": Symbol("n"), "m": Symbol("m")})
    for n, m in ((3, 7), (0, 7), (3, 0), (0, 0)):
        x = VALUES[:n, :m]
        (got,) = run_region(region, [x], {"n": n, "m": m})
        assert got.shape == (n,)
        assert_close(got, x.astype(np.float64).sum(1) + m, accumulation=8)


def test_reads_and_writes_outside_are_errors() -> None:
    stages = "  v1: f32 = reduce sum over i1 of v0\n  store y0[i0 + 1] = v1"
    with pytest.raises(IndexError, match=r"index map \[i0 \+ 1\] leaves a dimension of 3"):
        run_region(parse_region(rows(stages)), [VALUES])
    gathered = "  v1: i64 = index 2*i1\n  v2: f32 = load x0[i0, v1]\n  v3: f32 = add(v0, v2)\n"
    gathered += "  v4: f32 = reduce sum over i1 of v3\n  store y0[i0] = v4"
    with pytest.raises(IndexError, match=r"index map \[i0, v1\] leaves a dimension of 7"):
        run_region(parse_region(rows(gathered)), [VALUES])
