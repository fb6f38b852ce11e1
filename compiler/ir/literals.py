"""The text of the small things in a printed graph: names, strings, types, attribute values, elements of constants.

Every `print_*` has its `parse_*` or a method of `Cursor`; printing what was parsed gives the same text again. The
text is ASCII: any other character of a model's name appears as `\\u{...}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fusible.compiler.ir.dimension_text import parse_dim
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt
from fusible.compiler.ir.types import DType, OptionalType, SequenceType, TensorType, Type
from fusible.errors import InvalidModel

__all__ = [
    "Cursor",
    "parse_elements",
    "print_attribute",
    "print_elements",
    "print_value_name",
    "print_word",
    "quote",
]

MAX_DEPTH = 64  # of nested tuples and types
_WORD = re.compile(r"[A-Za-z0-9_./:+\-]+")
_VALUE_WORD = re.compile(r"[A-Za-z0-9_./\-]+")
_UNNAMED = re.compile(r"_[0-9]+\Z")  # how values without a name are shown
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_ESCAPE = re.compile(r'\\(?:([nt"\\])|u\{([0-9a-f]{1,6})\})')
_SIMPLE = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}
_INTEGER = re.compile(r"-?[0-9]+\Z")
_FLOAT = re.compile(r"-?(?:[0-9]+\.[0-9]*(?:e[+-]?[0-9]+)?|[0-9]+e[+-]?[0-9]+|inf|nan)\Z")
_TYPE_START = re.compile(r"(?:seq|optional)<|[a-z0-9]+\[")
_DTYPES = {d.value: d for d in DType}
_AMBIGUOUS = re.compile(rf"\b(?:{'|'.join(_DTYPES)}|inf|nan)\b")


# Names and strings


def quote(text: str) -> str:
    """`text` in double quotes, in ASCII."""
    return '"' + "".join(_escaped(c) for c in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if " " <= character <= "~":
        return character
    return {"\n": "\\n", "\t": "\\t"}.get(character, f"\\u{{{ord(character):x}}}")


def _unescape(match: re.Match[str]) -> str:
    simple, code = match.groups()
    return _SIMPLE[simple] if simple else chr(int(code, 16))


def print_word(text: str) -> str:
    """A name as it is if it is harmless, else quoted."""
    return text if _WORD.fullmatch(text) else quote(text)


def print_value_name(hint: str, number: int) -> str:
    """`%name` for the first value of a hint, `%name#2` for the second; `%_N` for values without one."""
    if not hint:
        return f"%_{number}"
    plain = _VALUE_WORD.fullmatch(hint) and not _UNNAMED.match(hint)
    return f"%{hint if plain else quote(hint)}{f'#{number}' if number > 1 else ''}"


# Attribute values


def print_attribute(value: object) -> str:
    """The text of an attribute: numbers, strings, None, element types, types, shape expressions and tuples of them."""
    match value:
        case None | bool():
            return str(value)
        case SymInt():
            # A symbol may be called like an element type.
            return f"dim({value.text})" if _AMBIGUOUS.search(value.text) else value.text
        case int():
            return str(int(value))
        case float():
            return repr(float(value))
        case str():
            return quote(value)
        case DType():
            return value.value
        case TensorType() | SequenceType() | OptionalType():
            return str(value)
        case tuple():
            inner = ", ".join(print_attribute(v) for v in value)
            return f"({inner},)" if len(value) == 1 else f"({inner})"
    return f"<{type(value).__name__} {quote(repr(value))}>"  # shown in errors only; it does not parse


# Elements of constants


def print_elements(array: np.ndarray) -> str:
    """The elements in C order, each so that its very bits come back."""
    dtype = DType.of(array.dtype)
    return f"[{', '.join(_element(x, dtype) for x in array.reshape(-1))}]"


def _element(value: Any, dtype: DType) -> str:
    if dtype is DType.STRING:
        return quote(value if isinstance(value, str) else str(value))
    if dtype is DType.BOOL:
        return str(bool(value))
    if dtype.is_integer:
        return str(int(value))
    if dtype.is_float:
        text = str(value)
        text = f"{text}.0" if _INTEGER.match(text) else text
        if _FLOAT.match(text) and _float_element(text, dtype.numpy).tobytes() == value.tobytes():
            return text
    # A NaN with a payload, a complex number.
    return f"0x{value.tobytes()[::-1].hex()}"


def _float_element(text: str, dtype: np.dtype) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(float(text)).astype(dtype)


def parse_elements(texts: list[str], dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    """The array of elements as `print_elements` writes them; ValueError if one does not fit."""
    if dtype is DType.STRING:
        strings = np.empty(len(texts), dtype=object)
        strings[:] = [_parse_string(t) for t in texts]
        return strings.reshape(shape)
    flat = np.empty(len(texts), dtype=dtype.numpy)
    for index, text in enumerate(texts):
        flat[index] = _parse_element(text, dtype)
    return flat.reshape(shape)


def _parse_element(text: str, dtype: DType) -> Any:
    if text.startswith("0x"):
        return np.frombuffer(bytes.fromhex(text[2:])[::-1], dtype=dtype.numpy)[0]
    if dtype is DType.BOOL and text in ("True", "False"):
        return text == "True"
    if dtype.is_integer and _INTEGER.match(text):
        return _integer_element(int(text), dtype)
    if dtype.is_float and _FLOAT.match(text):
        return _float_element(text, dtype.numpy)
    raise ValueError(f"{text!r} is no element of type {dtype.value}")


def _integer_element(value: int, dtype: DType) -> Any:
    element = np.asarray(value if value < 2**63 else np.uint64(value)).astype(dtype.numpy)
    if int(element) != value:
        raise ValueError(f"{value} does not fit {dtype.value}")
    return element


def _parse_string(text: str) -> str:
    if not _STRING.fullmatch(text) or "\\" in _ESCAPE.sub("", text):
        raise ValueError(f"{text[:80]} is no string")
    return _ESCAPE.sub(_unescape, text[1:-1])


class Cursor:
    """Reads one line from left to right. Errors are InvalidModel with the line's number and the column."""

    def __init__(self, text: str, line: int) -> None:
        self.text, self.line, self.at = text, line, 0

    def fail(self, message: str) -> InvalidModel:
        """The error to raise."""
        return InvalidModel(f"graph text, line {self.line}, column {self.at + 1}: {message}")

    def take(self, token: str) -> bool:
        """Skip spaces and `token` if it comes next."""
        self._skip()
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        return True

    def expect(self, token: str) -> None:
        """Skip `token`, which must come next."""
        if not self.take(token):
            raise self.fail(f"{token!r} was expected")

    def end(self) -> None:
        """Nothing may follow."""
        self._skip()
        if self.at < len(self.text):
            raise self.fail(f"unexpected text {self.text[self.at : self.at + 40]!r}")

    def _skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at] == " ":
            self.at += 1

    def match(self, pattern: re.Pattern[str], what: str) -> str:
        """The text of a pattern, which must come next."""
        self._skip()
        found = pattern.match(self.text, self.at)
        if found is None or not found.group():
            raise self.fail(f"{what} was expected")
        self.at = found.end()
        return found.group()

    def number(self, what: str) -> int:
        """A decimal integer of at most 20 digits."""
        return int(self.match(re.compile(r"-?[0-9]{1,20}"), what))

    def string(self) -> str:
        """A quoted string."""
        text = self.match(_STRING, "a quoted string")
        try:
            return _parse_string(text)
        except ValueError as error:
            raise self.fail(str(error)) from error

    def word(self, what: str) -> str:
        """A name as `print_word` writes it."""
        self._skip()
        return self.string() if self.text.startswith('"', self.at) else self.match(_WORD, what)

    def value_name(self) -> tuple[str, str]:
        """A value's name: the whole text (its key) and its hint."""
        self.expect("%")
        start = self.at
        if self.text.startswith('"', self.at):
            hint = self.string()
        else:
            hint = self.match(_VALUE_WORD, "a value's name")
            hint = "" if _UNNAMED.match(hint) else hint
        if self.text.startswith("#", self.at):
            self.at += 1
            self.number("a number")
        return self.text[start : self.at], hint

    def type(self, symbols: Mapping[str, Symbol], depth: int = 0) -> Type:
        """A type: `f32[N, 3]`, `f32[?]`, `seq<...>`, `optional<...>`."""
        if depth > MAX_DEPTH:
            raise self.fail("the type is nested too deeply")
        for keyword, kind in (("seq<", SequenceType), ("optional<", OptionalType)):
            if self.take(keyword):
                element = None if self.take("?") else self.type(symbols, depth + 1)
                self.expect(">")
                return kind(element)
        name = self.match(re.compile(r"[a-z0-9]+"), "a type")
        if name not in _DTYPES:
            raise self.fail(f"{name!r} is no element type")
        self.expect("[")
        if self.take("?]"):
            return TensorType(_DTYPES[name], None)
        dims: list[Dim] = []
        while not self.take("]"):
            if dims:
                self.expect(",")
            dims.append(self._dim(self._raw(",]"), symbols))
        return TensorType(_DTYPES[name], tuple(dims))

    def dimension(self, stops: str, symbols: Mapping[str, Symbol]) -> Dim:
        """A dimension that ends before one of the characters `stops`."""
        return self._dim(self._raw(stops), symbols)

    def attribute(self, symbols: Mapping[str, Symbol], depth: int = 0) -> Any:
        """An attribute as `print_attribute` writes it."""
        if depth > MAX_DEPTH:
            raise self.fail("the attribute is nested too deeply")
        self._skip()
        if self.text.startswith('"', self.at):
            return self.string()
        if self.take("("):
            return self._tuple(symbols, depth)
        if _TYPE_START.match(self.text, self.at):
            return self.type(symbols)
        return self._plain(self._raw(",)}"), symbols)

    def _tuple(self, symbols: Mapping[str, Symbol], depth: int) -> tuple[Any, ...]:
        items: list[Any] = []
        while not self.take(")"):
            if items:
                self.expect(",")
                if self.take(")"):
                    break
            items.append(self.attribute(symbols, depth + 1))
        return tuple(items)

    def _plain(self, text: str, symbols: Mapping[str, Symbol]) -> Any:
        if text in ("None", "True", "False"):
            return {"None": None, "True": True, "False": False}[text]
        if _INTEGER.match(text):
            return self._dim(text, symbols)
        if _FLOAT.match(text):
            return float(text)
        if text in _DTYPES:
            return _DTYPES[text]
        if text.startswith("dim(") and text.endswith(")"):
            return self._dim(text[4:-1], symbols)
        return self._dim(text, symbols)

    def _raw(self, stops: str) -> str:
        """The text up to one of the characters `stops` outside parentheses."""
        self._skip()
        start, depth = self.at, 0
        while self.at < len(self.text):
            character = self.text[self.at]
            if depth == 0 and character in stops:
                break
            depth += (character == "(") - (character == ")")
            self.at += 1
        if start == self.at:
            raise self.fail("a value was expected")
        return self.text[start : self.at].rstrip()

    def _dim(self, text: str, symbols: Mapping[str, Symbol]) -> Dim:
        try:
            return int(text) if _INTEGER.match(text) and len(text) < 100 else parse_dim(text, symbols)
        except ValueError as error:
            raise self.fail(str(error)) from error

    def elements(self) -> list[str]:
        """The texts of a bracketed list of elements."""
        self.expect("[")
        found: list[str] = []
        while not self.take("]"):
            if found:
                self.expect(",")
            self._skip()
            quoted = self.text.startswith('"', self.at)
            found.append(self.match(_STRING, "a string") if quoted else self._raw(",]"))
        return found

