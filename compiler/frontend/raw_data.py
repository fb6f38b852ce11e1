"""The raw data of a model's initialisers, found in the file and cut out of it before it is parsed.

Protobuf copies every field, and hands out each as one more copy: a model of 400 MB was three times in memory before the
first tensor was made. Here the message is walked by the wire format (https://protobuf.dev/programming-guides/encoding):
a field is the varint `number << 3 | wire type`, then its value, for wire type 2 a varint of its length and so many
bytes. What is cut out is large, and belongs to a tensor of the main graph that has no other data; all else goes to the
parser as it is, and whatever is unusual leaves the whole message to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, TensorProto

__all__ = ["Cut", "cut_out"]

LEAST_BYTES = 4096
"""Smaller data stay in the message."""

_MOST_FIELDS = 200_000  # to walk: parsing a message of more is quicker than to walk it
_GRAPH = ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW = TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_PLAIN = frozenset(
    TensorProto.DESCRIPTOR.fields_by_name[name].number for name in ("dims", "data_type", "name", "doc_string")
)
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}


@dataclass(frozen=True, slots=True)
class Cut:
    """message: a ModelProto without the data. data: what was cut out, by the number of the initialiser in the graph."""

    message: bytes
    data: dict[int, memoryview]


class _Unusual(Exception):
    """Raised for what the parser shall judge: damage, groups, a graph or data given twice, too many fields."""


@dataclass(frozen=True, slots=True)
class _Field:
    """A field's number and wire type; where it starts, where its value does, and where both end."""

    number: int
    wire: int
    start: int
    value: int
    end: int


def cut_out(message: memoryview) -> Cut | None:
    """Cut raw data of LEAST_BYTES or more out of a serialized ModelProto; None if it has none, or is unusual."""
    walk = _Walk(message)
    try:
        fields = list(walk.fields(0, len(message)))
        graphs = [field for field in fields if field.number == _GRAPH]
        if len(graphs) != 1 or graphs[0].wire != _BYTES:
            return None
        (graph,) = graphs
        parts, data = walk.graph(graph)
    except _Unusual:
        return None
    if not data:
        return None
    inner = b"".join(parts)
    outer: tuple[bytes | memoryview, ...] = (message[: graph.start], _tag(_GRAPH), _varint(len(inner)), inner)
    return Cut(b"".join((*outer, message[graph.end :])), data)


class _Walk:
    def __init__(self, message: memoryview) -> None:
        self.message, self.left = message, _MOST_FIELDS

    def graph(self, graph: _Field) -> tuple[list[bytes | memoryview], dict[int, memoryview]]:
        """The pieces of a GraphProto without what is cut out, and that."""
        parts: list[bytes | memoryview] = []
        data: dict[int, memoryview] = {}
        initializers, kept = 0, graph.value
        for field in self.fields(graph.value, graph.end):
            if field.number != _INITIALIZER:
                continue
            if field.wire != _BYTES:
                raise _Unusual
            raw = self._raw(field)
            if raw is not None:
                data[initializers] = self.message[raw.value : raw.end]
                size = _varint(field.end - field.value - (raw.end - raw.start))
                parts += [self.message[kept : field.start], _tag(_INITIALIZER), size]
                parts += [self.message[field.value : raw.start], self.message[raw.end : field.end]]
                kept = field.end
            initializers += 1
        return [*parts, self.message[kept : graph.end]], data

    def _raw(self, tensor: _Field) -> _Field | None:
        """The raw data of a tensor, if they are large and all of its data."""
        if tensor.end - tensor.value < LEAST_BYTES:
            return None
        found: _Field | None = None
        for field in self.fields(tensor.value, tensor.end):
            if field.number == _RAW and field.wire == _BYTES and found is None:
                found = field
            elif field.number not in _PLAIN:
                return None
        return found if found is not None and found.end - found.value >= LEAST_BYTES else None

    def fields(self, at: int, end: int) -> Iterator[_Field]:
        """The fields between two places. Raises _Unusual."""
        while at < end:
            self.left -= 1
            if self.left < 0:
                raise _Unusual
            start = at
            tag, at = self._number(at, end)
            number, wire = tag >> 3, tag & 7
            if wire == _BYTES:
                size, value = self._number(at, end)
                after = value + size
            elif wire == _VARINT:
                value, (_, after) = at, self._number(at, end)
            elif wire in _FIXED:
                value, after = at, at + _FIXED[wire]
            else:
                raise _Unusual
            if number == 0 or after > end:
                raise _Unusual
            yield _Field(number, wire, start, value, after)
            at = after

    def _number(self, at: int, end: int) -> tuple[int, int]:
        """The varint at a place, and where it ends. Raises _Unusual."""
        result = 0
        for place in range(at, min(at + 10, end)):
            byte = self.message[place]
            result |= (byte & 0x7F) << (7 * (place - at))
            if byte < 0x80:
                return result, place + 1
        raise _Unusual


def _tag(number: int) -> bytes:
    return _varint(number << 3 | _BYTES)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
