"""Bounds on files: their length and their names."""

from __future__ import annotations

import re
from pathlib import Path

from tests.hygiene.sources import PACKAGE_FOLDERS, code_files, python_files

MAXIMUM_LINES = 500

# Tables and golden text, each with its reason. Code is split by idea instead.
EXEMPT: dict[str, str] = {}

EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "misc", "stuff", "tools"}
NUMBERED_COPY = re.compile(r"[a-z_]*(?:_new|_old|_copy|[a-z]{5,}2)")


def long_files(root: Path, exempt: dict[str, str] | None = None) -> list[str]:
    """Name the files of code above the limit, and exemptions that nothing needs any more."""
    allowed = EXEMPT if exempt is None else exempt
    lengths = {
        path.relative_to(root).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in code_files(root)
    }
    found = [
        f"{name}: {lines} lines, at most {MAXIMUM_LINES}: split it by idea"
        for name, lines in lengths.items()
        if lines > MAXIMUM_LINES and name not in allowed
    ]
    found += [f"{name}: exempt, yet it is not long" for name in allowed if lengths.get(name, 0) <= MAXIMUM_LINES]
    return found


def folders_without_init(root: Path) -> list[str]:
    """Name the package folders with no `__init__.py`: linters and type checkers would pass over them in silence."""
    folders = {path.parent for path in python_files(root, PACKAGE_FOLDERS)}
    return [
        f"{folder.relative_to(root).as_posix()}: add __init__.py"
        for folder in sorted(folders)
        if not (folder / "__init__.py").exists()
    ]


def empty_names(root: Path) -> list[str]:
    """Name the files whose name says nothing about what is in them."""
    return [
        f"{path.relative_to(root).as_posix()}: name it after what is in it"
        for path in code_files(root)
        if path.stem in EMPTY_NAMES or NUMBERED_COPY.fullmatch(path.stem)
    ]
