"""Strings: StringConcat, StringSplit, StringNormalizer, RegexFullMatch, TfIdfVectorizer.

Tensors of strings are object arrays of str.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fusible.kernels.numpy.regular_expression import Automaton

Array = np.ndarray[Any, Any]


def string_concat(x: Array, y: Array, /) -> Array:
    """x followed by y, element by element, broadcast like numbers."""
    return np.asarray(np.add(x.astype(object, copy=False), y.astype(object, copy=False)), object)


def string_split(x: Array, /, *, delimiter: str = "", maxsplit: int | None = None) -> tuple[Array, Array]:
    """The pieces of each string [..., most pieces], padded with "", and how many there are (int64 [...]).

    An empty delimiter splits at runs of white space and drops those at the ends; any other separates empty strings
    too, so that "" has one piece. maxsplit: at most so many cuts, from the left.
    """
    cuts = -1 if maxsplit is None else maxsplit
    if delimiter:
        pieces = [text.split(delimiter, cuts) for text in x.ravel().tolist()]
    else:
        pieces = [text.rstrip().split(None, cuts) for text in x.ravel().tolist()]
    counts = np.array([len(found) for found in pieces], np.int64)
    y = np.full((len(pieces), int(counts.max(initial=0))), "", object)
    for row, found in zip(y, pieces, strict=True):
        row[: len(found)] = found
    return y.reshape(*x.shape, y.shape[1]), counts.reshape(x.shape)


def string_normalizer(
    x: Array, /, *, case_change_action: str = "NONE", is_case_sensitive: bool = False, stopwords: Sequence[str] = ()
) -> Array:
    """The strings of x ([C] or [1, C]) without the stop words, in "LOWER" or "UPPER" case or as they are ("NONE").

    If nothing is left, one empty string. Case is Unicode's, whatever locale the model names.
    """
    if x.ndim not in (1, 2) or (x.ndim == 2 and x.shape[0] != 1):
        raise ValueError(f"string_normalizer takes a tensor of shape [C] or [1, C], got {x.shape}")
    changes: dict[str, Callable[[str], str]] = {"NONE": str, "LOWER": str.lower, "UPPER": str.upper}
    if case_change_action not in changes:
        raise ValueError(f"case_change_action must be NONE, LOWER or UPPER, got {case_change_action!r}")
    change, key = changes[case_change_action], changes["NONE" if is_case_sensitive else "LOWER"]
    stop = {key(word) for word in stopwords}
    kept = [change(text) for text in x.ravel().tolist() if key(text) not in stop] or [""]
    y = np.array(kept, object)
    return y.reshape(1, -1) if x.ndim == 2 else y


def regex_full_match(x: Array, /, *, pattern: str) -> Array:
    """Whether each whole string matches the pattern (RE2 syntax, see `regular_expression`): bool, of x's shape."""
    automaton = Automaton(pattern)
    return np.array([automaton.matches(text) for text in x.ravel().tolist()], np.bool_).reshape(x.shape)


