"""Artifacts with other facts in their header: what a test damages."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["changed", "header_of", "numbers_in", "with_header"]

_PREFIX = struct.Struct("<8sIQ")
_ALIGNMENT = 64


def header_of(artifact: Path) -> dict[str, Any]:
    """The header of an artifact."""
    data = artifact.read_bytes()
    found: dict[str, Any] = json.loads(data[_PREFIX.size : _PREFIX.size + _PREFIX.unpack_from(data)[2]])
    return found


def with_header(artifact: Path, header: dict[str, Any], path: Path) -> Path:
    """Write an artifact with the sections of another one and a header of its own."""
    data = artifact.read_bytes()
    magic, version, length = _PREFIX.unpack_from(data)
    text = json.dumps(header).encode()
    sections = data[_aligned(_PREFIX.size + length) :]
    prefix = _PREFIX.pack(magic, version, len(text)) + text
    path.write_bytes(prefix.ljust(_aligned(len(prefix)), b"\0") + sections)
    return path


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


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
