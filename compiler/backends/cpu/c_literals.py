"""Scales of quantisations as parameters: layers that differ in nothing else share a function.

A quantised network has scales of its own in every layer. Written into the text, they would make as many functions of
two or three that differ: a ResNet-50 had 58 to compile. So floats in the text of hooks become members of the call's
struct, whose bits the plan hands over like sizes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

__all__ = ["Literals"]

_LITERAL = re.compile(r"\((-[0-9][0-9.e+-]*f)\)|(?<![\w.)-])([0-9][0-9.]*(?:e[+-]?[0-9]+)?f)\b")
_NAMED = re.compile(r"^ *const (?:int32_t|float) (v[0-9]+) = \(?-?[0-9.e+-]+f?\)?;\n", re.MULTILINE)  # a literal's name
_USUAL = frozenset({0.0, 1.0, 255.0})
_QUANTISED = "vf_divide("


class Literals:
    """What was taken out of texts: floats, in order."""

    def __init__(self) -> None:
        self._found: dict[str, int] = {}

    def taken_from(self, text: str) -> str:
        """A hook with members of `c` in the place of its floats, if it quantises by known scales."""
        if _QUANTISED not in text:
            return text
        unused = [m for m in _NAMED.finditer(text) if len(re.findall(rf"\b{m[1]}\b", text)) == 1]
        for line in reversed(unused):
            text = text[: line.start()] + text[line.end() :]
        return _LITERAL.sub(self._member, text)

    def _member(self, found: re.Match[str]) -> str:
        text = found[1] or found[2]
        if float(text[:-1]) in _USUAL:
            return found[0]
        return f"c->q{self._found.setdefault(text, len(self._found))}"

    @property
    def words(self) -> list[int]:
        """Their bits, which the plan hands over."""
        return [int(np.float32(text[:-1]).view(np.int32)) for text in self._found]

    @property
    def members(self) -> list[str]:
        """Their declarations."""
        return [f"    float q{n};" for n in range(len(self._found))]

    def fields(self, first: int) -> Sequence[str]:
        """Their values; `first`: the place of the first one among `dims`."""
        return [f".q{n} = float_of_word(dims[{first + n}])" for n in range(len(self._found))]
