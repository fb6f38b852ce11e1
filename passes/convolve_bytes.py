"""Write quantised convolutions as convolutions of bytes and what quantises their sums, where there are such kernels."""

from __future__ import annotations

from fusible.passes.driver import RewritePass
from fusible.passes.rules import byte_convolutions

__all__ = ["convolve_bytes"]


convolve_bytes = RewritePass("convolve-bytes", list(byte_convolutions.CONVOLUTIONS))
