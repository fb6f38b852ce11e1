"""Write convolutions in the form that the kernels of a native target take: of images, with several output channels."""

from __future__ import annotations

from fusible.passes.driver import RewritePass
from fusible.passes.rules import convolution_forms

__all__ = ["shape_convolutions"]


def shape_convolutions() -> RewritePass:
    """The pass `shape-convolutions`."""
    return RewritePass("shape-convolutions", list(convolution_forms.RULES))
