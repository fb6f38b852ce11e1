"""Operators on strings against ONNX Runtime (whose regular expressions are RE2 itself) and Python."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusible.kernels.numpy.regular_expression import MAX_LENGTH, Automaton
from fusible.kernels.numpy.text import (
    regex_full_match,
    string_concat,
    string_normalizer,
    string_split,
    tf_idf_vectorizer,
)
from tests.kernels.single_node import run_node


def strings(*texts: str) -> np.ndarray:
    return np.array(texts, object)


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    assert (got.dtype, got.shape, got.tolist()) == (expected.dtype, expected.shape, expected.tolist())


def test_concat_broadcasts() -> None:
    x, y = strings("a", "é", ""), strings("x", "y").reshape(2, 1)
    assert_same(string_concat(x, y), run_node("StringConcat", [x, y], opset=20)[0])
    assert string_concat(np.array("a", object), np.array("b", object)).shape == ()


@pytest.mark.parametrize("delimiter", ["", ",", "a,"])
@pytest.mark.parametrize("maxsplit", [None, 0, 1, 2])
def test_split(delimiter: str, maxsplit: int | None) -> None:
    x = strings("  a b  c ", "abc", ",a,,b,", " ", "héé wörld x").reshape(5, 1)
    given = {"delimiter": delimiter, **({} if maxsplit is None else {"maxsplit": maxsplit})}
    for got, expected in zip(string_split(x, **given), run_node("StringSplit", [x], 2, opset=20, **given), strict=True):
        assert_same(got, expected)


def test_split_of_nothing() -> None:
    pieces, counts = string_split(np.empty((2, 0), object))
    assert (pieces.shape, counts.shape) == ((2, 0, 0), (2, 0))
    # Python and the standard's reference: one empty piece (ONNX Runtime says none).
    assert string_split(strings(""), delimiter=",")[1].tolist() == [1]
    assert string_split(strings(""))[1].tolist() == [0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ["Monday", "monday", "ß"]),
        ({"stopwords": ("monday",)}, ["ß"]),
        ({"stopwords": ("monday",), "is_case_sensitive": True}, ["Monday", "ß"]),
        ({"case_change_action": "UPPER"}, ["MONDAY", "MONDAY", "SS"]),
        ({"stopwords": ("monday", "ß")}, [""]),
    ],
)
def test_normalizer(given: dict[str, Any], expected: list[str]) -> None:
    x = strings("Monday", "monday", "ß")
    assert string_normalizer(x, **given).tolist() == expected
    assert string_normalizer(x[None], **given).tolist() == [expected]


def test_normalizer_refuses() -> None:
    with pytest.raises(ValueError, match="shape"):
        string_normalizer(np.empty((2, 2), object))
    with pytest.raises(ValueError, match="NONE, LOWER or UPPER"):
        string_normalizer(strings("a"), case_change_action="TITLE")


PATTERNS = [
    r"a*b", r"(a|b)*c?", r"[a-c]+\d{2,3}", r"[^a-c]+", r"\w+@\w+\.(com|org)", r"(?i)aBc", r"(?s).*", r".*", r"a{2}",
    r"a{2,}", r"(a{1,2}){2}", r"[\w.]+", r"^ab$", r"a\b b", r"a\B.", r"(?P<n>x)y", r"[]a]+", r"[a\]-]+", r"\x41\x{42}",
    r"\Qa.b\E", r"[[:alpha:]]+", r"[[:^digit:]]+", r"(?i:a)b", r"()", r"a|", r"(?:a|b|)+c", r"a{,2}", r"\D+", r"[\S]+",
    r"é+", r"[^\W]+", r"(a+)+$", r"a??b", r"(?m)^a$\n^b$", r"[^\D\n]*", r"\A1?\z",
]  # fmt: skip


def texts() -> np.ndarray:
    source = random.Random(0)
    made = ["".join(source.choice("ab c.1A@\n") for _ in range(source.randint(0, 6))) for _ in range(80)]
    chosen = ("abc", "aBc", "a12", "abc123", "x@y.com", "x@y.net", "a.b", "a\nb", "xy", "]a", "a]-", "AB", "éé")
    return strings(*chosen, *made)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_regular_expressions_are_those_of_re2(pattern: str) -> None:
    x = texts()
    expected = run_node("RegexFullMatch", [x], opset=20, pattern=pattern)[0]
    assert_same(regex_full_match(x, pattern=pattern), expected)


def test_regular_expressions_take_linear_time() -> None:
    started = time.monotonic()
    assert not Automaton(r"(a+)+$").matches("a" * 20_000 + "b")
    assert not Automaton(r"(a|a)*(a|aa)*b").matches("a" * 20_000)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=a)", r"\1", "(a", "a)", "[a", "*a", "(?<=a)b", r"\p{L}", "a{1001}", "((a{100}){100}){100}", "(" * 200, "\\",
        "(?P<", "[b-a]", "(?z)", r"\x{zz}", r"\x{ffffffff}", "a" * (MAX_LENGTH + 1), "[[:what:]]",
    ],
)  # fmt: skip
def test_bad_and_unsupported_patterns(pattern: str) -> None:
    with pytest.raises(ValueError, match="regular expression"):
        Automaton(pattern)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), mode=st.sampled_from(["TF", "IDF", "TFIDF"]), skip=st.integers(0, 3))
def test_tf_idf(seed: int, mode: str, skip: int) -> None:
    source = np.random.default_rng(seed)
    kinds = int(source.integers(2, 6))
    lengths = sorted(source.integers(1, 4, 6).tolist())
    grams = list(dict.fromkeys(tuple(source.integers(0, kinds, length).tolist()) for length in lengths))
    pool = [item for gram in grams for item in gram]
    starts = [sum(len(g) for g in grams if len(g) < length) for length in (1, 2, 3)]
    indexes, weights = source.permutation(len(grams) + 2)[: len(grams)], source.random(len(grams)).astype(np.float32)
    given = {"mode": mode, "min_gram_length": 1 + seed % 2, "max_gram_length": 3, "max_skip_count": skip}
    x = source.integers(-1, kinds + 1, (3, 9))
    tables = {"ngram_indexes": indexes.tolist(), "weights": weights.tolist()}
    expected = run_node("TfIdfVectorizer", [x], pool_int64s=pool, ngram_counts=starts, **given, **tables)[0]
    columns = int(indexes.max()) + 1
    got = tf_idf_vectorizer(x, np.array(pool), indexes, weights, ngram_counts=starts, columns=columns, **given)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    words, word_pool = x[0].astype(str).astype(object), np.array(pool).astype(str).astype(object)
    got = tf_idf_vectorizer(words, word_pool, indexes, weights, ngram_counts=starts, columns=columns, **given)
    np.testing.assert_allclose(got, expected[0], rtol=1e-6)


def test_tf_idf_refuses_tables_that_disagree() -> None:
    x, pool = np.array([1, 2]), np.array([1, 2, 3])
    given = {"mode": "TF", "min_gram_length": 1, "max_gram_length": 2, "max_skip_count": 0}
    with pytest.raises(ValueError, match="2-grams"):
        tf_idf_vectorizer(x, pool, np.array([0, 1]), ngram_counts=(0, 2), columns=2, **given)
    with pytest.raises(ValueError, match="index below"):
        tf_idf_vectorizer(x, pool, np.array([0, 1]), ngram_counts=(0, 1), columns=1, **given)


def test_skips_beyond_the_row_cost_nothing() -> None:
    x, pool = np.array([1, 2, 1, 3]), np.array([1, 1, 3])
    given = {"mode": "TF", "min_gram_length": 1, "max_gram_length": 2, "ngram_counts": (0, 1), "columns": 2}
    got = tf_idf_vectorizer(x, pool, np.array([0, 1]), max_skip_count=10**15, **given)
    assert got.tolist() == [2, 2]
