"""Facts of device code as an artifact has them: what has another type or an impossible size is damage, and said so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusible.errors import ArtifactError

__all__ = ["Facts", "damaged"]


def damaged(what: str, why: str) -> ArtifactError:
    """The error for a fact that cannot be. what: of which kernel or image."""
    return ArtifactError(f"{what} in the artifact is damaged: {why}; compile the model again")


@dataclass(frozen=True, slots=True)
class Facts:
    """The fields of one thing by name. what: how errors call it. All methods raise ArtifactError."""

    what: str
    fields: Mapping[str, Any]

    @staticmethod
    def of(what: str, data: Any) -> Facts:
        """The fields that JSON has for a thing."""
        if not isinstance(data, Mapping):
            raise damaged(what, f"it is {_shown(data)}, no JSON object")
        return Facts(what, data)

    def get(self, name: str) -> Any:
        """A field of any type."""
        if name not in self.fields:
            raise damaged(self.what, f"it has no {name!r}")
        return self.fields[name]

    def only(self, names: Sequence[str]) -> None:
        """Refuse fields of other names."""
        if others := sorted(set(self.fields) - set(names)):
            raise damaged(self.what, f"it has {others[0]!r}, which nothing knows")

    def text(self, name: str) -> str:
        """A field that is a text."""
        found = self.get(name)
        if not isinstance(found, str):
            raise self._wrong(name, found, "a text")
        return found

    def flag(self, name: str) -> bool:
        """A field that is true or false."""
        found = self.get(name)
        if not isinstance(found, bool):
            raise self._wrong(name, found, "true or false")
        return found

    def number(self, name: str, least: int = 0) -> int:
        """A field that is a whole number, from `least` on, of 63 bits."""
        return self._number(name, self.get(name), least)

    def position(self, name: str, end: int) -> int:
        """A field that is one of the numbers from 0 to `end` - 1."""
        found = self.number(name)
        if found >= end:
            raise self._wrong(name, found, f"one of {end} positions")
        return found

    def items(self, name: str) -> Sequence[Any]:
        """A field that is a list."""
        found = self.get(name)
        if not isinstance(found, (list, tuple)):
            raise self._wrong(name, found, "a list")
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        """A field that is a list of texts."""
        found = self.items(name)
        for each in found:
            if not isinstance(each, str):
                raise self._wrong(name, each, "a list of texts")
        return tuple(found)

    def numbers(self, name: str, count: int, least: int = 0) -> tuple[int, ...]:
        """A field that is a list of `count` whole numbers from `least` on."""
        found = self.items(name)
        if len(found) != count:
            raise self._wrong(name, found, f"{count} numbers")
        return tuple(self._number(name, each, least) for each in found)

    def numbers_of(self, name: str, known: Sequence[str], least: int = 0) -> dict[str, int]:
        """A field that has a number for each of some names, all of them `known`."""
        found = Facts.of(f"{name} of {self.what}", self.get(name))
        found.only(known)
        return {key: found.number(key, least) for key in found.fields}

    def _number(self, name: str, found: Any, least: int) -> int:
        if not isinstance(found, int) or isinstance(found, bool) or not least <= found < 1 << 63:
            raise self._wrong(name, found, f"a whole number from {least} on")
        return found

    def _wrong(self, name: str, found: Any, expected: str) -> ArtifactError:
        return damaged(self.what, f"its {name!r} is {_shown(found)}, expected {expected}")


def _shown(found: Any) -> str:
    return repr(found)[:60]
