"""Write products of quantised numbers so that matrix units multiply int8, for targets that have such units."""

from __future__ import annotations

from fusible.passes.driver import RewritePass
from fusible.passes.rules import zero_points

__all__ = ["centre_zero_points"]


centre_zero_points = RewritePass("centre-zero-points", list(zero_points.RULES))
