"""Handlers: how each ONNX operator, at each opset version, becomes canonical ops. One family a file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from fusible.compiler.ir.graph import Value

if TYPE_CHECKING:
    from fusible.compiler.frontend.context import NodeContext

__all__ = ["HANDLERS", "Handler", "HandlerTable", "onnx_op"]

Result: TypeAlias = "Value | Sequence[Value | None]"
HandlerFunction: TypeAlias = "Callable[[NodeContext], Result]"


@dataclass(frozen=True, slots=True)
class Handler:
    """Converts operator `name` of `domain` from opset `since` on (until a newer handler takes over)."""

    domain: str
    name: str
    since: int
    function: HandlerFunction

    def convert(self, context: NodeContext) -> Sequence[Value | None]:
        """The values of the node's outputs, in order (None: not available)."""
        result = self.function(context)
        return [result] if isinstance(result, Value) else list(result)


class HandlerTable:
    """Handlers by domain and operator; families are loaded on first use."""

    def __init__(self, package: str) -> None:
        self._package: str | None = package
        self._handlers: dict[tuple[str, str], list[Handler]] = {}

    def add(self, handler: Handler) -> None:
        """Register a handler; the same operator may have several, for different opsets."""
        versions = self._handlers.setdefault((handler.domain, handler.name), [])
        versions.append(handler)
        versions.sort(key=lambda h: -h.since)

    def find(self, domain: str, name: str, opset: int) -> Handler | None:
        """The newest handler that covers `opset`."""
        self._load()
        return next((h for h in self._handlers.get((domain, name), ()) if h.since <= opset), None)

    def __iter__(self) -> Iterator[Handler]:
        self._load()
        for key in sorted(self._handlers):
            yield from self._handlers[key]

    def _load(self) -> None:
        if self._package is not None:
            for module in pkgutil.iter_modules(importlib.import_module(self._package).__path__):
                importlib.import_module(f"{self._package}.{module.name}")
            self._package = None  # only now: if a family fails, the next look-up says so again, not "no handler"


HANDLERS = HandlerTable(__name__)


def onnx_op(*names: str, domain: str = "", since: int = 1) -> Callable[[HandlerFunction], HandlerFunction]:
    """Register a function as the handler of ONNX operators from opset `since` on."""

    def register(function: HandlerFunction) -> HandlerFunction:
        for name in names:
            HANDLERS.add(Handler(domain, name, since, function))
        return function

    return register
