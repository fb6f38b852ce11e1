"""What is left of a region when nothing needs a part of it."""

from __future__ import annotations

from fusible.compiler.region.parse import parse_region
from fusible.compiler.region.prune import pruned


def test_an_axis_without_points_stays_although_nothing_mentions_it() -> None:
    """Indices along it may have become 0, for nothing is at any of them; without it there would be points."""
    buffers = "  in x0: f32[3, 2]\n  out y0: f32[{}, 2]\n"
    text = "region [i0={}, i1=2]\n" + buffers + "  v0: f32 = load x0[0, i1]\n  store y0[0, i1] = v0"
    empty, single = (pruned(parse_region(text.format(size, size))) for size in (0, 1))
    assert empty.extents == (0, 2) and single.extents == (2,)