def tf_idf_vectorizer(
    x: Array, pool: Array, ngram_indexes: Array, weights: Array | None = None, /, *, mode: str, min_gram_length: int,
    max_gram_length: int, max_skip_count: int, ngram_counts: Sequence[int], columns: int,
) -> Array:  # fmt: skip
    """How often each n-gram of the pool occurs in x ([C] -> [columns] or [N, C] -> [N, columns]), float32.

    An occurrence of an n-gram has its items 1 + s apart, for s = 0..max_skip_count (only s = 0 for single items).
    pool: items of all n-grams in turn, of the type of x; ngram_counts: where the 1-grams, 2-grams... begin in it;
    ngram_indexes int64 [G]: the column of each n-gram, below `columns`; weights float32 [G], 1 if absent. Mode "TF"
    counts, "IDF" gives the n-gram's weight if it occurs, "TFIDF" count * weight. Raises ValueError if these disagree.
    """
    if mode not in ("TF", "IDF", "TFIDF"):
        raise ValueError(f"tf_idf_vectorizer: mode must be TF, IDF or TFIDF, got {mode!r}")
    if x.ndim not in (1, 2):
        raise ValueError(f"tf_idf_vectorizer takes a tensor of shape [C] or [N, C], got {x.shape}")
    rows = x if x.ndim == 2 else x[None]
    items, codes = _codes(pool, rows)
    counts = np.zeros((rows.shape[0], len(ngram_indexes)), np.float32)
    first = 0  # of the n-grams of this length, counted in n-grams
    for length, start in enumerate(ngram_counts, 1):
        end = ngram_counts[length] if length < len(ngram_counts) else len(pool)
        if not 0 <= start <= end <= len(pool) or (end - start) % length:
            raise ValueError(f"tf_idf_vectorizer: the {length}-grams of the pool cannot run from {start} to {end}")
        grams = items[start:end].reshape(-1, length)
        place = counts[:, first : first + len(grams)]
        first += len(grams)
        if place.shape[1] == len(grams) and min_gram_length <= length <= max_gram_length:
            # Items further apart than the row is long do not occur, however many skips are allowed.
            furthest = min(max_skip_count + 1, codes.shape[1]) if length > 1 else 1
            for stride in range(1, furthest + 1):
                _count(place, grams, codes, stride)
    if first != len(ngram_indexes) or ngram_indexes.min(initial=0) < 0 or ngram_indexes.max(initial=-1) >= columns:
        raise ValueError(f"tf_idf_vectorizer: each of {first} n-grams needs an index below {columns}")
    if mode == "IDF":
        np.minimum(counts, 1, out=counts)
    if mode != "TF" and weights is not None:
        counts *= weights
    y = np.zeros((rows.shape[0], columns), np.float32)
    np.add.at(y.T, ngram_indexes, counts.T)
    return y if x.ndim == 2 else y[0]


def _codes(pool: Array, rows: Array) -> tuple[Array, Array]:
    """Small integers in place of the items: equal for equal items, -1 for items of the rows that the pool has not."""
    if pool.size == 0:
        return np.zeros(0, np.int64), np.full(rows.shape, -1, np.int64)
    known, items = np.unique(pool, return_inverse=True)
    at = np.minimum(np.searchsorted(known, rows.ravel()), len(known) - 1)
    codes = np.where(known[at] == rows.ravel(), at, -1)
    return items.reshape(-1).astype(np.int64), codes.reshape(rows.shape).astype(np.int64)


def _count(counts: Array, grams: Array, codes: Array, stride: int) -> None:
    """Adds to counts [N, G] the occurrences of grams [G, n] in codes [N, C], items `stride` apart."""
    length = grams.shape[1]
    windows = codes.shape[1] - (length - 1) * stride
    if windows <= 0 or not len(grams):
        return
    # Prefix by prefix, n-grams and windows get a number; equal prefixes get the same one, so numbers stay small.
    wanted, seen = np.zeros(len(grams), np.int64), np.zeros((codes.shape[0], windows), np.int64)
    base = int(max(grams.max(initial=0), codes.max(initial=0))) + 2
    for k in range(length):
        wanted = wanted * base + grams[:, k]
        here = codes[:, k * stride : k * stride + windows]
        seen = np.where((here < 0) | (seen < 0), -1, seen * base + here)
        prefixes, wanted = np.unique(wanted, return_inverse=True)
        at = np.minimum(np.searchsorted(prefixes, seen), len(prefixes) - 1)
        seen = np.where(prefixes[at] == seen, at, -1)
    row, column = np.nonzero(seen >= 0)
    found = np.zeros((codes.shape[0], int(wanted.max(initial=0)) + 1), np.float32)
    np.add.at(found, (row, seen[row, column]), 1)
    # An n-gram that stands twice in the pool is counted in its last place.
    last = np.zeros(found.shape[1], np.intp)
    last[wanted] = np.arange(len(grams))
    counts[:, last] += found
