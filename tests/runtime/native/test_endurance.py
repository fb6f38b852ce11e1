"""Some thousand runs in two threads and after a fork; `python -m tests.runtime.native.endurance` does 100,000."""

from __future__ import annotations

import numpy as np
import pytest

import fusible
from fusible.runtime.session import Session
from tests.runtime import models
from tests.runtime.native.endurance import endure, forked


@pytest.fixture(scope="module")
def executable() -> fusible.Executable:
    """Return a small model on a pool of two threads, which has run."""
    exe = fusible.compile(models.conv_relu_add(), target="cpu", options=fusible.Options(threads=2))
    exe(np.zeros((1, 3, 4, 4), np.float32))
    return exe


def test_two_sessions_in_two_threads(executable: fusible.Executable) -> None:
    outcome = endure(executable, 3000)
    assert outcome.good, outcome


def test_two_sessions_after_a_fork(executable: fusible.Executable) -> None:
    outcome = forked(executable, 3000)
    assert outcome.runs == 3000 and outcome.good, outcome


def test_results_that_differ_and_memory_that_grows_are_noticed(
    executable: fusible.Executable, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, kept = Session.run, []

    def leaking(session: Session, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        kept.append(np.ones(2000, np.float32))
        found = right(session, inputs)
        return {"u": found["u"] + np.float32(len(kept) == 700)}

    monkeypatch.setattr(Session, "run", leaking)
    outcome = endure(executable, 3000)
    assert outcome.wrong == 1 and outcome.grown > 4 << 20, outcome
