"""Why nodes cannot be one native kernel, asked again and again: nodes of the same structure get the same answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.structure import structure

__all__ = ["Refusals"]


class Refusals:
    """The answers of one compilation."""

    def __init__(
        self,
        ask: Callable[[Sequence[Node], Sequence[Value]], str | None],
        known: dict[str, str | None] | None = None,
    ) -> None:
        """Ask a function. known: the answers that are there from the beginning, which are added to."""
        self._ask = ask
        self._known = {} if known is None else known

    def __call__(self, nodes: Sequence[Node], outputs: Sequence[Value]) -> str | None:
        """The reason, or None if a kernel can be printed."""
        key, _ = structure(nodes, outputs)
        if key not in self._known:
            self._known[key] = self._ask(nodes, outputs)
        return self._known[key]
