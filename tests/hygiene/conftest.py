"""A copy of the sources for tests that plant violations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hygiene.sources import copy_tree


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the sources; change it by `plant` only, which cleans up after itself."""
    return copy_tree(tmp_path_factory.mktemp("copy") / "tree")


@pytest.fixture
def plant(tree: Path) -> Iterator[Callable[[str, str], Path]]:
    """Return a function that adds a file, given its name and text, to the copy until the test ends."""
    planted: list[Path] = []

    def add(name: str, text: str) -> Path:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert path in planted or not path.exists(), f"{name} exists"
        path.write_text(text, encoding="utf-8")
        planted.append(path)
        return tree

    yield add
    for path in planted:
        path.unlink(missing_ok=True)
