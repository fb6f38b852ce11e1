"""The option `--shape`: `batch=4`, `batch=1:64`, `x=1,3,224,224`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias

from fusible.errors import UsageError

__all__ = ["Shape", "parse_shapes"]

Shape: TypeAlias = "int | tuple[int, int] | tuple[int, ...]"

_NUMBER = re.compile(r"\d+")
_RANGE = re.compile(r"(\d+):(\d+)")
_LIST = re.compile(r"\d+(?:[,x]\d+)+|\d+,")


def parse_shapes(values: Iterable[str]) -> dict[str, Shape] | None:
    """Turn `NAME=VALUE` texts into the `shapes` argument of `fusible.compile`; None if there are none.

    VALUE is a number (fixes a symbol), `low:high` (bounds it), or the dimensions of a whole input, separated by commas
    or `x`; an input of one dimension is written `5,`. Raises UsageError for anything else.
    """
    shapes: dict[str, Shape] = {}
    for text in values:
        name, equals, value = text.rpartition("=")
        if not equals or not name:
            raise UsageError(f"--shape takes NAME=VALUE, got {text!r}")
        if name in shapes:
            raise UsageError(f"--shape names {name!r} twice")
        shapes[name] = _parse_shape(text, value)
    return shapes or None


def _parse_shape(text: str, value: str) -> Shape:
    if _NUMBER.fullmatch(value):
        return int(value)
    if match := _RANGE.fullmatch(value):
        return int(match[1]), int(match[2])
    if _LIST.fullmatch(value):
        return tuple(int(part) for part in re.split("[,x]", value) if part)
    raise UsageError(f"--shape {text!r}: expected a number (4), a range (1:64) or dimensions (1,3,224,224)")
