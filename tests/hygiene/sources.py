"""The files that the hygiene checks read, and copies of the tree in which violations are planted."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PACKAGE_FOLDERS = ("fusible", "compiler", "kernels", "passes", "runtime", "benchmarks")
CODE_FOLDERS = (*PACKAGE_FOLDERS, "tests", "examples", "docs")
CODE_SUFFIXES = (".py", ".pyi", ".c", ".h", ".css", ".js")
COPIED = (*CODE_FOLDERS, "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md")


def code_files(root: Path, folders: tuple[str, ...] = CODE_FOLDERS) -> Iterator[Path]:
    """Yield every file of code below the folders, sorted, each once: links in fusible/ are not followed."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            reached_by_link = any(
                parent.is_symlink() for parent in path.parents if parent.is_relative_to(root / folder)
            )
            if path.suffix in CODE_SUFFIXES and path.is_file() and not reached_by_link:
                yield path


def python_files(root: Path, folders: tuple[str, ...] = CODE_FOLDERS) -> Iterator[Path]:
    """Yield the Python files among `code_files`."""
    return (path for path in code_files(root, folders) if path.suffix == ".py")


def parse(path: Path) -> ast.Module:
    """Parse a Python file; the tree is shared, so leave it as it is."""
    return _parse(path.read_text(encoding="utf-8"))


@cache
def _parse(text: str) -> ast.Module:
    return ast.parse(text)


def where(root: Path, path: Path, line: int) -> str:
    """Return `folder/file.py:line`, relative to the root."""
    return f"{path.relative_to(root).as_posix()}:{line}"


def copy_tree(destination: Path) -> Path:
    """Copy the sources, links as links, into an empty folder and return it."""
    destination.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info")
            shutil.copytree(source, destination / name, symlinks=True, ignore=ignored)
        elif source.is_file():
            shutil.copy2(source, destination / name)
    return destination
