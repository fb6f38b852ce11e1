"""Rewrite rules: a pattern and what to build in its place.

    @rule(exactness=Exactness.REASSOCIATING)
    def scale_into_weight(x, w, s):
        def build(graph, x, w, s):
            if w.constant is None:
                return Reject("weight is not constant", w)
            return graph.add("matmul", x, graph.constant(w.constant * s.constant))
        return op.mul(op.matmul(x, w), s), build

The function is called once, with a variable for each argument. `build` gets the graph, with its cursor before the
matched root, and by name those of the bound values (or attributes, or nodes) that it asks for; it returns the
replacement of the root's outputs, or a `Reject`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.errors import UsageError
from fusible.passes.exactness import Exactness
from fusible.passes.match import Match
from fusible.passes.pattern import Output, Pattern, Var, as_pattern, check_pattern, depth, roots, variables

__all__ = ["Build", "Reject", "Rule", "attributes", "rule"]


class Reject:
    """A refusal: why, and the values or nodes that are the cause."""

    __slots__ = ("culprits", "reason")

    def __init__(self, reason: str, *culprits: Value | Node | None) -> None:
        self.reason = reason
        self.culprits = tuple(c for c in culprits if c is not None)

    def __repr__(self) -> str:
        return f"Reject({self.reason!r})"


Replacement: TypeAlias = "Value | Sequence[Value] | Reject"
Build: TypeAlias = Callable[..., Replacement]


@dataclass(frozen=True, eq=False)
class Rule:
    """A named rewrite. `outputs`: which of the root's outputs it replaces (None: all). `depth`: of the pattern."""

    name: str
    pattern: Pattern
    build: Build
    exactness: Exactness
    doc: str
    outputs: tuple[int, ...] | None
    asked: tuple[str, ...]
    depth: int

    def check(self) -> None:
        """Raise UsageError if the pattern names what does not exist."""
        check_pattern(self.pattern, f"rule {self.name!r}")

    @property
    def root_ops(self) -> tuple[str, ...]:
        """The ops that a match may end in."""
        return tuple(dict.fromkeys(root.name for root in roots(self.pattern)))

    def apply(self, graph: Graph, match: Match) -> list[Value] | Reject:
        """Build the replacement of a match: one value for each output replaced."""
        bound = {name: match.bindings.get(name) for name in self.asked}
        made = self.build(graph, **bound)
        return made if isinstance(made, Reject) else [made] if isinstance(made, Value) else list(made)

    def replaced(self, root: Node) -> tuple[Value, ...]:
        """The outputs of a matched root that the rule replaces."""
        return root.outputs if self.outputs is None else tuple(root.outputs[i] for i in self.outputs)

    def __repr__(self) -> str:
        return f"<Rule {self.name}>"


def rule(*, exactness: Exactness) -> Callable[[Callable[..., tuple[Any, Build]]], Rule]:
    """Make a `Rule` of a function that returns a pattern (or a tuple of outputs of one node) and `build`.

    Raises UsageError if the pattern is none, or if `build` asks for a name that the pattern does not bind.
    """

    def decorate(function: Callable[..., tuple[Any, Build]]) -> Rule:
        name = function.__name__
        arguments = list(inspect.signature(function).parameters)
        given: Any = function(*(Var(argument) for argument in arguments))
        if not (isinstance(given, tuple) and len(given) == 2 and callable(given[1])):
            raise UsageError(f"rule {name!r} must return a pattern and a function that builds the replacement")
        pattern, outputs = _result(name, given[0])
        bound = variables(pattern)
        for argument in arguments:
            if argument not in bound:
                raise UsageError(f"rule {name!r}: its argument {argument!r} does not occur in the pattern")
        asked = _asked(name, given[1], bound)
        return Rule(name, pattern, given[1], exactness, inspect.getdoc(function) or "", outputs, asked, depth(pattern))

    return decorate


def _result(name: str, given: Any) -> tuple[Pattern, tuple[int, ...] | None]:
    if not isinstance(given, tuple):
        pattern = as_pattern(given)
        roots(pattern)
        return pattern, (pattern.index,) if isinstance(pattern, Output) else None
    parts = [p for p in given if isinstance(p, Output)]
    if not parts or len(parts) != len(given) or any(p.of is not parts[0].of for p in parts):
        raise UsageError(f"rule {name!r}: a tuple pattern holds outputs of one node, such as (s[0], s[1])")
    return parts[0].of, tuple(p.index for p in parts)


def _asked(name: str, build: Build, bound: Sequence[str]) -> tuple[str, ...]:
    parameters = list(inspect.signature(build).parameters)
    if not parameters:
        raise UsageError(f"rule {name!r}: build takes the graph and bound values")
    unknown = [p for p in parameters[1:] if p not in bound]
    if unknown:
        listed = ", ".join(bound)
        raise UsageError(
            f"rule {name!r}: build asks for {unknown[0]!r}, which the pattern does not bind; it binds {listed}"
        )
    return tuple(parameters[1:])


def attributes(node: Node) -> dict[str, Any]:
    """The attributes of a node by name, to build a like one: `graph.add("conv", x, w, **attributes(node))`."""
    return {f.name: getattr(node.attrs, f.name) for f in fields(node.attrs)}

