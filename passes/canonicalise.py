"""The pass `canonicalise`: arithmetic identities and ops that return their operand as it is."""

from __future__ import annotations

from fusible.passes.driver import RewritePass
from fusible.passes.rules import identities, no_ops

__all__ = ["canonicalise"]

canonicalise = RewritePass("canonicalise", [*identities.RULES, *no_ops.RULES])
