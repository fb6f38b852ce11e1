"""Imports name `fusible.` in full, bring no pickle, and keep to the packages listed for their part of the tree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hygiene.import_rules import bare_imports, foreign_imports, imports_of_the_root, pickle_imports
from tests.hygiene.sources import ROOT

Plant = Callable[[str, str], Path]


def test_no_bare_imports() -> None:
    assert bare_imports(ROOT) == []


def test_inner_modules_do_not_import_the_root() -> None:
    assert imports_of_the_root(ROOT) == []


def test_no_pickle() -> None:
    assert pickle_imports(ROOT) == []


def test_outside_packages_keep_to_the_list() -> None:
    assert foreign_imports(ROOT) == []


@pytest.mark.parametrize(
    "line",
    [
        "import kernels",
        "import runtime.plan as plan",
        "from compiler.ir import graph",
        "from . import graph",
        "from ..ir import graph",
        "def f():\n    from passes import base",
        "import importlib\nimportlib.import_module('benchmarks.zoo')",
    ],
)
def test_a_planted_bare_import_is_found(plant: Plant, line: str) -> None:
    assert len(bare_imports(plant("compiler/planted.py", line + "\n"))) == 1


@pytest.mark.parametrize("line", ["import fusible", "from fusible import load"])
def test_a_planted_import_of_the_root_is_found(plant: Plant, line: str) -> None:
    assert len(imports_of_the_root(plant("runtime/planted.py", line + "\n"))) == 1


@pytest.mark.parametrize("line", ["import pickle", "from marshal import loads", "def f():\n    import dill"])
@pytest.mark.parametrize("folder", ["runtime", "tests"])
def test_a_planted_pickle_is_found(plant: Plant, folder: str, line: str) -> None:
    assert len(pickle_imports(plant(f"{folder}/planted.py", line + "\n"))) == 1


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("kernels/numpy/planted.py", "import scipy.special"),
        ("kernels/planted.py", "import onnx"),
        ("runtime/planted.py", "def f():\n    import onnx"),
        ("runtime/planted.py", "from rich import print"),
        ("passes/planted.py", "from onnx import helper"),
        ("compiler/ir/planted.py", "import sympy"),
        ("compiler/planted.py", "import networkx"),
        ("compiler/frontend/planted.py", "import onnx_ir"),
        ("fusible/planted.py", "import numpy"),
    ],
)
def test_a_planted_foreign_import_is_found(plant: Plant, name: str, line: str) -> None:
    tree = plant(name, line + "\n")
    assert [finding.split(":")[0] for finding in foreign_imports(tree)] == [name]


def test_what_is_listed_is_left_alone(plant: Plant) -> None:
    tree = plant("kernels/planted.py", "import math\nimport numpy.linalg\nimport ml_dtypes\nimport fusible.kernels\n")
    assert foreign_imports(tree) + bare_imports(tree) + pickle_imports(tree) == []
