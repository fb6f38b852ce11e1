"""Scatter: a copy of x in which updates take or change the elements that their indices name, in the order of updates.

    y[p] = x[p] combined with updates[j] for each j that goes to p, j = 0, 1, ...

Each element of the result looks for its updates, so that their order is kept, sums are the same in every run, and
nothing is written twice: for few updates, since each is asked by every element. Indices count from the end if negative;
those out of range name no element.

PLACE(point, j, inside, extra) gives whether update number j goes to the element at `point` (row-major), and where it
lies among the updates; COMBINE(old, new) what becomes of the element.
"""

import triton
import triton.language as tl


@triton.jit
def along_axis(point, j, inside, extra):
    """ScatterElements: indices and updates [outer, count, inner], x [outer, size, inner].

    extra: (indices, size, inner, count).
    """
    size, inner, count = extra[1], extra[2], extra[3]
    at = (point // inner // size * count + j) * inner + point % inner
    index = tl.load(extra[0] + at, mask=inside, other=0).to(tl.int64)
    index = tl.where(index < 0, index + size, index)
    return inside & (index == point // inner % size), at


@triton.jit
def taken(old, new):
    """The update."""
    return new


@triton.jit
def added(old, new):
    """Their sum, rounded to their type."""
    return (old + new).to(old.dtype)


@triton.jit
def multiplied(old, new):
    """Their product, rounded to their type."""
    return (old * new).to(old.dtype)


@triton.jit
def larger(old, new):
    """The larger one; NaN if one is."""
    return tl.where((new > old) | (new != new), new, old)


@triton.jit
def smaller(old, new):
    """The smaller one; NaN if one is."""
    return tl.where((new < old) | (new != new), new, old)


@triton.jit
def scatter(program, x, updates, y, points, count, extra, PLACE: tl.constexpr, COMBINE: tl.constexpr,
            BLOCK: tl.constexpr):  # fmt: skip
    """Program number `program`: BLOCK elements of y [points], of the type of x and updates. count: of the updates."""
    point = program * BLOCK + tl.arange(0, BLOCK)
    inside = point < points
    value = tl.load(x + point, mask=inside, other=0)
    for j in range(count):
        hit, at = PLACE(point, j, inside, extra)
        new = tl.load(updates + at, mask=hit, other=0)
        value = tl.where(hit, COMBINE(value, new), value)
    tl.store(y + point, value, mask=inside)
