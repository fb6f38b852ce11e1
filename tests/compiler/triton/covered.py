"""Which functions of kernels/triton a printed kernel's text reaches: those that it imports, and all that they call."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import fusible.kernels

__all__ = ["functions", "reached"]

Name = tuple[str, str]
"""A module of kernels/triton and a function in it."""

_IMPORT = re.compile(r"^from fusible\.kernels\.triton\.(\w+) import ([^#\n]*)", re.MULTILINE)


@cache
def functions() -> dict[Name, frozenset[Name]]:
    """Every kernel and every hook of kernels/triton, with those that its body names."""
    folder = Path(fusible.kernels.__file__).with_name("triton")
    modules = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.py"))}
    found: dict[Name, frozenset[Name]] = {}
    for module, tree in modules.items():
        defined = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list]
        known = {node.name: (module, node.name) for node in defined}
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fusible.kernels.triton."):
                other = str(node.module).rpartition(".")[2]
                known |= {alias.asname or alias.name: (other, alias.name) for alias in node.names}
        for node in defined:
            named = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
            found[module, node.name] = frozenset(known[name] for name in named if name in known)
    return found


def reached(texts: Iterable[str]) -> set[Name]:
    """What kernels reach, by their texts."""
    waiting = [
        (module, name.strip()) for text in texts for module, names in _IMPORT.findall(text) for name in names.split(",")
    ]
    found: set[Name] = set()
    while waiting:
        one = waiting.pop()
        if one not in found and one in functions():
            found.add(one)
            waiting += functions()[one]
    return found
