"""Bounds of dimension expressions against all values that they take."""

from __future__ import annotations

import itertools

import pytest

from fusible.errors import ArtifactError, ExecutionError
from fusible.runtime.dims import evaluate_dim, symbols_of
from fusible.runtime.ranges import range_of

RANGES = {"a": (3, 9), "b": (1, 5), "c": (0, 2)}


@pytest.mark.parametrize(
    "text",
    [
        7,
        "a",
        "4*a*b + c",
        "-a",
        "-floordiv(-a, 4)",
        "-3*floordiv(-2*a + 5, 8) + 2",
        "floordiv(a + 15, 16)",
        "floordiv(a*b, b)",
        "mod(a, 4)",
        "mod(a + 1, 16)",
        "mod(-a, b)",
        "max(a, 2*b)",
        "min(a, 2*b) - c",
    ],
)
def test_no_value_lies_outside(text: int | str) -> None:
    low, high = range_of(text, RANGES)
    names = sorted(symbols_of(text))
    choices = (range(RANGES[n][0], RANGES[n][1] + 1) for n in names)
    found = [evaluate_dim(text, dict(zip(names, values, strict=True))) for values in itertools.product(*choices)]
    assert low <= min(found) and max(found) <= high
    if text not in ("floordiv(a*b, b)", "mod(a, 4)", "mod(-a, b)"):  # what occurs twice counts as two
        assert (low, high) == (min(found), max(found))


def test_of_two_that_broadcast_either_may_be_larger() -> None:
    assert range_of("bcast(a, b)", {"a": (1, 1), "b": (4, 8)}) == (1, 8)


@pytest.mark.parametrize("text", ["floordiv(a, c)", "mod(a, b - 5)", "a + unknown"])
def test_what_has_no_bounds_is_refused(text: str) -> None:
    with pytest.raises(ExecutionError):
        range_of(text, RANGES)


@pytest.mark.parametrize("text", ["a / b", "a +", "floor(a, b)", "floordiv(a)", "'a'", "+".join(["a"] * 20_000)])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError):
        range_of(text, RANGES)
