"""The ledger: one schema, text that comes back, equal entries once."""

from __future__ import annotations

import copy
import json

import pytest

from fusible.passes.ledger import SCHEMA, Cost, Entry, Kind, Ledger, problems

ENTRIES = [
    Entry(Kind.FIRED, "fold-scales", "scale_into_weight", ("MatMul_0", "Mul_1"), "2 nodes became 1"),
    Entry(Kind.REFUSED, "fuse", "", ("a", "b"), "two users", ("x",), cost=Cost(4096, 1)),
    Entry(Kind.FUSED, "fuse", "", ("a",), "", (), saved=Cost(1, 2)),
]


def test_it_comes_back_from_its_text() -> None:
    ledger = Ledger(ENTRIES)
    assert list(Ledger.loads(ledger.dumps())) == ENTRIES
    assert not problems(json.loads(ledger.dumps()))
    assert ledger.counts() == {"fired": 1, "fused": 1, "refused": 1}


def test_equal_entries_are_kept_once_and_found_by_kind() -> None:
    ledger = Ledger()
    for entry in ENTRIES * 2:
        ledger.add(entry)
    assert list(ledger) == ENTRIES
    assert ledger.select(Kind.FUSED) == ENTRIES[2:] and ledger.select(pass_name="fold-scales") == ENTRIES[:1]


@pytest.mark.parametrize(
    "path, value, message",
    [
        (("version",), 2, "is none of"),
        (("entries", 0, "kind"), "guess", "is none of"),
        (("entries", 0, "nodes"), "a", "array expected"),
        (("entries", 0, "cost"), {"bytes": 1}, "'launches' is missing"),
        (("entries", 0, "cost"), {"bytes": 1, "launches": True}, "integer expected"),
        (("entries", 0, "extra"), 1, "'extra' is unknown"),
    ],
)
def test_the_schema_refuses(path: tuple[str | int, ...], value: object, message: str) -> None:
    data = copy.deepcopy(Ledger(ENTRIES).to_json())
    place = data
    for key in path[:-1]:
        place = place[key]  # type: ignore[index]
    place[path[-1]] = value  # type: ignore[index]
    assert any(message in p for p in problems(data))
    with pytest.raises(ValueError, match="not a ledger"):
        Ledger.loads(json.dumps(data))


def test_each_field_is_required() -> None:
    for name in SCHEMA["properties"]["entries"]["items"]["required"]:
        data = Ledger(ENTRIES).to_json()
        del data["entries"][0][name]
        assert problems(data) == [f"ledger.entries[0]: {name!r} is missing"]
