"""Kernels that use one corner of the language each."""

import triton
import triton.language as tl


@triton.jit
def hints(x, out, n, BLOCK: tl.constexpr):
    """Hints, cache policies and barriers change nothing."""
    tl.assume(n > 0)
    at = tl.max_contiguous(tl.multiple_of(tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), BLOCK), BLOCK)
    v = tl.load(x + at, mask=at < n, other=0.0, eviction_policy="evict_last", cache_modifier=".cg", volatile=True)
    tl.debug_barrier()
    tl.device_print("v: ", v)
    tl.store(out + at, v + tl.num_programs(0), mask=at < n, cache_modifier=".wb", eviction_policy="evict_first")


@triton.jit
def block_pointers(x, out, rows, columns, R: tl.constexpr, C: tl.constexpr):
    """Pointers to blocks, which Triton's passes turn into pointers to elements."""
    source = tl.make_block_ptr(x, (rows, columns), (columns, 1), (0, 0), (R, C), (1, 0))
    target = tl.make_block_ptr(out, (columns, rows), (rows, 1), (0, 0), (C, R), (1, 0))
    for _ in range(0, columns, C):
        v = tl.load(source, boundary_check=(0, 1), padding_option="zero")
        tl.store(target, tl.trans(v), boundary_check=(0, 1))
        source = tl.advance(source, (0, C))
        target = tl.advance(target, (C, 0))


@triton.jit
def batched_dot(a, b, out, B: tl.constexpr, N: tl.constexpr):
    i, j, k = tl.arange(0, B)[:, None, None], tl.arange(0, N)[None, :, None], tl.arange(0, N)[None, None, :]
    at = (i * N + j) * N + k
    tl.store(out + at, tl.dot(tl.load(a + at), tl.load(b + at), input_precision="ieee"))


@triton.jit
def random_numbers(out, seed, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out + at, tl.rand(seed, at))
    tl.store(out + BLOCK + at, tl.randn(seed, at))


@triton.jit
def order(x, out, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    v = tl.load(x + at)
    tl.store(out + at, tl.flip(v, 0))
    tl.store(out + BLOCK + tl.arange(0, 2 * BLOCK), tl.interleave(v, -v))
    tl.store(out + 3 * BLOCK + tl.arange(0, 4), tl.topk(v, 4))
    tl.store(out + 3 * BLOCK + 4 + tl.arange(0, 1), tl.min(v, 0, keep_dims=True))


@triton.jit
def masks_in_memory(x, flags, out, n, BLOCK: tl.constexpr):
    """i1 in arrays, through the while loop's tensors and as numbers."""
    at = tl.arange(0, BLOCK)
    inside = at < n
    v = tl.load(x + at, mask=inside, other=0)
    open_ = v > 0
    tl.store(flags + at, open_, mask=inside)
    rounds = tl.zeros((BLOCK,), tl.int32)
    while tl.max(open_.to(tl.int32), 0) > 0:
        rounds += open_.to(tl.int32)
        v = tl.where(open_, v // 2, v)
        open_ = v > 0
    again = tl.load(flags + at, mask=inside, other=0).to(tl.int1)
    tl.store(out + at, tl.where(again, rounds, -1), mask=inside)


@triton.jit
def returns_early(x, out, n, limit):
    """Nested early returns: blocks with jumps between them, in the middle of the kernel."""
    at = tl.program_id(0)
    value = tl.load(x + at)
    if at >= n:
        return
    if value > limit:
        if value > 2 * limit:
            tl.store(out + at, 2)
            return
        tl.store(out + at, 1)
        return
    for k in range(n):
        value += k
    tl.store(out + at, value)


@triton.jit
def grouped_order(out, M, N, GROUP: tl.constexpr):
    """Programs in groups of rows, persistent: each program takes every num_programs-th tile."""
    for tile in tl.range(tl.program_id(0), M * N, tl.num_programs(0), flatten=True):
        m, n = tl.swizzle2d(tile // N, tile % N, M, N, GROUP)
        tl.store(out + m * N + n, tile)


@triton.jit
def narrow_integers(x, out, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    v = tl.load(x + at, mask=at < n, other=0)
    tl.store(out + at, (v + v) // 3 - (v >> 1), mask=at < n)


@triton.jit
def doubles(x, out, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    v = tl.load(x + at, mask=at < n, other=0.0)
    tl.store(out + at, tl.exp(v) / (1.0 + tl.exp(v)) + tl.sqrt(tl.abs(v)) * tl.log(tl.abs(v) + 1.0), mask=at < n)


@triton.jit
def exponentials(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + at, mask=at < n, other=0.0)
    tl.store(out + at, tl.exp2(v), mask=at < n)
    tl.store(out + n + at, tl.exp(v), mask=at < n)
    tl.store(out + 2 * n + at, tl.log(v), mask=at < n)


@triton.jit
def pointer_table(rows, out, n, BLOCK: tl.constexpr):
    """Addresses of rows, read from memory as integers."""
    at = tl.arange(0, BLOCK)
    row = tl.load(rows + tl.program_id(0)).to(tl.pointer_type(tl.float32))
    tl.store(out + tl.program_id(0) * n + at, tl.load(row + at, mask=at < n), mask=at < n)


@triton.jit
def chosen_pointer(x, y, out, n, BLOCK: tl.constexpr):
    """A pointer that may be either of two arguments."""
    at = tl.arange(0, BLOCK)
    source = x
    if tl.program_id(0) % 2 == 1:
        source = y
    tl.store(out + tl.program_id(0) * n + at, tl.load(source + at, mask=at < n), mask=at < n)


@triton.jit
def transposed_in_a_loop(x, out, turns, N: tl.constexpr):
    """A value that a loop carries and reads at another place than it writes."""
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    v = tl.load(x + at)
    for _ in range(turns):
        v = tl.trans(v) + 1.0
    tl.store(out + at, v)


@triton.jit
def steps_grow(x, out, turns, N: tl.constexpr):
    """Pointers that a loop carries: neighbours at first, further apart after each turn."""
    at = tl.arange(0, N)
    p = x + at
    total = tl.zeros((N,), tl.float32)
    for _ in range(turns):
        total += tl.load(p)
        p += at
    tl.store(out + at, total)


@triton.jit
def squares_reused(x, out, N: tl.constexpr):
    """A sum that starts from a value which is used again: it must not be overwritten."""
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    v = tl.load(x + at)
    flat = tl.load(x + tl.arange(0, N * N)) * 2.0
    product = tl.dot(v, v, v, input_precision="ieee")
    again = tl.dot(v, v, tl.reshape(flat, (N, N)), input_precision="ieee")
    tl.store(out + at, product + again + v)
    tl.store(out + N * N + tl.arange(0, N * N), flat)
