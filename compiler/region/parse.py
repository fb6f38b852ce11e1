"""The text of a region or a group back to the object. Errors name the line."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from fusible.compiler.ir.dimension_text import parse_dim
from fusible.compiler.ir.symbols import Dim, Symbol
from fusible.compiler.ir.types import DType
from fusible.compiler.region.combiners import COMBINERS
from fusible.compiler.region.expr import Arg, Convert, Expr, Literal, apply
from fusible.compiler.region.index import Bound, IndexMap
from fusible.compiler.region.region import (
    Buffer,
    Contract,
    Group,
    Index,
    Load,
    Map,
    Reduce,
    Region,
    Scan,
    Stage,
    Step,
    Store,
    Test,
)
from fusible.errors import UsageError

__all__ = ["parse_group", "parse_region"]

T = TypeVar("T")
_DTYPES = {dtype.value: dtype for dtype in DType}
_BOUND = re.compile(r"(?P<low>.+?) <= (?P<expr>.+?) < (?P<high>.+)\Z")
_STAGE = re.compile(r"(?P<names>v\d+(?:, v\d+)*): (?P<dtypes>\w+(?:, \w+)*) = (?P<right>.+)\Z")
_STORE = re.compile(r"store y(?P<buffer>\d+)\[(?P<components>.*?)\] = v(?P<value>\d+)(?: where (?P<bounds>.+))?\Z")
_LOAD = re.compile(r"load x(?P<buffer>\d+)\[(?P<components>.*?)\](?: where (?P<bounds>.+) else (?P<fill>\S+))?\Z")
_FOLD = re.compile(r"reduce (?P<combiner>\w+) over (?P<axes>.+) of (?P<args>.+)\Z")
_SCAN = re.compile(
    r"scan (?P<exclusive>exclusive )?(?P<reverse>reverse )?(?P<combiner>\w+) over (?P<axes>i\d+) of (?P<args>.+)\Z"
)
_CONTRACT = re.compile(r"contract over (?P<axes>.+) of (?P<args>.+)\Z")


def parse_region(text: str, symbols: Mapping[str, Symbol] | None = None) -> Region:
    """The region of a text. `symbols`: those of the shapes. Raises UsageError naming the line that is wrong."""
    lines = [(n, line.strip()) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    return _RegionParser(symbols or {}).parse(lines)


def parse_group(text: str, symbols: Mapping[str, Symbol] | None = None) -> Group:
    """The group of a text. Raises UsageError naming the line that is wrong."""
    lines = [(n, line.strip()) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines or lines[0][1] != "group":
        raise UsageError("line 1: expected 'group'")
    buffers: dict[str, list[Buffer]] = {"in": [], "out": [], "local": []}
    steps: list[Step] = []
    at = 1
    while at < len(lines) and (match := re.fullmatch(r"(in|out|local) b\d+: (.+)", lines[at][1])):
        buffers[match[1]].append(_guard(lines[at], partial(_buffer, match[2], symbols or {})))
        at += 1
    while at < len(lines):
        head = re.fullmatch(r"step \((.*)\) -> \((.*)\)", lines[at][1])
        if head is None:
            raise UsageError(f"line {lines[at][0]}: expected 'step (...) -> (...)', got {lines[at][1]!r}")
        end = next((k for k in range(at + 1, len(lines)) if lines[k][1].startswith("step ")), len(lines))
        region = _RegionParser(symbols or {}).parse(lines[at + 1 : end])
        steps.append(Step(region, _numbers(head[1], "b"), _numbers(head[2], "b")))
        at = end
    every = (*buffers["in"], *buffers["out"], *buffers["local"])
    return Group(len(buffers["in"]), len(buffers["out"]), every, tuple(steps))


class _RegionParser:
    """One region; the axes' symbols carry their bounds, as `build` gives them."""

    def __init__(self, symbols: Mapping[str, Symbol]) -> None:
        self.shape_symbols = dict(symbols)
        self.symbols = dict(symbols)
        self.values = 0

    def parse(self, lines: Sequence[tuple[int, str]]) -> Region:
        if not lines or not (head := re.fullmatch(r"region \[(.*)\]", lines[0][1])):
            raise UsageError(f"line {lines[0][0] if lines else 1}: expected 'region [i0=..., ...]'")
        extents = _guard(lines[0], partial(self._extents, head[1]))
        inputs: list[Buffer] = []
        outputs: list[Buffer] = []
        stages: list[Stage] = []
        stores: list[Store] = []
        for line in lines[1:]:
            _guard(line, partial(self._line, line[1], inputs, outputs, stages, stores))
        return Region(extents, tuple(inputs), tuple(outputs), tuple(stages), tuple(stores))

    def _extents(self, text: str) -> tuple[Dim, ...]:
        extents: list[Dim] = []
        for number, item in enumerate(_split(text)):
            name, _, extent = item.partition("=")
            if name != f"i{number}":
                raise ValueError(f"axis {number} must be called i{number}, not {name!r}")
            extents.append(parse_dim(extent, self.shape_symbols))
            upper = extents[-1] - 1 if isinstance(extents[-1], int) else None
            self.symbols[name] = Symbol(name, 0, None if upper is None else max(upper, 0))
        return tuple(extents)

    def _line(
        self, text: str, inputs: list[Buffer], outputs: list[Buffer], stages: list[Stage], stores: list[Store]
    ) -> None:
        if match := re.fullmatch(r"(in x|out y)(\d+): (.+)", text):
            known = inputs if match[1] == "in x" else outputs
            if int(match[2]) != len(known):
                raise ValueError(f"buffers are numbered in order: expected {len(known)}, got {match[2]}")
            known.append(_buffer(match[3], self.shape_symbols))
        elif match := _STORE.match(text):
            map_ = IndexMap(self._dims(match["components"]), self._bounds(match["bounds"]))
            stores.append(Store(int(match["buffer"]), map_, int(match["value"])))
        elif match := _STAGE.match(text):
            dtypes = tuple(_dtype(name) for name in _split(match["dtypes"]))
            names = [f"v{self.values + n}" for n in range(len(dtypes))]
            if _split(match["names"]) != names:
                raise ValueError(f"values are numbered in order: expected {', '.join(names)}")
            stages.append(self._stage(match["right"], dtypes))
            for name in names:
                self.symbols[name] = Symbol(name, lower=-(2**63))
            self.values += len(dtypes)
        else:
            raise ValueError(f"neither a buffer nor a stage nor a store: {text!r}")

    def _stage(self, text: str, dtypes: tuple[DType, ...]) -> Stage:
        if match := _LOAD.match(text):
            fill = None if match["fill"] is None else _literal(match["fill"])
            map_ = IndexMap(self._dims(match["components"]), self._bounds(match["bounds"]), fill)
            return Load(int(match["buffer"]), map_)
        if text.startswith("index "):
            return Index(parse_dim(text[6:], self.symbols), dtypes[0])
        if text.startswith("test "):
            return Test(self._bounds(text[5:]))
        if match := _FOLD.match(text):
            axes, args = _numbers(match["axes"], "i"), _numbers(match["args"], "v")
            return Reduce(_combiner(match["combiner"]), axes, args, dtypes)
        if match := _SCAN.match(text):
            (along,), args = _numbers(match["axes"], "i"), _numbers(match["args"], "v")
            flags = bool(match["exclusive"]), bool(match["reverse"])
            return Scan(_combiner(match["combiner"]), along, args, dtypes, *flags)
        if match := _CONTRACT.match(text):
            return Contract(_numbers(match["axes"], "i"), _numbers(match["args"], "v"), dtypes[0])
        return Map(_expression(text), dtypes[0])

    def _dims(self, text: str) -> tuple[Dim, ...]:
        return tuple(parse_dim(item, self.symbols) for item in _split(text))

    def _bounds(self, text: str | None) -> tuple[Bound, ...]:
        found: list[Bound] = []
        for part in text.split(" and ") if text else ():
            match = _BOUND.match(part)
            if match is None:
                raise ValueError(f"not a bound: {part!r}")
            expr, low, high = (parse_dim(match[name], self.symbols) for name in ("expr", "low", "high"))
            found.append(Bound(expr, low, high))
        return tuple(found)


