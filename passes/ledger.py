"""The ledger: what every rule and fusion did, declined to do, and why. One JSON schema for all of it.

An entry names the pass and rule, the ONNX nodes, a reason and its culprits, and where known what it costs or saves.
Entries are kept once, in the order in which they were first made.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["SCHEMA", "VERSION", "Cost", "Entry", "Kind", "Ledger", "problems"]

VERSION = 1


class Kind(StrEnum):
    """What an entry reports.

    FIRED: a rewrite was made. DECLINED: a rule matched and refused. NEAR_MISS: most of a pattern matched. FUSED and
    REFUSED: a fusion was made, or two neighbours were kept apart. LOUD: something that a user should hear of, such as
    a constant too large to fold.
    """

    FIRED = "fired"
    DECLINED = "declined"
    NEAR_MISS = "near-miss"
    REFUSED = "refused"
    LOUD = "loud"
    FUSED = "fused"


@dataclass(frozen=True, slots=True)
class Cost:
    """An estimate: bytes moved through memory, and kernel launches."""

    bytes: int = 0
    launches: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger.

    nodes: the ONNX node names it is about (of both neighbours for a refusal). culprits: the values or nodes that the
    reason is about. cost: of not doing it; saved: by having done it.
    """

    kind: Kind
    pass_name: str
    rule: str = ""
    nodes: tuple[str, ...] = ()
    reason: str = ""
    culprits: tuple[str, ...] = ()
    cost: Cost | None = None
    saved: Cost | None = None

    def to_json(self) -> dict[str, Any]:
        """The entry as plain data in the form of `SCHEMA`."""
        found: dict[str, Any] = {
            "kind": str(self.kind),
            "pass": self.pass_name,
            "rule": self.rule,
            "nodes": list(self.nodes),
            "reason": self.reason,
            "culprits": list(self.culprits),
        }
        for name, cost in (("cost", self.cost), ("saved", self.saved)):
            found[name] = None if cost is None else {"bytes": cost.bytes, "launches": cost.launches}
        return found

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Entry:
        """The entry that `to_json` gave. Raises ValueError if the data do not follow the schema."""
        wrong = problems(data, SCHEMA["properties"]["entries"]["items"])
        if wrong:
            raise ValueError(f"not a ledger entry: {wrong[0]}")
        costs = {name: None if data[name] is None else Cost(**data[name]) for name in ("cost", "saved")}
        return Entry(
            Kind(data["kind"]),
            data["pass"],
            data["rule"],
            tuple(data["nodes"]),
            data["reason"],
            tuple(data["culprits"]),
            **costs,
        )

    def __str__(self) -> str:
        title = f"{self.pass_name}/{self.rule}" if self.rule else self.pass_name
        where = f" at {', '.join(self.nodes)}" if self.nodes else ""
        why = f": {self.reason}" if self.reason else ""
        whose = f" ({', '.join(self.culprits)})" if self.culprits else ""
        return f"{self.kind} {title}{where}{why}{whose}"


class Ledger:
    """The entries of one compilation, in order, equal ones once."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries: dict[Entry, None] = dict.fromkeys(entries)

    def add(self, entry: Entry) -> None:
        """Append an entry unless an equal one is there."""
        self._entries.setdefault(entry)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def select(self, kind: Kind | None = None, pass_name: str | None = None, rule: str | None = None) -> list[Entry]:
        """The entries of a kind, pass or rule."""
        return [
            entry
            for entry in self
            if (kind is None or entry.kind is kind)
            and (pass_name is None or entry.pass_name == pass_name)
            and (rule is None or entry.rule == rule)
        ]

    def counts(self) -> dict[str, int]:
        """The number of entries of each kind that occurs."""
        return dict(sorted(Counter(str(entry.kind) for entry in self).items()))

    def to_json(self) -> dict[str, Any]:
        """The whole ledger as plain data in the form of `SCHEMA`."""
        return {"version": VERSION, "entries": [entry.to_json() for entry in self]}

    def dumps(self) -> str:
        """The ledger as JSON text, the same for the same compilation."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False, sort_keys=True)

    @staticmethod
    def loads(text: str) -> Ledger:
        """The ledger that `dumps` wrote. Raises ValueError for other text."""
        data = json.loads(text)
        wrong = problems(data)
        if wrong:
            raise ValueError(f"not a ledger: {wrong[0]}")
        return Ledger(Entry.from_json(item) for item in data["entries"])


_NAMES: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
_COST: dict[str, Any] = {
    "type": ["object", "null"],
    "required": ["bytes", "launches"],
    "additionalProperties": False,
    "properties": {"bytes": {"type": "integer"}, "launches": {"type": "integer"}},
}
_PROPERTIES: dict[str, Any] = {
    "kind": {"enum": [str(kind) for kind in Kind]},
    "pass": {"type": "string"},
    "rule": {"type": "string"},
    "nodes": _NAMES,
    "reason": {"type": "string"},
    "culprits": _NAMES,
    "cost": _COST,
    "saved": _COST,
}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Fusible ledger",
    "type": "object",
    "required": ["version", "entries"],
    "additionalProperties": False,
    "properties": {
        "version": {"enum": [VERSION]},
        "entries": {
            "type": "array",
            "items": {
                "type": "object",
                "required": list(_PROPERTIES),
                "additionalProperties": False,
                "properties": _PROPERTIES,
            },
        },
    },
}
"""The JSON Schema of `Ledger.to_json`."""

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "null": type(None),
}


def problems(data: Any, schema: Mapping[str, Any] = SCHEMA, where: str = "ledger") -> list[str]:
    """What keeps plain data from following a schema; understands the parts of JSON Schema that `SCHEMA` uses."""
    if "enum" in schema:
        return [] if data in schema["enum"] else [f"{where}: {data!r} is none of {schema['enum']}"]
    wanted = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(isinstance(data, _TYPES[name]) for name in wanted) or isinstance(data, bool):
        return [f"{where}: {' or '.join(wanted)} expected, got {type(data).__name__}"]
    if isinstance(data, list):
        return [p for i, item in enumerate(data) for p in problems(item, schema["items"], f"{where}[{i}]")]
    if not isinstance(data, dict):
        return []
    found = [f"{where}: {name!r} is missing" for name in schema["required"] if name not in data]
    for name, value in data.items():
        if name in schema["properties"]:
            found += problems(value, schema["properties"][name], f"{where}.{name}")
        else:
            found.append(f"{where}: {name!r} is unknown")
    return found
