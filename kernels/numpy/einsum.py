"""Einsum: parsed here, evaluated as a chain of batched matrix products."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import Any

import numpy as np

from fusible.kernels.numpy.contraction import product
from fusible.kernels.numpy.halves import delivered, widened

Array = np.ndarray[Any, Any]

ELLIPSIS = "..."


@dataclass(frozen=True, slots=True)
class Equation:
    """The labels of the axes of operands and output; an ellipsis is spelt out as "...0", "...1", outermost first."""

    terms: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]


def parse_equation(equation: str, ranks: Sequence[int]) -> Equation:
    """Read an equation for operands of these ranks. Raises ValueError where they do not fit or it is malformed."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    raw = left.split(",")
    if len(raw) != len(ranks):
        raise ValueError(f"equation {equation!r} has {len(raw)} terms for {len(ranks)} operands")
    split = [_labels(term, equation) for term in raw]
    widths = [_ellipsis_width(labels, rank, equation) for labels, rank in zip(split, ranks, strict=True)]
    widest = max(widths)
    terms = tuple(_spelt_out(labels, width, widest) for labels, width in zip(split, widths, strict=True))
    used = [label for term in terms for label in term]
    if arrow:
        output = _spelt_out(_labels(right, equation), widest, widest)
        if not set(output) <= set(used) or len(set(output)) != len(output):
            raise ValueError(f"the output of equation {equation!r} must name labels of the inputs, each once")
    else:
        letters = sorted(label for label in set(used) if not label.startswith(ELLIPSIS) and used.count(label) == 1)
        output = (*_spelt_out([ELLIPSIS], widest, widest), *letters)
    return Equation(terms, output)


def einsum(*operands: Array, equation: str) -> Array:
    """The sum over all labels that the output lacks of the product of the operands.

    An axis of size 1 broadcasts against one of the same label. Halves are computed in float32 throughout.
    """
    parsed = parse_equation(equation, [x.ndim for x in operands])
    sizes = label_sizes(parsed, [x.shape for x in operands], equation)
    factors = [_prepared(widened(x), term, sizes) for x, term in zip(operands, parsed.terms, strict=True)]
    while len(factors) > 1:
        i, j = _cheapest_pair(factors, parsed.output, sizes)
        rest = [f for k, f in enumerate(factors) if k not in (i, j)]
        factors = [*rest, _contracted(factors[i], factors[j], _needed(rest, parsed.output))]
    result, labels = _summed(factors[0], set(parsed.output))
    return delivered(result.transpose([labels.index(label) for label in parsed.output]), operands[0].dtype)


def label_sizes(parsed: Equation, shapes: Sequence[Sequence[int]], equation: str) -> dict[str, int]:
    """The size of each label. Raises ValueError where two axes of a label differ and neither is 1."""
    sizes: dict[str, int] = {}
    for term, shape in zip(parsed.terms, shapes, strict=True):
        for label, size in zip(term, shape, strict=True):
            known = sizes.setdefault(label, size)
            if known == 1:
                sizes[label] = size
            elif size not in (1, known):
                raise ValueError(f"label {label!r} of equation {equation!r} has sizes {known} and {size}")
    return sizes


_Factor = tuple[Array, tuple[str, ...]]


def _labels(term: str, equation: str) -> list[str]:
    before, dots, after = term.partition(ELLIPSIS)
    letters = before + after
    if any(not (c.isascii() and c.isalpha()) for c in letters):
        raise ValueError(f"equation {equation!r} may hold letters, commas, spaces, '...' and '->' only")
    return [*before, *([ELLIPSIS] if dots else []), *after]


def _ellipsis_width(labels: Sequence[str], rank: int, equation: str) -> int:
    letters = sum(label != ELLIPSIS for label in labels)
    if letters > rank or (ELLIPSIS not in labels and letters != rank):
        raise ValueError(f"a term of equation {equation!r} names {letters} axes of an operand of rank {rank}")
    return rank - letters


def _spelt_out(labels: Iterable[str], width: int, widest: int) -> tuple[str, ...]:
    dots = [f"{ELLIPSIS}{i}" for i in range(widest - width, widest)]
    return tuple(name for label in labels for name in (dots if label == ELLIPSIS else [label]))


def _prepared(x: Array, term: tuple[str, ...], sizes: dict[str, int]) -> _Factor:
    """The operand with each label on one axis (repeats give a diagonal) and without axes that broadcast."""
    kept = [i for i, label in enumerate(term) if x.shape[i] == sizes[label]]
    dropped = tuple(i for i in range(x.ndim) if i not in kept)
    x, labels = np.squeeze(x, axis=dropped), [term[i] for i in kept]
    for label in sorted(set(labels)):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            x = np.diagonal(x, axis1=first, axis2=second)
            labels = [name for k, name in enumerate(labels) if k not in (first, second)] + [label]
    return x, tuple(labels)


def _needed(rest: Sequence[_Factor], output: tuple[str, ...]) -> set[str]:
    return set(output).union(*(labels for _, labels in rest))


def _cheapest_pair(factors: Sequence[_Factor], output: tuple[str, ...], sizes: dict[str, int]) -> tuple[int, int]:
    """The pair whose product is smallest, the first of equals."""

    def size_of_product(pair: tuple[int, int]) -> int:
        rest = [f for k, f in enumerate(factors) if k not in pair]
        both = set(factors[pair[0]][1]) | set(factors[pair[1]][1])
        return prod(sizes[label] for label in both & _needed(rest, output))

    return min(combinations(range(len(factors)), 2), key=size_of_product)


def _summed(factor: _Factor, keep: set[str]) -> _Factor:
    x, labels = factor
    axes = tuple(i for i, label in enumerate(labels) if label not in keep)
    if not axes:
        return factor
    with np.errstate(all="ignore"):
        return np.asarray(np.sum(x, axis=axes, dtype=x.dtype)), tuple(label for label in labels if label in keep)


def _contracted(a: _Factor, b: _Factor, needed: set[str]) -> _Factor:
    """The product of two factors as one batched matrix product; labels that nobody needs any more are summed."""
    (x, xs), (y, ys) = _summed(a, needed | set(b[1])), _summed(b, needed | set(a[1]))
    shared = [label for label in xs if label in ys]
    batch = [label for label in shared if label in needed]
    inner = [label for label in shared if label not in needed]
    rows = [label for label in xs if label not in shared]
    columns = [label for label in ys if label not in shared]
    extent = dict(zip((*xs, *ys), (*x.shape, *y.shape), strict=True))

    def arranged(factor: Array, labels: tuple[str, ...], groups: Sequence[Sequence[str]]) -> Array:
        order = [labels.index(label) for group in groups for label in group]
        return factor.transpose(order).reshape([prod(extent[label] for label in group) for group in groups])

    result = product(arranged(x, xs, (batch, rows, inner)), arranged(y, ys, (batch, inner, columns)))
    labels = (*batch, *rows, *columns)
    return result.reshape([extent[label] for label in labels]), labels
