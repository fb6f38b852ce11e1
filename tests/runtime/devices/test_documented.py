"""The functions that only a GPU tests are those that the documents list, and only they name torch or the driver."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import fusible

ROOT = Path(fusible.__file__).resolve().parents[1]


def _documented(file: str) -> set[str]:
    text = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{re.escape(file)}` \| (.*) \|$", text, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", row))


def _functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return {name for name in found if name != "__init__"}


def test_the_list_is_exact() -> None:
    for file in ("runtime/devices/cuda_driver.py", "runtime/devices/cuda.py"):
        assert _functions(file) == _documented(file), file


def test_nothing_else_names_torch_or_the_driver() -> None:
    for path in sorted((ROOT / "runtime").rglob("*.py")):
        if not path.name.startswith(("cuda", "torch_")):
            names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
            assert not names & {"torch", "libcuda"}, path
