"""Attributes of nodes against the annotations of their dataclass, and symbols in them."""

from __future__ import annotations

import types
from collections.abc import Hashable, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from fusible.compiler.ir.symbol_values import substitute
from fusible.compiler.ir.symbols import Dim, SymInt
from fusible.compiler.ir.types import OptionalType, SequenceType, TensorType, substitute_type

__all__ = ["attribute_problem", "substitute_attrs"]


def attribute_problem(expected: type, attrs: Any) -> str | None:
    """What is wrong with the attributes of an op whose dataclass is `expected`; None if nothing is."""
    if type(attrs) is not expected:
        return f"attributes are {type(attrs).__name__}, not {expected.__name__}"
    hints = _hints(cast(Hashable, expected))
    for field in fields(expected):
        value = getattr(attrs, field.name)
        if not _conforms(value, hints.get(field.name, Any)):
            return f"attribute {field.name} is {value!r}, not {field.type}"
    return None


@lru_cache(maxsize=1024)
def _hints(attrs: Hashable) -> dict[str, Any]:
    try:
        return get_type_hints(cast(type, attrs))
    except (NameError, TypeError):
        return {}  # annotations with names that exist for type checkers only


def _conforms(value: object, hint: Any) -> bool:
    if hint is Any:
        return True
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_conforms(value, h) for h in get_args(hint))
    if origin is tuple:
        return isinstance(value, tuple) and _tuple_conforms(value, get_args(hint))
    if origin is not None:
        return True
    if hint is None or hint is type(None):
        return value is None
    if hint in (int, float):
        return type(value) is int or (hint is float and isinstance(value, float))
    return isinstance(value, hint) if isinstance(hint, type) else True


def _tuple_conforms(value: tuple[object, ...], hints: tuple[Any, ...]) -> bool:
    if len(hints) == 2 and hints[1] is Ellipsis:
        return all(_conforms(v, hints[0]) for v in value)
    return len(value) == len(hints) and all(_conforms(v, h) for v, h in zip(value, hints, strict=True))


def substitute_attrs(attrs: Any, values: Mapping[str, Dim]) -> Any:
    """The attributes with symbols replaced by name; the very object if there are none."""
    changed = {}
    for field in fields(attrs):
        old = getattr(attrs, field.name)
        new = _substituted(old, values)
        if new is not old:
            changed[field.name] = new
    return replace(attrs, **changed) if changed else attrs


def _substituted(value: Any, values: Mapping[str, Dim]) -> Any:
    match value:
        case SymInt():
            return substitute(value, values)
        case tuple():
            items = tuple(_substituted(v, values) for v in value)
            return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
        case TensorType() | SequenceType() | OptionalType():
            new = substitute_type(value, values)
            return value if new == value else new
    return value
