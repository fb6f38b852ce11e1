"""Quantities in words: three significant digits, a unit, one printable line."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusible.benchmarks.report.wording import (
    bytes_text,
    error_text,
    interval_text,
    noise_text,
    number_text,
    plural,
    printable,
    ratio_text,
    seconds_text,
    share_text,
    shortened,
    span_text,
    visible,
)
from tests.benchmarks.report.made_up import HOSTILE, SENTINEL, interval, latency


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.01234, "12.3 ms"),
        (1.0, "1.00 s"),
        (123.4, "123 s"),
        (9.99e-4, "999 µs"),
        (4.5e-8, "45.0 ns"),
        (4.5e-11, "0.0450 ns"),
        (0, "0 s"),
        (math.inf, "inf s"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.1234, "0.123"), (12.34, "12.3"), (1234.0, "1234"), (1e-9, "1.00e-09"), (3e20, "3.00e+20")],
)
def test_numbers(value: float, text: str) -> None:
    assert number_text(value) == text


@given(st.floats(1e-5, 1e12))
def test_numbers_keep_three_digits(value: float) -> None:
    assert float(number_text(value)) == pytest.approx(value, rel=5.01e-3)


@pytest.mark.parametrize(("ratio", "text"), [(1.2, "1.20"), (0.051, "0.0510"), (12.34, "12.3"), (0.998, "1.00")])
def test_ratios(ratio: float, text: str) -> None:
    assert ratio_text(ratio) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.50 KiB"), (150 << 20, "150 MiB"), (5 << 50, "5120 TiB")]
)
def test_bytes(count: int, text: str) -> None:
    assert bytes_text(count) == text


def test_the_other_quantities() -> None:
    assert span_text(latency(0.0124)) == "12.0–12.8"
    assert interval_text(interval(1.2)) == "1.19–1.21"
    assert share_text(0.384) == "38 %"
    assert error_text(0) == "0"
    assert error_text(2.44e-6) == "2.4e-06"
    assert plural(1, "thread") == "1 thread"
    assert plural(0, "thread") == "0 threads"
    assert noise_text(None) == "not measured"
    assert noise_text(SENTINEL).endswith("took 1.02 times its best at p50, 1.08 at p80, 1.90 at worst (20 rounds)")


@given(st.text())
def test_printable_text_is_one_line_without_control_characters(text: str) -> None:
    assert printable(text).isprintable()
    assert visible(text).isprintable()


def test_text_that_would_steer_a_terminal_is_shown() -> None:
    assert printable("a\x1b[31m\n\tb\u202e") == "a\\x1b[31m b\\u202e"
    assert printable(HOSTILE).startswith("<script>")
    assert shortened("abcdef", 4) == "abc…"
    assert shortened("abcd", 4) == "abcd"
