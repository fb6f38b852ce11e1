"""Broad handlers hide defects: one is allowed only where it ends by raising another error from the original."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from tests.hygiene.sources import PACKAGE_FOLDERS, parse, python_files, where

BROAD = {"Exception", "BaseException"}


def broad_handlers(root: Path) -> list[str]:
    """Name the handlers of everything (and `suppress` of everything) that swallow what they catch."""
    return [
        f"{where(root, path, line)}: {advice}"
        for path in python_files(root, (*PACKAGE_FOLDERS, "examples", "docs"))
        for line, advice in _broad(parse(path))
    ]


@cache
def _broad(tree: ast.Module) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and _catches_all(node.type) and not _raises_from_it(node):
            found.append((node.lineno, "name the errors that are expected here"))
        if isinstance(node, ast.Call) and _name(node.func) == "suppress" and any(map(_catches_all, node.args)):
            found.append((node.lineno, "name the errors to suppress"))
    return found


def _catches_all(expression: ast.expr | None) -> bool:
    match expression:
        case None:
            return True
        case ast.Tuple(elts=elements):
            return any(map(_catches_all, elements))
        case _:
            return _name(expression) in BROAD


def _raises_from_it(handler: ast.ExceptHandler) -> bool:
    match handler.body[-1]:
        case ast.Raise(exc=None):
            return True
        case ast.Raise(cause=ast.Name(id=cause)):
            return handler.name == cause
        case _:
            return False


def _name(expression: ast.expr) -> str:
    match expression:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""
