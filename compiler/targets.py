"""The targets of this release, and what `auto` stands for on this machine."""

from __future__ import annotations

import os

from fusible.errors import DeviceError, UsageError
from fusible.runtime.native.compiler import find_compiler

__all__ = ["TARGETS", "check_target", "resolve_target"]

TARGETS = ("auto", "numpy", "cpu")


def resolve_target(target: str) -> tuple[str, str]:
    """(concrete target, what there is to say about the choice): auto is cpu where a C compiler works, else numpy.

    Raises UsageError for a target that this release does not have.
    """
    if target not in TARGETS:
        raise UsageError(f"unknown target {target!r}; this release has {', '.join(TARGETS)}")
    if target != "auto":
        return target, ""
    try:
        find_compiler(os.environ)
    except DeviceError as missing:
        return "numpy", f"auto: NumPy runs the model, because the target cpu cannot be built here: {missing}"
    return "cpu", ""


def check_target(target: str) -> None:
    """Raise DeviceError if a concrete target lacks what it is built with: cpu a C compiler."""
    if target == "cpu":
        find_compiler(os.environ)
