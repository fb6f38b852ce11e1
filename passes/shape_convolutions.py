"""Write convolutions in the form that the kernels of a native target take: of images, with several output channels."""

from __future__ import annotations

from fusible.passes.driver import RewritePass
from fusible.passes.rules import convolution_forms

__all__ = ["shape_convolutions"]


def shape_convolutions(*, short_lines: bool = True) -> RewritePass:
    """The pass `shape-convolutions`.

    short_lines: lines with few results are padded by a kernel of their own, for the sake of a product of matrices that
    reads rows without gaps. Where windows and padding are part of how any operand is read, that is one kernel more.
    """
    rules = [r for r in convolution_forms.RULES if short_lines or r is not convolution_forms.short_line_padded]
    return RewritePass("shape-convolutions", rules)
