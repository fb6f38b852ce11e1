"""The k largest or smallest elements along an axis, by counting: the rank of an element is how many come before it.

    rank[i] = #{j : x[j] before x[i]},   values[rank[i]] = x[i],  indices[rank[i]] = i   where rank[i] < k

Of equal elements the one with the lower index comes first, and NaN counts as the greatest, so ranks are all different
and nothing is sorted: every element is compared with every other of its row, by as many programs as there are blocks
(the enumeration sort of Muller and Preparata, "Bounds to complexities of networks for sorting and for switching",
JACM 1975, with only the first k written).
"""

import triton
import triton.language as tl


@triton.jit
def order_key(x, LARGEST: tl.constexpr):
    """An int64 that is greater for elements that come earlier, and equal for equal ones: -0 is 0, NaN the greatest.

    The bits of a float are those of its magnitude, with the sign before them: negative ones are turned round. Of
    elements of 32 bits the key has 32 bits too.
    """
    if x.dtype.is_floating() and x.dtype.primitive_bitwidth == 64:
        bits = tl.where(x == 0, 0, x.to(tl.int64, bitcast=True))
        key = tl.where(x != x, 0x7FFFFFFFFFFFFFFF, bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF))
    elif x.dtype.is_floating():
        wide = x.to(tl.float32)
        bits = tl.where(wide == 0, 0, wide.to(tl.int32, bitcast=True))
        key = tl.where(wide != wide, 0x7FFFFFFF, bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)
    elif x.dtype == tl.uint64:
        key = x.to(tl.int64, bitcast=True) ^ (-0x8000000000000000)
    elif x.dtype == tl.uint32:
        key = x.to(tl.int64) - 0x80000000
    else:
        key = x.to(tl.int64)
    return key if LARGEST else -1 - key


@triton.jit
def earlier(x, place, size, LARGEST: tl.constexpr):
    """The key, with the place behind it where there is room: then no two are equal. size: at most 2**32."""
    key = order_key(x, LARGEST)
    if x.dtype.primitive_bitwidth < 64:
        key = key * 0x100000000 + (size - 1 - place)
    return key


@triton.jit
def ranked(program, x, values, indices, size, inner, k, LARGEST: tl.constexpr, BLOCK: tl.constexpr,
           OTHERS: tl.constexpr):  # fmt: skip
    """What program number `program` of `top_k` does, in as many bits as the number has."""
    blocks = (size + BLOCK - 1) // BLOCK
    row = program // blocks
    start = program % blocks * BLOCK
    first = x + row // inner * size * inner + row % inner
    i = (start + tl.arange(0, BLOCK))[:, None]
    mine = tl.load(first + i * inner, mask=i < size, other=0)
    a = earlier(mine, i, size, LARGEST)
    rank = tl.zeros([BLOCK], tl.int32)
    for other in range(0, size, OTHERS):
        j = (other + tl.arange(0, OTHERS))[None, :]
        b = earlier(tl.load(first + j * inner, mask=j < size, other=0), j, size, LARGEST)
        before = b > a
        if mine.dtype.primitive_bitwidth == 64:
            before |= (b == a) & (j < i)
        rank += tl.sum((before & (j < size)).to(tl.int32), 1)
    place = rank[:, None]
    at = row // inner * k * inner + place * inner + row % inner
    kept = (i < size) & (place < k)
    tl.store(values + at, mine, mask=kept)
    tl.store(indices + at, i.to(tl.int64), mask=kept)


@triton.jit
def top_k(x, values, indices, size, inner, k, LARGEST: tl.constexpr, BLOCK: tl.constexpr, OTHERS: tl.constexpr):
    """One program: BLOCK elements of one row. Grid: rows * ceil(size / BLOCK), blocks of a row side by side.

    x [outer, size, inner], values [outer, k, inner] of its type, indices int64 of the same shape; a row is what lies
    along the middle axis. BLOCK, OTHERS: powers of two; as many elements are compared with each other at once.
    """
    ranked(tl.program_id(0), x, values, indices, size, inner, k, LARGEST, BLOCK, OTHERS)
