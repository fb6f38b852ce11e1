"""Every header of kernels is compiled, and what it computes checked, for every instruction set."""

from __future__ import annotations

import re
from pathlib import Path

from tests.kernels.cpu.harness import HEADERS

ROOT = Path(__file__).parents[3]
_INCLUDE = re.compile(r'#include "([a-z0-9_]+\.h)"')
_PLAIN = {"arena.h", "embedded.h", "fusible.h", "runner.h"}  # no vectors: what embeds exported models, tested with them


def reached(names: set[str]) -> set[str]:
    """These headers and what they include."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += _INCLUDE.findall((HEADERS / name).read_text(encoding="utf-8"))
    return found


def test_no_header_is_left_out() -> None:
    suites = [*Path(__file__).parent.glob("test_*.py"), ROOT / "tests" / "compiler" / "cpu" / "test_printed.py"]
    texts = [path.read_text(encoding="utf-8") for path in suites]
    tested = [text for text in texts if "VARIANTS" in text or "INSTRUCTION_SETS" in text]
    named = {name for text in tested for name in _INCLUDE.findall(text)}
    if any("print_region" in text for text in tested):
        named.add("printed.h")
    assert {path.name for path in HEADERS.glob("*.h")} - reached(named) == _PLAIN
