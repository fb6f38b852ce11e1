"""No handler swallows every exception."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hygiene.exception_rules import broad_handlers
from tests.hygiene.sources import ROOT

Plant = Callable[[str, str], Path]

SWALLOWING = {
    "bare": "try:\n    x = 1\nexcept:\n    x = 2\n",
    "exception": "try:\n    x = 1\nexcept Exception:\n    x = 2\n",
    "among others": "try:\n    x = 1\nexcept (KeyError, BaseException) as error:\n    print(error)\n",
    "qualified": "import builtins\ntry:\n    x = 1\nexcept builtins.Exception:\n    x = 2\n",
    "suppress": "import contextlib\nwith contextlib.suppress(Exception):\n    x = 1\n",
}
CLEAN = {
    "named": "try:\n    x = 1\nexcept KeyError:\n    x = 2\n",
    "raised again": "try:\n    x = 1\nexcept Exception:\n    x = 2\n    raise\n",
    "raised from": "try:\n    x = 1\nexcept Exception as error:\n    raise ValueError('x') from error\n",
}


def test_no_handler_swallows_everything() -> None:
    assert broad_handlers(ROOT) == []


@pytest.mark.parametrize("kind", SWALLOWING)
def test_a_planted_broad_handler_is_found(plant: Plant, kind: str) -> None:
    tree = plant("passes/planted.py", SWALLOWING[kind])
    assert [finding.split(":")[0] for finding in broad_handlers(tree)] == ["passes/planted.py"]


@pytest.mark.parametrize("kind", CLEAN)
def test_a_handler_with_an_aim_is_left_alone(plant: Plant, kind: str) -> None:
    tree = plant("passes/planted.py", CLEAN[kind])
    assert broad_handlers(tree) == []
