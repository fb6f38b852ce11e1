"""Reductions of a nest in C: where accumulators start, how they take in values and each other, and what lanes give.

A pass that folds has several sets of accumulators (`struct NAME_sums`) which take points in turn: additions that follow
each other wait for the one before, some cycles each, and those of other sets are done meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.backends.cpu.c_expr import print_expr
from fusible.compiler.backends.cpu.c_kinds import Code, Kind, kind_of, literal, promoted
from fusible.compiler.region.combiners import COMBINERS, start_value
from fusible.compiler.region.region import Reduce

__all__ = ["SETS", "accumulators", "folded_lanes", "in_any_order", "merge", "merge_sets", "starts"]

SETS = 4
"""Sets of accumulators: about the cycles that an addition takes, and not too much code."""

_FOLDS = {"sum": "vf_sum({0})", "max": "vf_largest({0})", "min": "-vf_largest(-{0})", "prod": "vf_product({0})"}


def in_any_order(stage: Reduce) -> bool:
    """False for folds that depend on which of two points comes first: positions of the largest."""
    return COMBINERS[stage.combiner].width == 1


def accumulators(stage: Reduce, first: int) -> dict[str, str]:
    """Name -> C type of the accumulators of a reduction whose first value is `first`: vectors."""
    return {f"a{first + n}": kind_of(dtype).c_type(True) for n, dtype in enumerate(stage.dtypes)}


def starts(stage: Reduce) -> list[str]:
    """What each accumulator starts from, in every lane."""
    pairs = zip(COMBINERS[stage.combiner].start, stage.dtypes, strict=True)
    codes = (Code(literal(start_value(s, d), kind_of(d)), kind_of(d), False) for s, d in pairs)
    return [promoted(code).text for code in codes]


def merge(stage: Reduce, first: int, arguments: Sequence[Code], into: str = "s->") -> list[str]:
    """Lines that merge values, vectors, into the accumulators of a reduction."""
    combiner = COMBINERS[stage.combiner]
    states = [Code(f"{into}a{first + n}", kind_of(d), True) for n, d in enumerate(stage.dtypes)]
    lines: list[str] = []
    for number, code in enumerate(arguments):
        if combiner.width > 1:
            lines.append(f"const {code.kind.c_type(True)} b{first + number} = {code.text};")
            code = Code(f"b{first + number}", code.kind, True)
        states.append(code)
    known = dict(enumerate(states))
    merged = [print_expr(m, known, s.kind).text for m, s in zip(combiner.merge, states, strict=False)]
    if combiner.width == 1:
        return [*lines, f"{into}a{first} = {merged[0]};"]
    names = [f"m{first + n}" for n in range(combiner.width)]
    lines += [f"const {s.kind.c_type(True)} {n} = {m};" for s, n, m in zip(states, names, merged, strict=False)]
    return [*lines, *(f"{into}a{first + n} = {name};" for n, name in enumerate(names))]


def merge_sets(stage: Reduce, first: int, other: str) -> list[str]:
    """Lines that merge the accumulators of the set `other` into those of the set s."""
    codes = [Code(f"{other}.a{first + n}", kind_of(d), True) for n, d in enumerate(stage.dtypes)]
    return ["{", *(f"    {line}" for line in merge(stage, first, codes)), "}"]


def folded_lanes(code: Code, combiner: str) -> str:
    """The lanes of an accumulator as one number."""
    if code.kind is Kind.FLOAT:
        return _FOLDS[combiner].format(code.text)
    if code.kind is Kind.MASK:  # the bits of true are those of -1
        combiner = {"max": "min", "min": "max"}[combiner]
    return f"{code.kind.c_type(True)}_fold_{combiner}({code.text})"
