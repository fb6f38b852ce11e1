"""Patterns: small graphs written in Python, in terms of canonical ops.

    op.mul(op.matmul(x, w), s)          x, w, s are arguments of a rule: they bind values
    op.mul(x, 0.5)                      a number matches a constant of one element with that value
    op.softmax(x, axis=-1)              an attribute equals; axis=lambda a: a > 0 a condition; axis=k an argument binds
    op.clip(x, None, hi)                None: that input is absent
    op.conv(x, w, optional(b))          b binds the input, or None if it is absent
    op.concat(x, ...)                   any further inputs
    op.split(x)[1]                      one of several outputs
    any_of(op.div(x, c), op.mul(x, c))  alternatives, tried in order
    approx(0.7978, rtol=1e-4)           a constant of one element near a number
    op.conv(x, w).named(node)           binds the node itself
    op.conv(x, w).shared()              its result may have uses outside the match
    op["my.domain::Op"](x)              an op of another domain

The same pattern object used twice stands for one node, the same argument for one value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Any, TypeAlias

from fusible.compiler.ir.ops import OPS
from fusible.errors import UsageError

__all__ = [
    "Absent",
    "AnyOf",
    "Literal",
    "OpPattern",
    "Optional",
    "Output",
    "Pattern",
    "Var",
    "any_of",
    "approx",
    "as_pattern",
    "check_pattern",
    "depth",
    "op",
    "optional",
    "roots",
    "variables",
]

Operand: TypeAlias = "Pattern | float | int | bool | None"


class Pattern:
    """Anything that may stand as an operand in a pattern."""

    __slots__ = ()


@dataclass(frozen=True, eq=False, slots=True)
class Var(Pattern):
    """An argument of the rule: binds a value, or the value of an attribute, or a node."""

    name: str


@dataclass(frozen=True, eq=False, slots=True)
class Literal(Pattern):
    """A constant of one element. `rtol` 0: equal after rounding the number to the constant's element type."""

    value: float | int | bool
    rtol: float = 0.0


@dataclass(frozen=True, eq=False, slots=True)
class Absent(Pattern):
    """An input that must not be given."""


@dataclass(frozen=True, eq=False, slots=True)
class Optional(Pattern):
    """An input that may be absent; its variable then binds None."""

    inner: Var


@dataclass(frozen=True, eq=False, slots=True)
class AnyOf(Pattern):
    """The first alternative that lets the whole pattern match."""

    alternatives: tuple[Pattern, ...]


@dataclass(frozen=True, eq=False, slots=True)
class OpPattern(Pattern):
    """A node of op `name`. `more`: further inputs are allowed. As an operand it stands for its output 0."""

    name: str
    inputs: tuple[Pattern, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    more: bool = False
    node: Var | None = None
    is_shared: bool = False

    def __getitem__(self, index: int) -> Output:
        return Output(self, index)

    __iter__ = None  # `a, b = op.split(x)` cannot know how many outputs there are: write op.split(x)[0]

    def named(self, node: Pattern) -> OpPattern:
        """The same pattern that also binds the matched node to an argument of the rule."""
        if not isinstance(node, Var):
            raise UsageError("named() takes an argument of the rule")
        return OpPattern(self.name, self.inputs, self.attrs, self.more, node, self.is_shared)

    def shared(self) -> OpPattern:
        """The same pattern whose results may also be used outside the match (the node then stays)."""
        return OpPattern(self.name, self.inputs, self.attrs, self.more, self.node, True)


@dataclass(frozen=True, eq=False, slots=True)
class Output(Pattern):
    """Output `index` of a node."""

    of: OpPattern
    index: int


def optional(argument: Pattern) -> Optional:
    """An input that may be absent; the argument then binds None."""
    if not isinstance(argument, Var):
        raise UsageError("optional() takes an argument of the rule")
    return Optional(argument)


def any_of(*alternatives: Operand) -> AnyOf:
    """Alternatives, tried in order. An argument that only some of them hold binds None in the others."""
    if len(alternatives) < 2:
        raise UsageError("any_of() takes at least two alternatives")
    return AnyOf(tuple(as_pattern(a) for a in alternatives))


def approx(value: float, rtol: float = 1e-5) -> Literal:
    """A constant of one element within a relative tolerance of a number."""
    return Literal(value, rtol)


def as_pattern(operand: Operand) -> Pattern:
    """Numbers become literals, None an absent input."""
    match operand:
        case Pattern():
            return operand
        case None:
            return Absent()
        case bool() | int() | float():
            return Literal(operand)
    raise UsageError(f"{operand!r} cannot stand in a pattern; numbers, arguments and op.name(...) can")


class _Ops:
    """`op.name(...)` for the canonical ops, `op["domain::Name"](...)` for others."""

    def __getattr__(self, name: str) -> Callable[..., OpPattern]:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name.rstrip("_")]

    def __getitem__(self, name: str) -> Callable[..., OpPattern]:
        def build(*inputs: Operand | EllipsisType, **attrs: Any) -> OpPattern:
            more = bool(inputs) and inputs[-1] is Ellipsis
            operands = [as_pattern(i) for i in (inputs[:-1] if more else inputs)]  # type: ignore[arg-type]
            return OpPattern(name, tuple(operands), attrs, more)

        return build


op = _Ops()


def walk(pattern: Pattern) -> Iterator[Pattern]:
    """A pattern and everything below it; what is shared comes as often as it is used."""
    yield pattern
    match pattern:
        case OpPattern(inputs=parts) | AnyOf(alternatives=parts):
            for part in parts:
                yield from walk(part)
        case Output(of=inner) | Optional(inner=inner):
            yield from walk(inner)


def variables(pattern: Pattern) -> list[str]:
    """The names that a pattern binds, each once, in order."""
    found: dict[str, None] = {}
    for part in walk(pattern):
        match part:
            case Var(name=name):
                found[name] = None
            case OpPattern(attrs=attrs, node=node):
                found.update({v.name: None for v in attrs.values() if isinstance(v, Var)})
                if node is not None:
                    found[node.name] = None
    return list(found)


def roots(pattern: Pattern) -> list[OpPattern]:
    """The op patterns that the result of a match may be. Raises UsageError if that may be a plain value."""
    match pattern:
        case OpPattern():
            return [pattern]
        case Output(of=inner):
            return [inner]
        case AnyOf(alternatives=parts):
            return [root for part in parts for root in roots(part)]
    raise UsageError("a pattern must end in an op: op.name(...)")


def depth(pattern: Pattern) -> int:
    """The largest number of nodes on a way through the pattern."""
    match pattern:
        case OpPattern(inputs=parts):
            return 1 + max((depth(p) for p in parts), default=0)
        case AnyOf(alternatives=parts):
            return max(depth(p) for p in parts)
        case Output(of=inner):
            return depth(inner)
    return 0


def check_pattern(pattern: Pattern, where: str) -> None:
    """Raise UsageError if the pattern names an op, an attribute or a number of inputs that does not exist."""
    for part in walk(pattern):
        if not isinstance(part, OpPattern):
            continue
        known = OPS.get(part.name)
        if known is None:
            raise UsageError(f"{where}: no op {part.name!r} is registered; `fusible ops` lists them")
        for name in part.attrs:
            if name not in known.attribute_names:
                listed = ", ".join(known.attribute_names) or "none"
                raise UsageError(f"{where}: {part.name} has no attribute {name!r}, it has {listed}")
        if known.inputs[1] is not None and len(part.inputs) > known.inputs[1]:
            raise UsageError(f"{where}: {part.name} takes at most {known.inputs[1]} inputs, got {len(part.inputs)}")
