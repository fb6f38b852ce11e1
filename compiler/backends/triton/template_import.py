"""How printed kernels import templates: the text says by which text of a template it is to be built."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import fusible.kernels

__all__ = ["template_import"]


def template_import(template: str, names: Sequence[str]) -> str:
    """The import of functions from a module of `kernels/triton`, with its digest.

    A kernel's text is the key under which it is built: a template that changes makes other texts.
    """
    return f"from fusible.kernels.triton.{template} import {', '.join(sorted(names))}  # {_digest(template)}"


@cache
def _digest(template: str) -> str:
    path = Path(fusible.kernels.__file__).with_name("triton") / f"{template}.py"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
