"""Write norms over groups of channels as sums by channel, for targets whose kernels are loop nests."""

from __future__ import annotations

from fusible.passes.driver import RewritePass
from fusible.passes.rules.group_norms import means_by_channel

__all__ = ["spread_group_norms"]

spread_group_norms = RewritePass("spread-group-norms", [means_by_channel])
