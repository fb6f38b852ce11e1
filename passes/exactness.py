"""How far a rewrite may change numbers."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exactness"]


class Exactness(IntEnum):
    """Classes of rewrites, from strict to loose; `Options.exactness` bounds what may run.

    EXACT: results are bit-equal. REASSOCIATING: the same arithmetic in real numbers, rounded differently.
    APPROXIMATE: an error with a stated bound.
    """

    EXACT = 0
    REASSOCIATING = 1
    APPROXIMATE = 2
