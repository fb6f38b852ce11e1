"""Graph passes and rewrite rules: what a user needs to write one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from fusible.passes.exactness import Exactness

if TYPE_CHECKING:
    from fusible.passes.base import GraphPass, Pass, PassContext, Phase
    from fusible.passes.driver import RewritePass
    from fusible.passes.ledger import Entry, Kind, Ledger
    from fusible.passes.manager import Pipeline
    from fusible.passes.pattern import any_of, approx, op, optional
    from fusible.passes.rewrite import Reject, attributes, rule

__all__ = [
    "Entry",
    "Exactness",
    "GraphPass",
    "Kind",
    "Ledger",
    "Pass",
    "PassContext",
    "Phase",
    "Pipeline",
    "Reject",
    "RewritePass",
    "any_of",
    "approx",
    "attributes",
    "op",
    "optional",
    "rule",
]

# Loaded on first use: `fusible.passes.exactness` is imported by modules that the rest imports in turn.
_LAZY = {
    "Entry": "ledger",
    "GraphPass": "base",
    "Kind": "ledger",
    "Ledger": "ledger",
    "Pass": "base",
    "PassContext": "base",
    "Phase": "base",
    "Pipeline": "manager",
    "Reject": "rewrite",
    "RewritePass": "driver",
    "any_of": "pattern",
    "approx": "pattern",
    "attributes": "rewrite",
    "op": "pattern",
    "optional": "pattern",
    "rule": "rewrite",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'fusible.passes' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fusible.passes.{_LAZY[name]}"), name)
