"""Read rows of tables in place of multiplying by one-hot rows, and compute on a table rather than on what is read."""

from __future__ import annotations

from fusible.passes.driver import RewritePass
from fusible.passes.rules import one_hot

__all__ = ["gather_tables"]


def gather_tables() -> RewritePass:
    """The pass `gather-tables`."""
    return RewritePass("gather-tables", list(one_hot.RULES))
