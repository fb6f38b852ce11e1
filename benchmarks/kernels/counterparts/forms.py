"""Tables of forms: for an op, how a baseline does it. A form takes a case's operands and gives a call.

A form raises `NoCounterpart` for the attributes that the baseline has nothing for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from fusible.benchmarks.kernels.cases import Case
from fusible.benchmarks.kernels.counterparts.protocol import NoCounterpart

__all__ = ["Form", "Use", "applied", "need", "with_attrs"]


@dataclass(frozen=True)
class Use:
    """The operands of a case as the baseline holds them (None: absent), and the case."""

    operands: Sequence[Any]
    case: Case

    @property
    def attrs(self) -> Any:
        """The op's attributes."""
        return self.case.attrs

    @property
    def x(self) -> Any:
        """The first operand."""
        return self.operands[0]

    def operand(self, index: int) -> Any:
        """An operand, None if it is absent."""
        return self.operands[index] if index < len(self.operands) else None

    @property
    def present(self) -> list[Any]:
        """The operands that are there."""
        return [x for x in self.operands if x is not None]


Form: TypeAlias = Callable[[Use], Callable[[], Any]]


def applied(function: Callable[..., Any], **fixed: Any) -> Form:
    """The form `function(*operands, **fixed)`."""
    return lambda use: partial(function, *use.present, **fixed)


def with_attrs(function: Callable[..., Any], **names: str) -> Form:
    """The form `function(*operands, name=attribute)`: names are those of the function, values of our attributes."""

    def form(use: Use) -> Callable[[], Any]:
        return partial(function, *use.present, **{name: getattr(use.attrs, field) for name, field in names.items()})

    return form


def need(condition: bool, what: str) -> None:
    """Raise NoCounterpart unless the condition holds."""
    if not condition:
        raise NoCounterpart(f"no plain expression for {what}")
