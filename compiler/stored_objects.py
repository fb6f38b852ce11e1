"""Immutable objects of the compiler as JSON and back: dataclasses, enumerations, symbolic integers, tuples, mappings.

What is equal is stored once and is one object afterwards: a region's expressions and index maps repeat themselves. Only
classes of this package are made; the dataclasses' own constructors check what they are given.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from fusible.compiler.ir.symbols import SymInt

__all__ = ["Writer", "read_objects"]

_LITERAL, _TUPLE, _MAPPING = 0, 1, 2
_CLASSES = 3  # the first number of a class
_PACKAGES = ("fusible.compiler.", "fusible.runtime.")


class Writer:
    """Numbers objects. `classes` and `rows` are what `read_objects` takes; a row mentions rows in front of it alone."""

    def __init__(self) -> None:
        self.classes: list[list[str]] = []
        self.rows: list[list[Any]] = []
        self._numbers: dict[object, int] = {}
        self._of_class: dict[type, int] = {}
        self._seen: dict[int, tuple[object, int]] = {}  # with the object, so that its identity stays its own

    def number(self, value: object) -> int:
        """The number of an object, for which rows are added if it is new. Raises TypeError for one of another kind."""
        if id(value) in self._seen:
            return self._seen[id(value)][1]
        row = self._row(value)
        key: object = (type(value), repr(value)) if row[0] == _LITERAL else tuple(row)  # 1, 1.0 and True are equal
        if key not in self._numbers:
            self._numbers[key] = len(self.rows)
            self.rows.append(row)
        self._seen[id(value)] = value, self._numbers[key]
        return self._numbers[key]

    def _row(self, value: object) -> list[Any]:
        if value is None or type(value) in (bool, int, float, str):
            return [_LITERAL, value]
        if type(value) is tuple:
            return [_TUPLE, *map(self.number, value)]
        if type(value) is dict:
            return [_MAPPING, *(self.number(each) for pair in value.items() for each in pair)]
        if isinstance(value, Enum):
            return [self._class(type(value)), self.number(value.value)]
        if type(value) is SymInt:
            return [self._class(SymInt), self.number(value.terms)]
        if is_dataclass(value) and not isinstance(value, type) and all(f.init for f in fields(value)):
            return [self._class(type(value)), *(self.number(getattr(value, f.name)) for f in fields(value))]
        raise TypeError(f"{type(value).__qualname__} cannot be stored: {value!r}")

    def _class(self, cls: type) -> int:
        if cls not in self._of_class:
            _class_of(cls.__module__, cls.__qualname__)
            self._of_class[cls] = _CLASSES + len(self.classes)
            self.classes.append([cls.__module__, cls.__qualname__])
        return self._of_class[cls]


def read_objects(classes: Sequence[Sequence[str]], rows: Sequence[Sequence[Any]]) -> list[Any]:
    """The object of every row. Raises TypeError for a class that is none of this package's."""
    makers = [_class_of(module, name) for module, name in classes]
    made: list[Any] = []
    for kind, *parts in rows:
        if kind == _LITERAL:
            made.append(parts[0])
        elif kind == _TUPLE:
            made.append(tuple([made[n] for n in parts]))
        elif kind == _MAPPING:
            values: Mapping[Any, Any] = {made[k]: made[v] for k, v in zip(parts[::2], parts[1::2], strict=True)}
            made.append(values)
        else:
            made.append(makers[kind - _CLASSES](*[made[n] for n in parts]))
    return made


def _class_of(module: str, name: str) -> type:
    """A class that may be stored, by its name. Raises TypeError for another."""
    found = getattr(importlib.import_module(module), name, None) if module.startswith(_PACKAGES) else None
    if not isinstance(found, type) or not (is_dataclass(found) or issubclass(found, (Enum, SymInt))):
        raise TypeError(f"{module}.{name} is no class of the compiler's whose objects can be stored")
    return found
