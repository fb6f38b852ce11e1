"""Matching: find how a pattern fits at a node, by backtracking over operand orders and alternatives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import copysign
from typing import Any, TypeAlias

import numpy as np

from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.types import DType
from fusible.passes.pattern import Absent, AnyOf, Literal, OpPattern, Optional, Output, Pattern, Var, roots

__all__ = ["Match", "Miss", "find_match", "literal_matches"]

_Goal: TypeAlias = "tuple[Pattern, Value | None, Node | None]"  # pattern, what it must match, the node that uses it
_UNBOUND = object()


@dataclass(frozen=True, slots=True)
class Match:
    """A pattern found at `root`. `bindings` by argument name; `nodes` by their patterns."""

    root: Node
    bindings: Mapping[str, Any]
    nodes: Mapping[OpPattern, Node]

    @property
    def matched(self) -> list[Node]:
        """The matched nodes, each once, the root first."""
        return list(dict.fromkeys((self.root, *self.nodes.values())))

    @property
    def origin(self) -> tuple[str, ...]:
        """The ONNX names of all matched nodes, operands before users."""
        return tuple(dict.fromkeys(name for node in reversed(self.matched) for name in node.origin))


@dataclass(slots=True)
class Miss:
    """The failure that came furthest: how many nodes had matched, what was wanted, what stood there."""

    depth: int = 0
    wanted: str = ""
    culprits: tuple[Value | Node | None, ...] = ()

    def offer(self, depth: int, wanted: str, *culprits: Value | Node | None) -> None:
        """Remember a failure if none came further before."""
        if depth > self.depth:
            self.depth, self.wanted, self.culprits = depth, wanted, culprits


@dataclass(frozen=True, slots=True)
class _State:
    bindings: dict[str, Any] = field(default_factory=dict)
    nodes: dict[OpPattern, Node] = field(default_factory=dict)

    def bind(self, name: str, value: Any) -> _State | None:
        """The state with one more binding, itself if it is there already, None if it contradicts."""
        known = self.bindings.get(name, _UNBOUND)
        if known is _UNBOUND:
            return _State({**self.bindings, name: value}, self.nodes)
        return self if _same(known, value) else None


def find_match(pattern: Pattern, root: Node, miss: Miss) -> Match | None:
    """The first match with `root` as the result of the pattern, or None; `miss` learns how far it came."""
    for top in roots(pattern):
        if top.name != root.op.name:
            continue
        for state in _match_node(top, root, _State(), (), miss):
            match = Match(root, state.bindings, state.nodes)
            outside = _outside_use(match)
            if outside is None:
                return match
            value, user = outside
            text = "a value inside the pattern is also used elsewhere"
            miss.offer(len(state.nodes), text, value, user)
    return None


def _outside_use(match: Match) -> tuple[Value, Node | None] | None:
    """An interior value with a use outside the match, and its user (None: the graph's result)."""
    inside = dict.fromkeys(match.nodes.values())
    tolerated = {node for pattern, node in match.nodes.items() if pattern.is_shared}
    for node in inside:
        if node is match.root or node in tolerated:
            continue
        assert node.graph is not None
        for value in node.outputs:
            for user, _ in value.uses:
                if user not in inside:
                    return value, user
            if any(value is result for result in node.graph.outputs):
                return value, None
    return None


def _solve(goals: tuple[_Goal, ...], state: _State, miss: Miss) -> Iterator[_State]:
    if not goals:
        yield state
        return
    (pattern, value, user), rest = goals[0], goals[1:]
    match pattern:
        case Var(name=name):
            if value is None:
                return
            extended = state.bind(name, value)
            if extended is None:
                miss.offer(len(state.nodes), f"{name!r} would have to be two different values", value)
            else:
                yield from _solve(rest, extended, miss)
        case Optional(inner=inner):
            extended = state.bind(inner.name, value)
            if extended is not None:
                yield from _solve(rest, extended, miss)
        case Absent():
            if value is None:
                yield from _solve(rest, state, miss)
            else:
                miss.offer(len(state.nodes), f"{_title(user)} has an input that must be absent", value)
        case Literal():
            if value is not None and literal_matches(pattern, value, user):
                yield from _solve(rest, state, miss)
            else:
                miss.offer(len(state.nodes), f"the constant {pattern.value!r} was wanted", value)
        case AnyOf(alternatives=alternatives):
            for alternative in alternatives:
                yield from _solve(((alternative, value, user), *rest), state, miss)
        case OpPattern():
            yield from _match_output(pattern, 0, value, state, rest, miss)
        case Output(of=of, index=index):
            yield from _match_output(of, index, value, state, rest, miss)


def _match_output(
    pattern: OpPattern, index: int, value: Value | None, state: _State, rest: tuple[_Goal, ...], miss: Miss
) -> Iterator[_State]:
    producer = value.producer if value is not None else None
    if producer is None or producer.op.name != pattern.name or value is None or value.index != index:
        miss.offer(len(state.nodes), f"op {pattern.name!r} was wanted", value)
        return
    known = state.nodes.get(pattern)
    if known is None:
        yield from _match_node(pattern, producer, state, rest, miss)
    elif known is producer:
        yield from _solve(rest, state, miss)
    else:
        miss.offer(len(state.nodes), f"two uses of one {pattern.name!r} come from different nodes", known, producer)


def _match_node(
    pattern: OpPattern, node: Node, state: _State, rest: tuple[_Goal, ...], miss: Miss
) -> Iterator[_State]:
    bound = _match_attributes(pattern, node, state, miss)
    if bound is None:
        return
    state = _State(bound.bindings, {**bound.nodes, pattern: node})
    for operands in _arrangements(pattern, node):
        goals: tuple[_Goal, ...] = tuple((p, v, node) for p, v in zip(pattern.inputs, operands, strict=False))
        yield from _solve(goals + rest, state, miss)


def _match_attributes(pattern: OpPattern, node: Node, state: _State, miss: Miss) -> _State | None:
    given = len(node.inputs)
    if given > len(pattern.inputs) and not pattern.more:
        miss.offer(len(state.nodes), f"{pattern.name!r} has {given} inputs, {len(pattern.inputs)} were wanted", node)
        return None
    current: _State | None = state
    if pattern.node is not None:
        current = state.bind(pattern.node.name, node)
    for name, wanted in pattern.attrs.items():
        if current is None:
            break
        actual = getattr(node.attrs, name)
        if isinstance(wanted, Var):
            current = current.bind(wanted.name, actual)
        elif not (bool(wanted(actual)) if callable(wanted) else actual == wanted):
            what = "fulfils no condition" if callable(wanted) else f"{wanted!r} was wanted"
            miss.offer(len(state.nodes), f"{pattern.name} has {name}={actual!r}, {what}", node)
            return None
    return current


def _arrangements(pattern: OpPattern, node: Node) -> Iterator[Sequence[Value | None]]:
    """The operands in the orders to try, absent ones at the end filled in."""
    operands = [*node.inputs, *[None] * (len(pattern.inputs) - len(node.inputs))]
    yield operands
    if node.op.commutative and len(operands) == 2 and operands[0] is not operands[1]:
        yield operands[::-1]


def literal_matches(literal: Literal, value: Value, user: Node | None) -> bool:
    """True for a constant of one element with the literal's value that does not add dimensions to its neighbours."""
    constant = value.constant
    if constant is None or constant.dtype == object or constant.size != 1:
        return False
    if constant.shape and user is not None and not _adds_no_rank(len(constant.shape), value, user):
        return False
    actual = constant.array.reshape(())
    if isinstance(literal.value, bool) != (actual.dtype == np.bool_):
        return False
    if literal.rtol:
        return bool(abs(float(actual) - literal.value) <= literal.rtol * abs(literal.value))
    return _equals(actual, literal.value)


def _equals(actual: np.ndarray, number: float | int | bool) -> bool:
    if DType.of(actual.dtype).is_integer:
        return float(number).is_integer() and int(actual) == int(number)
    with np.errstate(all="ignore"):
        rounded = np.asarray(number).astype(actual.dtype)
    if not DType.of(actual.dtype).is_float:
        return bool(actual == rounded)
    # 0.0 is not -0.0.
    return bool(actual == rounded) and copysign(1.0, float(actual)) == copysign(1.0, float(rounded))


def _adds_no_rank(rank: int, value: Value, user: Node) -> bool:
    others = [v.type for v in user.inputs if v is not None and v is not value]
    return any((getattr(t, "rank", None) or 0) >= rank for t in others)


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, Value) or isinstance(b, Value):
        return _same_constant(a, b)
    if isinstance(a, Node) or isinstance(b, Node):
        return False
    return type(a) is type(b) and bool(a == b)


def _same_constant(a: Any, b: Any) -> bool:
    if not (isinstance(a, Value) and isinstance(b, Value)) or a.constant is None or b.constant is None:
        return False
    left, right = a.constant, b.constant
    return left.dtype == right.dtype and left.shape == right.shape and left.digest == right.digest


def _title(node: Node | None) -> str:
    return "the result" if node is None else node.op.name
