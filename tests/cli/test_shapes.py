"""The texts of `--shape`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusible.cli.shapes import parse_shapes
from fusible.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("batch=4", {"batch": 4}),
        ("batch=1:64", {"batch": (1, 64)}),
        ("x=1,3,224,224", {"x": (1, 3, 224, 224)}),
        ("x=1x3x224x224", {"x": (1, 3, 224, 224)}),
        ("x=5,", {"x": (5,)}),
        ("input:0=2", {"input:0": 2}),
        ("a=b=0", {"a=b": 0}),
    ],
)
def test_forms(text: str, expected: dict[str, object]) -> None:
    assert parse_shapes([text]) == expected


def test_none_and_several() -> None:
    assert parse_shapes([]) is None
    assert parse_shapes(["n=1", "x=2,3"]) == {"n": 1, "x": (2, 3)}


@pytest.mark.parametrize("text", ["batch", "=4", "batch=", "batch=four", "batch=-1", "batch=1:", "x=1,,2", "x=1.5"])
def test_malformed(text: str) -> None:
    with pytest.raises(UsageError, match="--shape"):
        parse_shapes([text])


def test_the_same_name_twice() -> None:
    with pytest.raises(UsageError, match="twice"):
        parse_shapes(["n=1", "n=2"])


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=6), st.sampled_from(",x"))
def test_every_list_of_dimensions(dims: list[int], separator: str) -> None:
    assert parse_shapes(["x=" + separator.join(map(str, dims))]) == {"x": tuple(dims)}
