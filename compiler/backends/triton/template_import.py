"""How printed kernels import templates: the text says by which text of a template it is to be built."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import fusible.kernels

__all__ = ["template_import"]

_IMPORT = re.compile(r"^from fusible\.kernels\.triton\.(\w+) import", re.MULTILINE)


def template_import(template: str, names: Sequence[str]) -> str:
    """The import of functions from a module of `kernels/triton`, with the digest of it and of those that it imports.

    A kernel's text is the key under which it is built: a template that changes makes other texts.
    """
    return f"from fusible.kernels.triton.{template} import {', '.join(sorted(names))}  # {_digest(template)}"


@cache
def _digest(template: str) -> str:
    folder = Path(fusible.kernels.__file__).with_name("triton")
    texts: dict[str, str] = {}
    waiting = [template]
    while waiting:
        name = waiting.pop()
        if name not in texts:
            texts[name] = folder.joinpath(f"{name}.py").read_text(encoding="utf-8")
            waiting += _IMPORT.findall(texts[name])
    return hashlib.sha256("\0".join(text for _, text in sorted(texts.items())).encode()).hexdigest()[:16]
