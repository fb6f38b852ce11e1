"""Pieces of TTIR's text: balanced splitting, types, attributes, source locations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from fusible.compiler.backends.triton.ttir import Descriptor, Element, Pointer, Scalar, Tensor, Type

__all__ = [
    "BadText",
    "attributes_of",
    "parse_type",
    "parse_types",
    "positions",
    "resolve_location",
    "split_at",
    "take_locations",
]

_OPEN, _CLOSE = "([{<", ")]}>"
_MAX_DEPTH = 16
_MAX_RANK = 8
_ELEMENTS = {element.value: element for element in Element}
_DIMENSION = re.compile(r"(\d{1,9})x")
_LOCATION = re.compile(r"\s*\bloc\(")
_FILE = re.compile(r'"((?:[^"\\]|\\.)*)":(\d+):\d+')
_CALL_SITE = re.compile(r"callsite\(.* at (.*)\)", re.DOTALL)
_NAMED = re.compile(r'"(?:[^"\\]|\\.)*"\((.*)\)', re.DOTALL)
_TYPED = re.compile(r"(.*\S)\s*:\s*[if]\d+", re.DOTALL)


class BadText(Exception):
    """Raised with what was expected; who knows the line turns it into an error for the user."""


def positions(text: str) -> Iterator[tuple[int, str, int]]:
    """Yield position, character and bracket depth of all that stands outside strings; `->` is no bracket."""
    depth, quoted, escaped = 0, False, False
    for place, char in enumerate(text):
        if quoted:
            quoted = escaped or char != '"'
            escaped = char == "\\" and not escaped
            continue
        if char == '"':
            quoted = True
        elif char in _CLOSE and text[place - 1 : place + 1] != "->":
            depth -= 1
        yield place, char, depth
        if char in _OPEN:
            depth += 1
            if depth > _MAX_DEPTH:
                raise BadText(f"brackets nested more than {_MAX_DEPTH} deep")
    if quoted or depth != 0:
        raise BadText("a bracket or a string without its end")


def split_at(text: str, separator: str) -> list[str]:
    """Split at a separator that stands in no bracket and no string; the parts are stripped."""
    parts, start = [], 0
    for place, _, depth in positions(text):
        if depth == 0 and place >= start and text.startswith(separator, place):
            parts.append(text[start:place].strip())
            start = place + len(separator)
    parts.append(text[start:].strip())
    return parts


def parse_types(text: str) -> tuple[Type, ...]:
    """Read types with commas between them, in parentheses or not."""
    text = text.strip()
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
    return tuple(parse_type(part) for part in split_at(text, ",")) if text else ()


def parse_type(text: str) -> Type:
    """Read one type. Raises BadText."""
    text = text.strip()
    inner = _inside(text, "!tt.tensordesc<")
    if inner is not None:
        return Descriptor(_tensor(_inside(inner, "tensor<") or inner))
    inner = _inside(text, "tensor<")
    return _tensor(inner) if inner is not None else _scalar(text)


def _tensor(text: str) -> Tensor:
    text = split_at(text, ",")[0]  # an encoding or signedness may follow
    shape = []
    while match := _DIMENSION.match(text):
        shape.append(int(match.group(1)))
        text = text[match.end() :]
    if not 1 <= len(shape) <= _MAX_RANK or 0 in shape:
        raise BadText(f"a tensor of 1 to {_MAX_RANK} extents, not {shape} of {text!r}")
    return Tensor(tuple(shape), _scalar(text))


def _scalar(text: str, depth: int = 0) -> Scalar:
    inner = _inside(text, "!tt.ptr<")
    if inner is not None and depth < 4:
        return Pointer(_scalar(split_at(inner, ",")[0], depth + 1))
    if text not in _ELEMENTS:
        raise BadText(
            f"{text!r} is not a type that can be lowered (known are {', '.join(_ELEMENTS)}, pointers, tensors)"
        )
    return _ELEMENTS[text]


def _inside(text: str, opening: str) -> str | None:
    return text[len(opening) : -1] if text.startswith(opening) and text.endswith(">") else None


def attributes_of(text: str) -> dict[str, str]:
    """Read `a = 1 : i32, b, c = "x"`: the values as text, with types and quotation marks removed."""
    found = {}
    for part in split_at(text, ","):
        if not part:
            continue
        name, _, value = part.partition("=")
        value = value.strip()
        if match := _TYPED.fullmatch(value):
            value = match.group(1)
        found[name.strip()] = value[1:-1] if value.startswith('"') and value.endswith('"') and value != '"' else value
    return found


def take_locations(text: str) -> tuple[str, str]:
    """Return a line without any `loc(...)`, and what stood in the last one."""
    last, kept, start = "", [], 0
    outside = {place for place, _, _ in _loosely(text)}
    for match in _LOCATION.finditer(text):
        if match.start() < start or match.end() - 1 not in outside:
            continue
        end = _closing(text, match.end() - 1, outside)
        kept.append(text[start : match.start()])
        last, start = text[match.end() : end], end + 1
    return "".join(kept) + text[start:], last


def _loosely(text: str) -> Iterator[tuple[int, str, int]]:
    """As `positions`, of a line that opens or closes a region and so does not balance."""
    quoted = escaped = False
    for place, char in enumerate(text):
        if quoted:
            quoted = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            quoted = True
        else:
            yield place, char, 0


def _closing(text: str, start: int, outside: set[int]) -> int:
    depth = 0
    for place in range(start, len(text)):
        if place in outside:
            depth += (text[place] == "(") - (text[place] == ")")
            if depth == 0:
                return place
    raise BadText("loc( without its end")


def resolve_location(text: str, table: Mapping[str, str]) -> str:
    """Return `file:line` of a location, following aliases; of an inlined call, that of the outermost caller."""
    for _ in range(64):
        text = table.get(text.strip(), text.strip())
        if match := _CALL_SITE.fullmatch(text):
            text = match.group(1)
        elif match := _FILE.fullmatch(text):
            return f"{match.group(1)}:{match.group(2)}"
        elif match := _NAMED.fullmatch(text):
            text = match.group(1)
        else:
            return ""
    return ""
