"""Files of code stay short and carry names that say what is in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hygiene.file_rules import empty_names, folders_without_init, long_files
from tests.hygiene.sources import ROOT

Plant = Callable[[str, str], Path]


def test_files_are_short() -> None:
    assert long_files(ROOT) == []


def test_names_say_what_is_inside() -> None:
    assert empty_names(ROOT) == []


def test_every_package_folder_has_an_init() -> None:
    assert folders_without_init(ROOT) == []


def test_a_planted_folder_without_init_is_found(plant: Plant) -> None:
    assert folders_without_init(plant("passes/planted/rule.py", "")) == ["passes/planted: add __init__.py"]


@pytest.mark.parametrize("name", ["compiler/planted.py", "kernels/cpu/planted.h", "tests/planted.py"])
def test_a_planted_long_file_is_found(plant: Plant, name: str) -> None:
    assert long_files(plant(name, "\n" * 500)) == []
    tree = plant(name, "\n" * 501)
    assert [finding.split(":")[0] for finding in long_files(tree)] == [name]
    assert long_files(tree, exempt={name: "planted"}) == []


def test_an_exemption_that_nothing_needs_is_found(tree: Path) -> None:
    assert long_files(tree, exempt={"compiler/gone.py": "a table"}) != []


@pytest.mark.parametrize("name", ["utils.py", "convolution2.py", "pattern_old.py"])
def test_a_planted_empty_name_is_found(plant: Plant, name: str) -> None:
    tree = plant(f"passes/{name}", "")
    assert [finding.split(":")[0] for finding in empty_names(tree)] == [f"passes/{name}"]
