"""The pass `widen-pixels`: images of three channels get a fourth where they are rounded to half precision."""

from __future__ import annotations

from fusible.passes.driver import RewritePass
from fusible.passes.rules import few_channels

__all__ = ["widen_pixels"]

widen_pixels = RewritePass("widen-pixels", [*few_channels.RULES])