def _guard(line: tuple[int, str], parse: Callable[[], T]) -> T:
    try:
        return parse()
    except (ValueError, KeyError) as error:
        raise UsageError(f"line {line[0]}: {error}") from error


def _split(text: str) -> list[str]:
    """Cut at the commas outside parentheses."""
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    last = text[start:].strip()
    return [*parts, last] if last else parts


def _buffer(text: str, symbols: Mapping[str, Symbol]) -> Buffer:
    match = re.fullmatch(r"(\w+)\[(.*)\]", text)
    if match is None:
        raise ValueError(f"not a tensor type: {text!r}")
    return Buffer(_dtype(match[1]), tuple(parse_dim(d, symbols) for d in _split(match[2])))


def _dtype(name: str) -> DType:
    if name not in _DTYPES:
        raise ValueError(f"unknown element type {name!r}")
    return _DTYPES[name]


def _combiner(name: str) -> str:
    if name not in COMBINERS:
        raise ValueError(f"unknown combiner {name!r}; there are {', '.join(COMBINERS)}")
    return name


def _numbers(text: str, letter: str) -> tuple[int, ...]:
    names = _split(text)
    if not all(re.fullmatch(rf"{letter}\d+", name) for name in names):
        raise ValueError(f"expected names like {letter}0, got {text!r}")
    return tuple(int(name[1:]) for name in names)


def _literal(text: str) -> float | int | bool:
    if text in ("inf", "-inf", "nan"):
        return float(text)
    value = ast.literal_eval(text)
    if not isinstance(value, (bool, int, float)):
        raise ValueError(f"not a number: {text!r}")
    return value


def _expression(text: str) -> Expr:
    if len(text) > 100_000:
        raise ValueError("the expression is too long")
    try:
        return _expression_node(ast.parse(text, mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"not an expression: {text[:80]!r}") from error


def _expression_node(node: ast.expr) -> Expr:
    match node:
        case ast.Name(id=name) if re.fullmatch(r"v\d+", name):
            return Arg(int(name[1:]))
        case ast.Name(id="inf" | "nan" as name):
            return Literal(float(name))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _expression_node(operand)
            if isinstance(inner, Literal):
                return Literal(-inner.value)
        case ast.Constant(value=(bool() | int() | float()) as value):
            return Literal(value)
        case ast.Call(func=ast.Name(id=name), args=[arg], keywords=[]) if name in _DTYPES:
            return Convert(_expression_node(arg), _DTYPES[name])
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            return apply(name, *(_expression_node(a) for a in args))
    raise ValueError(f"not an expression: {ast.unparse(node)!r}")
