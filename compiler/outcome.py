"""What running a pipeline did, as plain data for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Outcome"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """fusions: what was rewritten or fused; refusals: what was not, and why; passes: rows of name, changes, seconds."""

    fusions: tuple[Mapping[str, Any], ...] = ()
    refusals: tuple[Mapping[str, Any], ...] = ()
    passes: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
