"""A short sample of the search (all of it: `python -m tests.fuzz`)."""

from __future__ import annotations

import pytest

import fusible
from tests.fuzz import run


@pytest.mark.filterwarnings("ignore")
def test_mutants_run_or_are_refused() -> None:
    result = run.fuzz(seed=3, count=400)
    assert result.found == {}, {kind: name for kind, (name, _) in result.found.items()}
    assert result.ran > 50 and result.refused > 100


def test_a_planted_crash_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(model: bytes, target: str) -> fusible.Executable:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(fusible, "compile", crash)
    assert list(run.fuzz(seed=3, count=3).found) == ["ZeroDivisionError: planted"]
