"""The linters find what they are meant to find: each is run on a copy of the tree with a violation planted in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hygiene.sources import COPIED, ROOT, copy_tree

Plant = Callable[[str, str], Path]

DOC = '"""Planted."""\n\n'


def run(tool: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a linter of this environment in a folder."""
    program = Path(sys.executable).with_name(tool)
    return subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("TID251", "import kernels\n\n__all__ = ['kernels']\n"),
        ("TID251", "import pickle\n\n__all__ = ['pickle']\n"),
        ("TID252", "from .base import Pass\n\n__all__ = ['Pass']\n"),
        ("BLE001", "try:\n    x = int('1')\nexcept Exception:\n    x = 2\n"),
        ("E722", "try:\n    x = int('1')\nexcept:\n    x = 2\n"),
        ("F401", "import os\n"),
        ("B006", "def _f(x: list[int] = []) -> list[int]:\n    return x\n"),
        ("I001", "import sys\nimport os\n\n__all__ = ['os', 'sys']\n"),
        ("UP007", "from typing import Union\n\nNumber = Union[int, float]\n"),
        ("S102", "exec('1')\n"),
        ("D103", "def public() -> None:\n    pass\n"),
        ("E501", f"x = {'1' * 130}\n"),
        ("PGH003", "x: int = 'a'  # type: ignore\n"),
        ("T201", "print(1)\n"),
    ],
)
def test_ruff_finds_what_is_planted(plant: Plant, code: str, text: str) -> None:
    tree = plant("passes/planted.py", DOC + text)
    result = run("ruff", "check", "--no-cache", "--output-format=concise", "passes/planted.py", folder=tree)
    assert result.returncode == 1
    assert code in result.stdout


def test_ruff_finds_a_file_with_no_docstring(plant: Plant) -> None:
    tree = plant("passes/planted.py", "x = 1\n")
    assert "D100" in run("ruff", "check", "--no-cache", "passes/planted.py", folder=tree).stdout


def test_ruff_reads_every_folder_once() -> None:
    shown = run("ruff", "check", "--show-files", folder=ROOT).stdout.splitlines()
    names = [Path(line).relative_to(ROOT).as_posix() for line in shown]
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith(("fusible/compiler/", "fusible/kernels/"))]
    assert "compiler/__init__.py" in names


MYPY_PLANTS = {
    "no-untyped-def": "def f(x):\n    return x\n",
    "return-value": "def f(x: int) -> str:\n    return x\n",
    "type-arg": "def f(x: list) -> None:\n    del x\n",
    "no-any-return": "from typing import Any\n\n\ndef f(x: Any) -> int:\n    return x\n",
    "operator": "x = 1 + 'a'\n",
}


def skeleton(folder: Path) -> Path:
    """Make the smallest tree on which mypy runs as it does here: its settings, the links, empty packages."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (folder / "fusible").mkdir()
    (folder / "fusible" / "__init__.py").write_text(DOC)
    for name in ("compiler", "kernels", "passes", "runtime"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(DOC)
        (folder / "fusible" / name).symlink_to(f"../{name}")
    return folder


def test_mypy_finds_what_is_planted_behind_every_link(tmp_path: Path) -> None:
    tree = skeleton(tmp_path / "tree")
    clean = run("mypy", "--cache-dir", str(tmp_path / "cache"), folder=tree)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    folders = ("compiler", "kernels", "passes", "runtime", "fusible")
    for folder, text in zip(folders, MYPY_PLANTS.values(), strict=True):
        (tree / folder / "planted.py").write_text(DOC + text)
    found = run("mypy", "--cache-dir", str(tmp_path / "cache"), folder=tree)
    assert found.returncode == 1
    for folder, code in zip(folders, MYPY_PLANTS, strict=True):
        name = "fusible/planted.py" if folder == "fusible" else f"fusible/{folder}/planted.py"
        assert any(line.startswith(name) and f"[{code}]" in line for line in found.stdout.splitlines()), found.stdout


@pytest.mark.slow
def test_mypy_finds_a_wrong_call_in_the_whole_tree(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    (tree / "passes" / "planted.py").write_text(DOC + "from fusible.errors import LimitExceeded\n\nLimitExceeded(1)\n")
    found = run("mypy", "--cache-dir", str(tmp_path / "cache"), folder=tree)
    assert found.returncode == 1
    assert "fusible/passes/planted.py:5" in found.stdout
    assert "[call-arg]" in found.stdout


LAYER_PLANTS = [
    ("kernels", "fusible.runtime"),
    ("kernels", "fusible.compiler.ir.graph"),
    ("kernels/numpy", "fusible.passes"),
    ("runtime", "fusible.compiler.ir.types"),
    ("runtime", "fusible.passes"),
    ("compiler/ir", "fusible.passes"),
    ("compiler/ir", "fusible.runtime"),
    ("compiler/ir/opset", "fusible.compiler.frontend"),
    ("compiler/ir", "fusible.compiler.options"),
    ("compiler/ir", "fusible.compiler.region.planted_region"),
    ("compiler/region", "fusible.compiler.frontend"),
    ("compiler/region", "fusible.passes"),
    ("compiler/region", "fusible.runtime"),
    ("passes", "fusible.compiler.options"),
    ("passes", "fusible.compiler.backends"),
    ("passes", "fusible.runtime"),
    ("compiler", "fusible.cli"),
    ("compiler", "fusible.benchmarks"),
    ("compiler/planted_new_folder", "fusible.cli"),
]


def test_the_layers_are_kept() -> None:
    result = run("lint-imports", "--no-cache", folder=ROOT)
    assert result.returncode == 0, result.stdout


def test_planted_imports_across_layers_are_found(plant: Plant) -> None:
    plant("compiler/region/planted_region.py", DOC)
    plant("compiler/planted_new_folder/__init__.py", DOC)
    edges = []
    for number, (folder, module) in enumerate(LAYER_PLANTS):
        tree = plant(f"{folder}/planted_{number}.py", f"{DOC}import {module}\n\n__all__ = ['fusible']\n")
        edges.append(f"fusible.{folder.replace('/', '.')}.planted_{number} -> {module} (")
    result = run("lint-imports", "--no-cache", folder=tree)
    found = " ".join(result.stdout.split())
    assert result.returncode == 1
    assert [edge for edge in edges if edge not in found] == []


@pytest.mark.parametrize("name", ["expr", "index"])
def test_expressions_stay_below_the_ops(plant: Plant, tree: Path, name: str) -> None:
    plant("compiler/region/planted_region.py", DOC)
    targets = ["fusible.compiler.ir.graph", "fusible.compiler.region.planted_region"]
    path = tree / "compiler" / "region" / f"{name}.py"
    text = path.read_text()
    path.write_text("\n".join([text, *(f"import {target}" for target in targets), ""]))
    result = run("lint-imports", "--no-cache", folder=tree)
    path.write_text(text)
    found = " ".join(result.stdout.split())
    assert result.returncode == 1
    assert all(f"fusible.compiler.region.{name} -> {target} (" in found for target in targets)


def test_a_copy_is_whole() -> None:
    assert [name for name in COPIED if not (ROOT / name).exists()] == []
