"""The passes `cancel-transposes`, `merge-reshapes` and `cancel-casts`: two moves or casts become one or none."""

from __future__ import annotations

from fusible.passes.driver import RewritePass
from fusible.passes.rules import movements

__all__ = ["cancel_casts", "cancel_transposes", "merge_reshapes"]

cancel_transposes = RewritePass("cancel-transposes", movements.TRANSPOSES)
merge_reshapes = RewritePass("merge-reshapes", movements.RESHAPES)
cancel_casts = RewritePass("cancel-casts", movements.CASTS)
