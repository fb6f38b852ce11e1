"""Passes from outside: files that define `register(pipeline)`, and packages with the entry point `fusible.passes`.

Both give a function that takes a `Pipeline` and returns the one to use. Such code runs with the rights of the caller.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from fusible.errors import UsageError
from fusible.passes.manager import Pipeline

__all__ = ["GROUP", "has_entry_points", "load_entry_points", "load_pass_file"]

GROUP = "fusible.passes"


def load_pass_file(path: str | Path, pipeline: Pipeline) -> Pipeline:
    """Execute a Python file and hand the pipeline to its `register`.

    The file is imported under the name of its stem: by that name an artifact finds the custom kernels in it, where it
    can be imported again. Raises UsageError if it cannot be read, fails, or defines no `register`.
    """
    file = Path(path).resolve()
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise UsageError(f"{path} is no Python file")
    loaded = sys.modules.get(file.stem)
    if loaded is not None and getattr(loaded, "__file__", None) != str(file):
        raise UsageError(f"{path} has the name of a module that is loaded already ({file.stem}); rename the file")
    if loaded is None:
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[file.stem] = loaded
        try:
            spec.loader.exec_module(loaded)
        except Exception as error:
            del sys.modules[file.stem]
            raise UsageError(f"{path} fails: {type(error).__name__}: {error}") from error
    register = getattr(loaded, "register", None)
    if not callable(register):
        raise UsageError(f"{path} defines no function register(pipeline)")
    return _registered(str(path), register, pipeline)


def has_entry_points() -> bool:
    """True if installed packages have passes for default pipelines."""
    return bool(entry_points(group=GROUP))


def load_entry_points(pipeline: Pipeline, points: Iterable[EntryPoint] | None = None) -> Pipeline:
    """Apply the entry points of installed packages, in order of their names. Raises UsageError naming the bad one."""
    found = entry_points(group=GROUP) if points is None else points
    for point in sorted(found, key=lambda point: (point.name, point.value)):
        where = f"entry point {point.name} = {point.value}"
        try:
            register = point.load()
        except Exception as error:
            raise UsageError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
        pipeline = _registered(where, register, pipeline)
    return pipeline


def _registered(where: str, register: Callable[[Pipeline], Any], pipeline: Pipeline) -> Pipeline:
    try:
        result = register(pipeline)
    except Exception as error:
        raise UsageError(f"{where}: register(pipeline) fails: {type(error).__name__}: {error}") from error
    if result is None:
        raise UsageError(f"{where}: register(pipeline) returns nothing; pipelines are immutable, return the new one")
    if not isinstance(result, Pipeline):
        raise UsageError(f"{where}: register(pipeline) returns {type(result).__name__}, not a Pipeline")
    return result
