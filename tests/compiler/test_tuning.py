"""The choice among candidates: lockfile, measurements, static model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from fusible.compiler.tuning import Choice, Config, Source, TuningLock, choose
from fusible.errors import UsageError

SMALL, MIDDLE, LARGE = {"BLOCK": 32}, {"BLOCK": 64}, {"BLOCK": 128}
CANDIDATES = [SMALL, MIDDLE, LARGE]


class _Clock:
    """Seconds by block size, and what was asked."""

    def __init__(self, seconds: Mapping[int, float | None]) -> None:
        self.seconds = seconds
        self.asked: list[tuple[int, float | None]] = []

    def __call__(self, config: Config, best: float | None) -> float | None:
        self.asked.append((config["BLOCK"], best))
        return self.seconds[config["BLOCK"]]


def test_the_fastest_is_chosen_and_remembered() -> None:
    lock, clock = TuningLock(), _Clock({32: 3e-6, 64: 1e-6, 128: 2e-6})
    found = choose("k", CANDIDATES, lock, clock)
    assert found == Choice(MIDDLE, Source.MEASURED, 1e-6, 3)
    assert clock.asked == [(32, None), (64, 3e-6), (128, 1e-6)]
    assert choose("k", CANDIDATES, lock, clock) is found and len(clock.asked) == 3
    assert choose("k", [SMALL, LARGE], lock, clock).config == LARGE  # what was chosen is no candidate any more


def test_of_equals_the_first() -> None:
    assert choose("k", CANDIDATES, TuningLock(), _Clock({32: 1.0, 64: 1.0, 128: 1.0})).config == SMALL


def test_without_a_device_the_static_model_decides_and_says_so() -> None:
    lock = TuningLock()
    assert choose("k", CANDIDATES, lock) == Choice(SMALL, Source.STATIC)
    assert choose("k", [LARGE, SMALL], lock).config == SMALL  # the lock holds
    assert choose("k", CANDIDATES, lock, _Clock({32: 2.0, 64: 1.0, 128: 3.0})).source is Source.MEASURED


def test_what_cannot_run_is_left_out() -> None:
    assert choose("k", CANDIDATES, TuningLock(), _Clock({32: None, 64: None, 128: 1.0})).config == LARGE
    with pytest.raises(UsageError, match="none of the 3 candidates of the kernel 'k' can run"):
        choose("k", CANDIDATES, TuningLock(), _Clock({32: None, 64: None, 128: None}))
    with pytest.raises(UsageError, match="has no candidates"):
        choose("k", [], TuningLock())


def test_the_budget_ends_it() -> None:
    clock = _Clock({32: 1.0, 64: 0.5, 128: 0.1})
    assert choose("k", CANDIDATES, TuningLock(), clock, budget=0.0) == Choice(SMALL, Source.MEASURED, 1.0, 1)


def test_a_lockfile_goes_there_and_back(tmp_path: Path) -> None:
    path, lock = tmp_path / "tuning.json", TuningLock.read(tmp_path / "tuning.json")
    choose("b", CANDIDATES, lock, _Clock({32: 1.23456e-6, 64: 2.0, 128: 3.0}))
    choose("a", CANDIDATES, lock)
    lock.write(path)
    again = TuningLock.read(path)
    assert again.entries["b"] == Choice(SMALL, Source.MEASURED, 1.23e-6, 3)
    assert again.entries["a"] == Choice(SMALL, Source.STATIC)
    text = path.read_bytes()
    again.write(path)
    assert path.read_bytes() == text and list(tmp_path.iterdir()) == [path]
    assert all(choose(key, CANDIDATES, again).config == lock.entries[key].config for key in "ab")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 1, "entries": {"k": {}}}', '{"format": 1, "entries": {"k": 3}}']
)
def test_damaged_lockfiles(text: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text(text)
    with pytest.raises(UsageError, match=r"is no tuning lockfile: .*; remove it to tune anew"):
        TuningLock.read(tmp_path / "t")
    (tmp_path / "t").write_text('{"format": 9, "entries": {}}')
    with pytest.raises(UsageError, match="has format 9, expected 1"):
        TuningLock.read(tmp_path / "t")
    with pytest.raises(UsageError, match="cannot be written"):
        TuningLock().write(tmp_path / "none" / "t")
