"""Fold batch normalisation into convolutions, or write it as one multiplication and addition."""

from __future__ import annotations

from fusible.passes.driver import RewritePass
from fusible.passes.rules import fold_batch_norm as rules

__all__ = ["fold_batch_norm"]


fold_batch_norm = RewritePass("fold-batch-norm", list(rules.RULES))
