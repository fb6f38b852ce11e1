"""What the depth of a contraction is to one operand: whether it is one row of elements, and where windows end.

A convolution's weights, stored by taps and channels, lie along the whole depth with one distance between neighbours:
blocks of them are found with no division by the taps. Whether a window's tap lies inside the image is the same for all
channels, so it is found once for all taps, before the loop, as the bits of a number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from math import prod

from fusible.compiler.backends.cpu.c_dims import coefficient
from fusible.compiler.backends.cpu.nest import Access, Nest
from fusible.compiler.backends.triton.body import Body
from fusible.compiler.backends.triton.contraction import axes_of
from fusible.compiler.ir.symbol_values import substitute, symbols_of
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt
from fusible.compiler.region.index import Bound
from fusible.compiler.region.region import Load, operands_of

__all__ = ["one_row", "window_bits"]

_BITS = 31


def one_row(nest: Nest, moving: Collection[int], depth: Sequence[int]) -> dict[str, Dim]:
    """What the depth's axes are if its last one goes through all of it; {} if that says less than all axes do.

    moving: the stages of the operand that differ along the depth.
    """
    extents = [e for a in depth if isinstance(e := nest.extents[a], int)]
    if len(depth) < 2 or len(extents) < len(depth):
        return {}
    for position in moving:
        stage = nest.region.stages[position]
        if not isinstance(stage, Load) or operands_of(stage) or nest.loads[position].checked:
            return {}
        access = nest.loads[position]
        if any(axes_of(dim) & set(depth) for dim in access.conditions()):
            return {}
        steps = [step for a in depth if isinstance(step := coefficient(access.offset, a), int)]
        pairs = zip(pairwise(steps), extents[1:], strict=False)
        if len(steps) < len(depth) or any(slow != fast * extent for (slow, fast), extent in pairs):
            return {}
    last = f"i{depth[-1]}"
    return {f"i{a}": 0 for a in depth[:-1]} | {last: SymInt.of(Symbol(last, 0, prod(extents) - 1))}


def window_bits(body: Body, name: str, access: Access, outer: Sequence[int], inner: Sequence[int], own: str) -> bool:
    """Print the conditions of a load, by rows or columns, for each index along the outer axes of a depth: as bits.

    Bit n of the variable `name` is for the n-th index, the last axis running fastest. inner: the other axes that the
    loop goes through, that of halves too. own: the name of another condition that must hold, or "". Returns False, and
    prints nothing, if there are no such conditions or they are not of that form.
    """
    bounds = _by_axis(access, outer, inner)
    extents = [body.tile.nest.extents[a] for a in outer]
    counts = [e for e in extents if isinstance(e, int)]
    fixed = None if bounds is None else body.conditions(bounds.get(None, ()))
    if bounds is None or fixed is None or len(counts) < len(extents) or not 1 < prod(counts) <= _BITS:
        return False
    bits, width, lines = "1", 1, []
    for axis, extent in reversed(list(zip(outer, counts, strict=True))):
        parts = list(_parts(body, bounds.get(axis, ()), axis, extent, bits, width))
        if not parts:
            return False
        lines.append(f"{name} = {' + '.join(parts)}")
        bits, width = name, width * extent
    conditions = " & ".join([*([own] if own else []), *fixed])
    lines += [f"{name} = tl.where({conditions}, {name}, 0)"] if conditions else []
    for line in lines:
        body.line(line)
    return True


def _parts(body: Body, bounds: Sequence[Bound], axis: int, extent: int, bits: str, width: int) -> Iterator[str]:
    """The bits of each index along an axis, in their place, where its conditions hold."""
    for index in range(extent):
        at = {f"i{axis}": index}
        known = [[substitute(body.tile.known(d), at) for d in (b.expr, b.low, b.high)] for b in bounds]
        conditions = body.conditions([Bound(*dims) for dims in known])
        if conditions is not None:
            moved = f"{bits} * {1 << (index * width)}" if index else bits
            yield f"tl.where({' & '.join(conditions)}, {moved}, 0)" if conditions else moved


def _by_axis(access: Access, outer: Sequence[int], inner: Sequence[int]) -> dict[int | None, list[Bound]] | None:
    """The bounds of an access by the one outer axis that each depends on; None if one depends on something else.

    Under None are those that are the same along the depth.
    """
    found: dict[int | None, list[Bound]] = {}
    for bound in access.bounds:
        dims = (bound.expr, bound.low, bound.high)
        axes = set().union(*map(axes_of, dims))
        own = axes & set(outer)
        if len(own) > 1 or axes & set(inner) or any(s.name[0] in "vw" for d in dims for s in symbols_of(d)):
            return None
        found.setdefault(own.pop() if own else None, []).append(bound)
    return None if access.checked or not set(found) - {None} else found
