"""What sizes must satisfy: relations between dimensions, checked before the first step that could rely on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from fusible.errors import ExecutionError
from fusible.runtime.dims import DimText, evaluate_dim, symbols_of

__all__ = ["RELATIONS", "SizeRule", "check_rules", "rules_of"]


class SizeRule(NamedTuple):
    """relation: a name in `RELATIONS`; left, right: dimensions; where: the op and the ONNX nodes that want it."""

    relation: str
    left: DimText
    right: DimText
    where: str


RELATIONS: Mapping[str, tuple[Callable[[int, int], bool], str]] = {
    "equal": (lambda a, b: a == b, "{b}"),
    "fits": (lambda a, b: a in (1, b), "1 or {b}"),
    "broadcast": (lambda a, b: a == b or 1 in (a, b), "1 or {b}"),
    "at_most": (lambda a, b: a <= b, "at most {b}"),
}


def check_rules(rules: Iterable[SizeRule], env: Mapping[str, int]) -> None:
    """Raise ExecutionError for the first rule that the values of the symbols break; all of them have values."""
    for rule in rules:
        left, right = evaluate_dim(rule.left, env), evaluate_dim(rule.right, env)
        holds, wanted = RELATIONS[rule.relation]
        if not holds(left, right):
            message = f"{_shown(rule.left, left)} must be {wanted.format(b=_shown(rule.right, right))}"
            raise ExecutionError(rule.where or "the sizes", message)


def rules_of(rules: Iterable[SizeRule], known: Mapping[str, int], new: Iterable[str] = ()) -> list[SizeRule]:
    """The rules whose symbols all have values; with `new`, those of them that name one of these symbols."""
    wanted, found = frozenset(new), []
    for rule in rules:
        symbols = symbols_of(rule.left) | symbols_of(rule.right)
        if symbols <= known.keys() and (not wanted or symbols & wanted):
            found.append(rule)
    return found


def _shown(text: DimText, value: int) -> str:
    return str(text) if isinstance(text, int) else f"{text} = {value}"
