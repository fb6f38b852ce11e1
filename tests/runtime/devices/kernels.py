"""Small kernels for the tests of device sessions, as `DeviceKernel.source` has them: the text of a file."""

import triton
import triton.language as tl

from fusible.kernels.triton.partial_sums import comes_last, kept, summed


@triton.jit
def scale(x, out, n, FACTOR: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < n) * FACTOR, mask=at < n)


@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < n) + tl.load(y + at, mask=at < n), mask=at < n)


@triton.jit
def row_sums(x, out, columns, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    row = tl.program_id(0)
    tl.store(out + row, tl.sum(tl.load(x + row * columns + at, mask=at < columns, other=0.0), axis=0))


@triton.jit
def shared_row_sums(x, out, workspace, counters, columns, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    """As row_sums; PARTS programs share a row."""
    row, part = tl.program_id(0) // PARTS, tl.program_id(0) % PARTS
    at = part * BLOCK + tl.arange(0, BLOCK)
    own = tl.sum(tl.load(x + row * columns + at, mask=at < columns, other=0.0)[None, :], axis=1, keep_dims=True)
    kept(own, workspace + tl.program_id(0), None, 1, 1)
    if comes_last(counters + row, PARTS):
        total = summed(workspace + row * PARTS, PARTS, 1, 1)
        tl.store(out + row + tl.zeros((1, 1), tl.int32), total)


@triton.jit
def matmul(x, w, out, m, n, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """out[m, n] = x[m, k] @ w[k, n], all row-major; one program computes BM x BN elements."""
    tile = tl.program_id(0)
    rows = (tile // tl.cdiv(n, BN)) * BM + tl.arange(0, BM)[:, None]
    columns = (tile % tl.cdiv(n, BN)) * BN + tl.arange(0, BN)[None, :]
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(0, k, BK):
        left, below = start + tl.arange(0, BK)[None, :], start + tl.arange(0, BK)[:, None]
        a = tl.load(x + rows * k + left, mask=(rows < m) & (left < k), other=0.0)
        b = tl.load(w + below * n + columns, mask=(below < k) & (columns < n), other=0.0)
        total = tl.dot(a, b, total, input_precision="ieee")
    tl.store(out + rows * n + columns, total, mask=(rows < m) & (columns < n))


@triton.jit
def reads_beyond(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at), mask=at < n)
