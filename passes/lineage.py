"""Rules that fight for ever: each rewritten node remembers its line of descent.

A line is suspected when it grows long, and convicted when the very same expression over the same operands comes back
time and again in a graph that has not become smaller, or when it is longer than terminating rules would make it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fusible.compiler.ir.graph import Node, Value
from fusible.errors import PassError
from fusible.passes.match import Match

__all__ = ["Lineages"]

_PATIENCE = 64  # generations before expressions are compared at all
_REPEATS = 16
_DIGEST_BYTES = 4096
_DEPTH = 8


@dataclass
class _Line:
    """What happened to the descendants of one node: expressions seen, and the rules in their order."""

    generation: int = 0
    seen: dict[Any, int] = field(default_factory=dict)
    rules: list[str] = field(default_factory=list)


class Lineages:
    """The lines of descent in one graph during one run of a pass."""

    def __init__(self, pass_name: str, nodes: int) -> None:
        self.pass_name, self.longest = pass_name, 10 * nodes + 1000
        self._lines: dict[Node, _Line] = {}

    def record(self, rule: str, match: Match, made: Sequence[Value], new: Sequence[Node], nodes: int) -> None:
        """Note a rewrite in a graph of so many nodes. Raises PassError naming the rules if its line does not end."""
        known = [self._lines[node] for node in match.matched if node in self._lines]
        line = max(known, key=lambda item: item.generation, default=_Line())
        line.generation += 1
        line.rules.append(rule)
        if line.generation > _PATIENCE:
            self._suspect(line, made, new, match, nodes)
        for node in match.matched:
            self._lines.pop(node, None)
        for node in new:
            self._lines[node] = line

    def _suspect(self, line: _Line, made: Sequence[Value], new: Sequence[Node], match: Match, nodes: int) -> None:
        fresh = set(new)
        key = (nodes, *(_key(value, fresh, _DEPTH) for value in made))
        line.seen[key] = line.seen.get(key, 0) + 1
        if line.seen[key] < _REPEATS and line.generation <= self.longest:
            return
        names = sorted(set(line.rules[-_PATIENCE:]))
        if len(names) == 1:
            what = f"rule {names[0]!r} applies to its own result for ever"
        else:
            what = f"rules {' and '.join(repr(n) for n in names)} undo each other for ever"
        raise PassError(self.pass_name, f"{what}, at {match.root.where}; remove one or give it a condition")


def _key(value: Value | None, fresh: set[Node], levels: int) -> Any:
    """The structure of what a rewrite built, down to the operands that were there before."""
    if value is None:
        return None
    if value.constant is not None:
        small = value.constant.nbytes <= _DIGEST_BYTES
        return ("constant", value.constant.digest if small else id(value))
    node = value.producer
    if node is None or node not in fresh or not levels:
        return id(value)
    return (node.op.name, value.index, node.attrs, tuple(_key(v, fresh, levels - 1) for v in node.inputs))
