"""Kernels for the tests, written as any Triton kernel is."""

import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def scale_and_add(x, y, out, n, scale, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    a = tl.load(x + at, mask=inside, other=0.0)
    b = tl.load(y + at, mask=inside, other=0.0)
    tl.store(out + at, (a.to(tl.float32) * scale + b.to(tl.float32)).to(out.dtype.element_ty), mask=inside)


@triton.jit
def outer_sum(x, y, out, rows, columns, R: tl.constexpr, C: tl.constexpr):
    r = tl.program_id(0) * R + tl.arange(0, R)[:, None]
    c = tl.program_id(1) * C + tl.arange(0, C)[None, :]
    a = tl.load(x + r, mask=r < rows, other=0.0)
    b = tl.load(y + c, mask=c < columns, other=0.0)
    tl.store(out + r * columns + c, tl.exp(a) + b * a, mask=(r < rows) & (c < columns))


@triton.jit
def softmax_rows(x, out, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    c = tl.arange(0, BLOCK)
    v = tl.load(x + row * columns + c, mask=c < columns, other=-float("inf")).to(tl.float32)
    e = tl.exp(v - tl.max(v, axis=0))
    tl.store(out + row * columns + c, (e / tl.sum(e, axis=0)).to(out.dtype.element_ty), mask=c < columns)


@triton.jit
def layer_norm(x, gain, bias, out, columns, epsilon, BLOCK: tl.constexpr):
    row = tl.program_id(0) * columns
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, columns, BLOCK):
        c = start + tl.arange(0, BLOCK)
        total += tl.load(x + row + c, mask=c < columns, other=0.0).to(tl.float32)
    mean = tl.sum(total, axis=0) / columns
    squares = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, columns, BLOCK):
        c = start + tl.arange(0, BLOCK)
        v = tl.load(x + row + c, mask=c < columns, other=0.0).to(tl.float32)
        squares += tl.where(c < columns, (v - mean) * (v - mean), 0.0)
    scale = tl.rsqrt(tl.sum(squares, axis=0) / columns + epsilon)
    for start in range(0, columns, BLOCK):
        c = start + tl.arange(0, BLOCK)
        inside = c < columns
        v = tl.load(x + row + c, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(gain + c, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + row + c, ((v - mean) * scale * g + b).to(out.dtype.element_ty), mask=inside)


@triton.jit
def larger_with_index(a, i, b, j):
    first = (a > b) | ((a == b) & (i < j))
    return tl.where(first, a, b), tl.where(first, i, j)


@triton.jit
def arg_max(x, values, indices, rows, columns, R: tl.constexpr, C: tl.constexpr, AXIS: tl.constexpr):
    r = tl.arange(0, R)[:, None]
    c = tl.arange(0, C)[None, :]
    v = tl.load(x + r * columns + c, mask=(r < rows) & (c < columns), other=-float("inf"))
    if AXIS == 0:
        best, where = tl.reduce((v, tl.broadcast_to(r, (R, C))), 0, larger_with_index)
        at = tl.arange(0, C)
        tl.store(values + at, best, mask=at < columns)
        tl.store(indices + at, where, mask=at < columns)
    else:
        best, where = tl.reduce((v, tl.broadcast_to(c, (R, C))), 1, larger_with_index)
        at = tl.arange(0, R)
        tl.store(values + at, best, mask=at < rows)
        tl.store(indices + at, where, mask=at < rows)


@triton.jit
def linear_step(a, x, b, y):
    return a * b, b * x + y


@triton.jit
def scans(x, sums, products, states, rows, columns, R: tl.constexpr, C: tl.constexpr, AXIS: tl.constexpr):
    r = tl.arange(0, R)[:, None]
    c = tl.arange(0, C)[None, :]
    inside = (r < rows) & (c < columns)
    at = r * columns + c
    v = tl.load(x + at, mask=inside, other=0.0)
    tl.store(sums + at, tl.cumsum(v, axis=AXIS, reverse=True), mask=inside)
    tl.store(products + at, tl.cumprod(v, axis=AXIS), mask=inside)
    _, state = tl.associative_scan((v * 0.5, v), AXIS, linear_step)
    tl.store(states + at, state, mask=inside)


@triton.jit
def matmul(a, b, out, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, ACC: tl.constexpr,
           PRECISION: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    pa = a + m[:, None] * K + k[None, :]
    pb = b + k[:, None] * N + n[None, :]
    acc = tl.zeros((BM, BN), ACC)
    for start in range(0, K, BK):
        x = tl.load(pa, mask=(m[:, None] < M) & (k[None, :] < K - start), other=0.0)
        y = tl.load(pb, mask=(n[None, :] < N) & (k[:, None] < K - start), other=0.0)
        acc = tl.dot(x, y, acc, input_precision=PRECISION, out_dtype=ACC)
        pa += BK
        pb += BK * N
    at = out + m[:, None] * N + n[None, :]
    tl.store(at, acc.to(out.dtype.element_ty), mask=(m[:, None] < M) & (n[None, :] < N))


@triton.jit
def gelu_plus(v, at, inside, extra):
    residual, scale = extra
    return v * 0.5 * (1.0 + tl.erf(v * 0.7071067811865476)) * scale + tl.load(residual + at, mask=inside, other=0.0)


@triton.jit
def matmul_by_descriptors(a, b, out, M, N, K, extra, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
                          EPILOGUE: tl.constexpr):  # fmt: skip
    left = tl.make_tensor_descriptor(a, [M, K], [K, 1], [BM, BK])
    right = tl.make_tensor_descriptor(b, [N, K], [K, 1], [BN, BK])
    target = tl.make_tensor_descriptor(out, [M, N], [N, 1], [BM, BN])
    first, second = tl.program_id(0) * BM, tl.program_id(1) * BN
    acc = tl.zeros((BM, BN), tl.float32)
    for k in range(0, K, BK):
        acc = tl.dot(left.load([first, k]), right.load([second, k]).T, acc, input_precision="ieee")
    m = first + tl.arange(0, BM)[:, None]
    n = second + tl.arange(0, BN)[None, :]
    target.store([first, second], EPILOGUE(acc, m * N + n, (m < M) & (n < N), extra))


@triton.jit
def matmul_split_k(a, b, out, M, N, K, PART: tl.constexpr, B: tl.constexpr):
    m = tl.program_id(0) * B + tl.arange(0, B)[:, None]
    n = tl.program_id(1) * B + tl.arange(0, B)[None, :]
    acc = tl.zeros((B, B), tl.float32)
    start = tl.program_id(2) * PART
    for offset in range(0, PART, B):
        k = start + offset + tl.arange(0, B)
        x = tl.load(a + m * K + k[None, :], mask=(m < M) & (k[None, :] < K), other=0.0)
        y = tl.load(b + k[:, None] * N + n, mask=(k[:, None] < K) & (n < N), other=0.0)
        acc = tl.dot(x, y, acc, input_precision="ieee")
    tl.atomic_add(out + m * N + n, acc.to(out.dtype.element_ty), mask=(m < M) & (n < N))


@triton.jit
def conv3x3(x, w, bias, out, H, W, C, F, BP: tl.constexpr, BF: tl.constexpr, BC: tl.constexpr):
    """Channels last, padding 1: x [N, H, W, C], w [3, 3, C, F], out [N, H, W, F]."""
    pixel = tl.program_id(0) * BP + tl.arange(0, BP)
    image = tl.program_id(2) * H * W
    row, column = pixel // W, pixel % W
    f = tl.program_id(1) * BF + tl.arange(0, BF)
    acc = tl.zeros((BP, BF), tl.float32) + tl.load(bias + f, mask=f < F, other=0.0)[None, :]
    for tap in range(9):
        r, c = row + tap // 3 - 1, column + tap % 3 - 1
        inside = (pixel < H * W) & (r >= 0) & (r < H) & (c >= 0) & (c < W)
        for start in range(0, C, BC):
            k = start + tl.arange(0, BC)
            at = (image + r * W + c)[:, None] * C + k[None, :]
            pixels = tl.load(x + at, mask=inside[:, None] & (k < C)[None, :], other=0.0)
            weights = tl.load(w + (tap * C + k)[:, None] * F + f[None, :], mask=(k < C)[:, None] & (f < F)[None, :],
                              other=0.0)  # fmt: skip
            acc = tl.dot(pixels, weights, acc, input_precision="ieee")
    acc = acc * tl.sigmoid(acc)
    tl.store(out + (image + pixel)[:, None] * F + f[None, :], acc, mask=(pixel < H * W)[:, None] & (f < F)[None, :])


@triton.jit
def depthwise(x, w, out, H, W, C, stride, OH, OW, BP: tl.constexpr, BC: tl.constexpr):
    pixel = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    row, column = pixel // OW, pixel % OW
    acc = tl.zeros((BP, BC), tl.float32)
    for i in range(3):
        for j in tl.static_range(3):
            r, q = row * stride + i - 1, column * stride + j - 1
            inside = (pixel < OH * OW) & (r >= 0) & (r < H) & (q >= 0) & (q < W)
            v = tl.load(x + (r * W + q)[:, None] * C + c[None, :], mask=inside[:, None] & (c < C)[None, :], other=0.0)
            acc += v * tl.load(w + (i * 3 + j) * C + c, mask=c < C, other=0.0)[None, :]
    tl.store(out + pixel[:, None] * C + c[None, :], acc, mask=(pixel < OH * OW)[:, None] & (c < C)[None, :])


@triton.jit
def flash_attention(q, k, v, out, T, scale, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    head = tl.program_id(1) * T * D
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    queries = tl.load(q + head + m[:, None] * D + d[None, :], mask=(m < T)[:, None], other=0.0)
    top = tl.full((BM,), -float("inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, D), tl.float32)
    for start in range(0, tl.minimum((tl.program_id(0) + 1) * BM, T), BN):
        n = start + tl.arange(0, BN)
        keys = tl.load(k + head + n[None, :] * D + d[:, None], mask=(n < T)[None, :], other=0.0)
        scores = tl.dot(queries, keys, input_precision="ieee") * scale
        scores = tl.where((m[:, None] >= n[None, :]) & (n < T)[None, :], scores, -float("inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        weights = tl.exp(scores - new_top[:, None])
        shrink = tl.exp(top - new_top)
        total = total * shrink + tl.sum(weights, axis=1)
        values = tl.load(v + head + n[:, None] * D + d[None, :], mask=(n < T)[:, None], other=0.0)
        acc = tl.dot(weights.to(v.dtype.element_ty), values, acc * shrink[:, None], input_precision="ieee")
        top = new_top
    result = (acc / total[:, None]).to(out.dtype.element_ty)
    tl.store(out + head + m[:, None] * D + d[None, :], result, mask=(m < T)[:, None])


@triton.jit
def unpack_int4(packed, table, out, plain, n, BLOCK: tl.constexpr):
    """Two numbers of 4 bits a byte, the lower first; each is looked up in a table of 16, and written as it is too."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    bytes_ = tl.load(packed + at, mask=at < n, other=0)
    both = tl.join(bytes_ & 0xF, bytes_ >> 4).reshape(2 * BLOCK)
    entries = tl.load(table + tl.arange(0, 16))
    values = tl.gather(entries, both.to(tl.int32), axis=0)
    to = tl.program_id(0) * 2 * BLOCK + tl.arange(0, 2 * BLOCK)
    tl.store(out + to, values, mask=to < 2 * n)
    low, high = tl.split(both.reshape(BLOCK, 2))
    tl.store(plain + at, low.to(tl.int32) - high.to(tl.int32), mask=at < n)


@triton.jit
def collatz(x, steps, n):
    """One number a program: how many steps it takes to 1; numbers below 1 stay as they are."""
    at = tl.program_id(0)
    if at >= n:
        return
    value = tl.load(x + at)
    count = 0
    if value >= 1:
        while value != 1:
            if value % 2 == 0:
                value = value // 2
            else:
                value = 3 * value + 1
            count += 1
    else:
        count = value
    tl.store(steps + at, count)


@triton.jit
def fibonacci(out, n, BLOCK: tl.constexpr):
    """Tensors and scalars that change places in each turn of a loop."""
    a = tl.zeros((BLOCK,), tl.int32)
    b = tl.full((BLOCK,), 1, tl.int32)
    x, y = 0, 1
    for _ in range(n):
        a, b = b, a + b + (x - x)
        x, y = y, x + y
    tl.store(out + tl.arange(0, BLOCK), a)
    tl.store(out + BLOCK, x)


@triton.jit
def cast(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < n).to(out.dtype.element_ty), mask=at < n)


@triton.jit
def low_precision_chain(x, y, out, n, BLOCK: tl.constexpr):
    """Arithmetic in the elements' own type: every operation rounds."""
    at = tl.arange(0, BLOCK)
    a = tl.load(x + at, mask=at < n, other=0.0)
    b = tl.load(y + at, mask=at < n, other=0.0)
    tl.store(out + at, a * b + a - b, mask=at < n)


@triton.jit
def functions(x, out, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    inside = at < n
    v = tl.load(x + at, mask=inside, other=0.5)
    tl.store(out + at, libdevice.tanh(v), mask=inside)
    tl.store(out + n + at, libdevice.pow(libdevice.abs(v), 1.5), mask=inside)
    tl.store(out + 2 * n + at, libdevice.log1p(libdevice.abs(v)), mask=inside)
    tl.store(out + 3 * n + at, libdevice.rint(v) + libdevice.round(v), mask=inside)
    tl.store(out + 4 * n + at, tl.erf(v) + tl.sin(v) * tl.cos(v), mask=inside)
    tl.store(out + 5 * n + at, tl.clamp(v, -0.5, 0.5) + tl.floor(v) + tl.ceil(v), mask=inside)
    tl.store(out + 6 * n + at, tl.fma(v, v, v) + tl.sqrt(tl.abs(v)) + tl.exp2(v), mask=inside)
    tl.store(out + 7 * n + at, tl.where(libdevice.isnan(v) | (v > 1.0), 1.0, v), mask=inside)


@triton.jit
def integers(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    inside = at < n
    a = tl.load(x + at, mask=inside, other=1)
    b = tl.load(y + at, mask=inside, other=1)
    ua, ub = a.to(tl.uint32, bitcast=True), b.to(tl.uint32, bitcast=True)
    tl.store(out + at, (a // b) * 3 + a % b, mask=inside)
    tl.store(out + n + at, (ua // ub + ua % ub).to(tl.int32, bitcast=True), mask=inside)
    tl.store(out + 2 * n + at, (a >> 3) + ((ua >> 5).to(tl.int32, bitcast=True)) + (a << 2), mask=inside)
    tl.store(out + 3 * n + at, tl.umulhi(ua, ub).to(tl.int32, bitcast=True), mask=inside)
    tl.store(out + 4 * n + at, tl.minimum(a, b) ^ tl.maximum(a, b) | (a & b), mask=inside)
    tl.store(out + 5 * n + at, (ua > ub).to(tl.int32) + (a > b).to(tl.int32) * 2 + (~a), mask=inside)
    tl.store(out + 6 * n + at, a * 1103515245 + b, mask=inside)
    bins = tl.histogram(tl.where(inside, a & 7, 0), 8)
    tl.store(out + 7 * n + tl.arange(0, 8), bins)


@triton.jit
def moves(x, out, BLOCK: tl.constexpr):
    """[4, BLOCK] is transposed, permuted, cut and put together again."""
    at = tl.arange(0, 4)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    v = tl.load(x + at)
    turned = tl.trans(v * 2.0)
    tl.store(out + tl.arange(0, BLOCK)[:, None] * 4 + tl.arange(0, 4)[None, :], turned)
    deep = tl.permute(tl.reshape(v + 1.0, (2, 2, BLOCK)), (2, 0, 1))
    tl.store(out + 4 * BLOCK + tl.arange(0, 4 * BLOCK), tl.reshape(deep, (4 * BLOCK,)))
    few = tl.arange(0, 8)
    both = tl.cat(tl.load(x + few), tl.load(x + BLOCK + few), can_reorder=True)
    tl.store(out + 8 * BLOCK + tl.arange(0, 16), tl.sort(both))


@triton.jit
def atomics(x, counters, floats, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    v = tl.load(x + at, mask=inside, other=0)
    where = counters + tl.zeros((BLOCK,), tl.int32)
    tl.atomic_add(where, v, mask=inside)
    tl.atomic_max(where + 1, v, mask=inside)
    tl.atomic_min(where + 2, v, mask=inside)
    tl.atomic_xor(where + 3, v, mask=inside)
    tl.atomic_max(floats + tl.zeros((BLOCK,), tl.int32), v.to(tl.float32), mask=inside)
    tl.atomic_cas(counters + 4, 0, 7)
    tl.atomic_add(floats + 1, 0.5)


@triton.jit
def reads_beyond(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at), mask=at < n)


@triton.jit
def writes_beyond(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < n, other=0.0))


@triton.jit
def writes_twice(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * (BLOCK - 1) + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < n, other=0.0), mask=at < n)


@triton.jit
def uses_undefined(x, out, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out, tl.sum(tl.load(x + at, mask=at < n), axis=0))


@triton.jit
def descriptor_too_large(x, out, n, BLOCK: tl.constexpr):
    block = tl.make_tensor_descriptor(x, [2 * n, BLOCK], [BLOCK, 1], [1, BLOCK]).load([n, 0])
    tl.store(out + tl.arange(0, BLOCK)[None, :], block)


@triton.jit
def asserts(x, out, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    v = tl.load(x + at, mask=at < n, other=1.0)
    tl.device_assert(v > 0.0, "numbers above zero only")
    tl.store(out + at, v, mask=at < n)


@triton.jit
def with_assembly(x, out, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    v = tl.load(x + at)
    w = tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [v], dtype=tl.float32, is_pure=True, pack=1)
    tl.store(out + at, w)
