"""Artifacts with other facts in their header: what a test damages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fusible.runtime.artifact import _PREFIX, ALIGNMENT, with_prefix

__all__ = ["before_sections", "changed", "header_of", "numbers_in", "sections_of", "with_header"]


def header_of(artifact: Path) -> dict[str, Any]:
    """The header of an artifact."""
    data = artifact.read_bytes()
    found: dict[str, Any] = json.loads(data[_PREFIX.size : _PREFIX.size + _PREFIX.unpack_from(data)[2]])
    return found


def with_header(artifact: Path, header: dict[str, Any], path: Path) -> Path:
    """Write an artifact with the sections of another one and a header of its own."""
    path.write_bytes(before_sections(header) + sections_of(artifact))
    return path


def before_sections(header: dict[str, Any]) -> bytes:
    """A header, with its own hash, as an artifact begins with it."""
    text = with_prefix(json.dumps(header).encode())
    return text.ljust(_aligned(len(text)), b"\0")


def sections_of(artifact: Path) -> bytes:
    """All that follows the header."""
    data = artifact.read_bytes()
    return data[_aligned(_PREFIX.size + _PREFIX.unpack_from(data)[2]) :]


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def changed(data: Any, place: tuple[str | int, ...], change: Callable[[Any], Any]) -> Any:
    """JSON data in which what stands at a place is another."""
    if not place:
        return change(data)
    copied = data.copy()
    copied[place[0]] = changed(data[place[0]], place[1:], change)
    return copied


def numbers_in(data: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of all numbers in JSON data, in order."""
    if isinstance(data, dict):
        for key, item in data.items():
            yield from numbers_in(item, (*place, key))
    elif isinstance(data, list):
        for key, item in enumerate(data):
            yield from numbers_in(item, (*place, key))
    elif isinstance(data, int) and not isinstance(data, bool):
        yield place
