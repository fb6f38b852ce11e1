"""Fold what is added to a convolution's result, or multiplies it, by channel, into its constants."""

from __future__ import annotations

from fusible.passes.driver import RewritePass
from fusible.passes.rules import channel_constants

__all__ = ["fold_channel_constants"]


fold_channel_constants = RewritePass("fold-channel-constants", list(channel_constants.RULES))
