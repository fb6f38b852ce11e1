"""Bounds that hold for certain, of axes whose extents are known only at the call."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fusible.compiler.ir.symbol_values import evaluate
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt, ceildiv, floordiv
from fusible.compiler.region.index import Bound
from fusible.compiler.region.tensors import holds

H = SymInt.of(Symbol("h", 0))
PLACE, TAP = SymInt.of(Symbol("i0", 0)), SymInt.of(Symbol("i1", 0, 2))


def window(stride: int, taps: int, pad: int, *, ceil: bool = False) -> tuple[Bound, tuple[Dim, Dim]]:
    """The bound of an image row under a window, and the extents of the places and of the taps."""
    room = H + 2 * pad - taps
    places = (ceildiv(room, stride) if ceil else floordiv(room, stride)) + 1
    tap = SymInt.of(Symbol("i1", 0, taps - 1)) if taps > 1 else 0
    return Bound(PLACE * stride + tap - pad, 0, H), (places, taps)


def test_windows_inside() -> None:
    for stride in (1, 2, 3):
        for taps in (1, 2, 3):
            bound, extents = window(stride, taps, 0)
            assert holds(bound, extents) and not holds(bound)
            assert stride == 1 or not holds(*window(stride, taps, 0, ceil=True))
            assert not holds(*window(stride, taps, 1))


def test_what_is_in_a_call_or_multiplied_takes_no_even_steps() -> None:
    assert not holds(Bound(floordiv(PLACE, 2), 0, floordiv(H, 2)), (H + 2,))
    assert not holds(Bound(PLACE * H, 0, H), (H,))
    assert not holds(Bound(PLACE + floordiv(PLACE, 2), 0, H), (H,))


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(-2, 2), st.integers(-3, 3), st.booleans())
def test_what_holds_is_true_of_every_point(stride: int, taps: int, pad: int, more: int, ceil: bool) -> None:
    bound, (places, _) = window(stride, taps, pad, ceil=ceil)
    extents = (places + more, taps)
    if holds(bound, extents):
        for h in range(20):
            for place in range(max(int(evaluate(extents[0], {"h": h})), 0)):
                for tap in range(taps):
                    index = evaluate(bound.expr, {"h": h, "i0": place, "i1": tap})
                    assert 0 <= index < h
