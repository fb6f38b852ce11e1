"""Damaged artifacts: whatever stands in the header, loading says what is wrong or gives an executable."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fusible
from fusible.runtime.artifact import with_prefix
from tests.runtime import models
from tests.runtime.damaged import before_sections, header_of, sections_of

WRONG: tuple[Any, ...] = (
    None, -1, 0, 2**63, 2**70, 1.5, float("nan"), float("inf"), "", "x", "../../x", "n*" * 50, [], [1], {}, True,
)  # fmt: skip
Json = Any


def _places(data: Json, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if place:
        yield place
    if isinstance(data, (dict, list)):
        for key, inner in data.items() if isinstance(data, dict) else enumerate(data):
            yield from _places(inner, (*place, key))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Json], bytes]:
    """The header of an artifact, and all that follows."""
    path = tmp_path_factory.mktemp("artifact") / "m.fusible"
    fusible.compile(models.branches(), target="numpy").save(path)
    return header_of(path), sections_of(path)


def _write(path: Path, header: dict[str, Json], rest: bytes) -> None:
    path.write_bytes(before_sections(header) + rest)


@pytest.mark.parametrize("seed", range(6))
def test_headers(seed: int, artifact: tuple[dict[str, Json], bytes], tmp_path: Path) -> None:
    header, rest = artifact
    rng = random.Random(seed)
    places = [place for place in _places(header) if place[0] != "source"]  # which is Python
    refused = 0
    for _ in range(80):
        changed, place = copy.deepcopy(header), rng.choice(places)
        at = changed
        for key in place[:-1]:
            at = at[key]  # type: ignore[index]
        if rng.random() < 0.2:
            del at[place[-1]]  # type: ignore[arg-type]
        else:
            at[place[-1]] = rng.choice(WRONG)  # type: ignore[index]
        _write(tmp_path / "m.fusible", changed, rest)
        try:
            exe = fusible.load(tmp_path / "m.fusible", check=rng.random() < 0.5)
            assert repr(exe) and exe.report is not None
        except fusible.FusibleError as error:
            refused += 1
            assert len(str(error)) < 2000
    assert refused > 10


@pytest.mark.parametrize("report", [b"[]", b"nonsense", b'{"no such field": 1}', b"[" * 200])
def test_reports(report: bytes, artifact: tuple[dict[str, Json], bytes], tmp_path: Path) -> None:
    """The report is read when it is wanted."""
    header, rest = copy.deepcopy(artifact[0]), artifact[1]
    (section,) = (s for s in header["sections"] if s[0] == "report")
    offset = section[3]
    section[2], section[4] = [len(report)], len(report)
    rest = rest[:offset] + report + rest[offset + len(report) :]
    _write(tmp_path / "m.fusible", header, rest)
    exe = fusible.load(tmp_path / "m.fusible")
    with pytest.raises(fusible.ArtifactError, match=r"the report in the artifact .*; compile the model again"):
        _ = exe.report


def test_a_header_of_brackets(tmp_path: Path) -> None:
    (tmp_path / "m.fusible").write_bytes(with_prefix(b"[" * 200_000))
    with pytest.raises(fusible.ArtifactError, match="is damaged"):
        fusible.load(tmp_path / "m.fusible")


@pytest.mark.parametrize("section", [[], "", ["report"], None])
def test_sections_that_are_no_rows(section: Json, artifact: tuple[dict[str, Json], bytes], tmp_path: Path) -> None:
    header, rest = copy.deepcopy(artifact[0]), artifact[1]
    header["sections"][0] = section
    _write(tmp_path / "m.fusible", header, rest)
    with pytest.raises(fusible.ArtifactError, match="is damaged"):
        fusible.load(tmp_path / "m.fusible")
