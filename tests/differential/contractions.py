"""Random products: matrices in batches, transposed, scaled; convolutions of every kind."""

from __future__ import annotations

import math

import numpy as np

from tests.differential.builder import Builder
from tests.differential.elementwise import broadcast
from tests.differential.tensors import BF16, F16, F32, F64, I32, I64, Tensor

__all__ = ["GENERATORS", "convolve", "weights"]

_MOSTLY_F32 = (F32, F32, F32, F32, F32, F64, F16, BF16)


def weights(b: Builder, shape: list[int], dtype: np.dtype, fan_in: int) -> Tensor:
    """Random weights, mostly constant, that keep the size of what they are multiplied with; now and then on a grid."""
    if b.chance(0.3):
        array = b.random.integers(-2, 3, shape).astype(dtype)
        return b.given(array, -2, 2, 0, constant=b.chance(0.8))
    scale = 1 / math.sqrt(max(fan_in, 1))
    array = np.clip(b.random.standard_normal(shape), -3, 3) * scale
    return b.given(array.astype(dtype), -3.1 * scale, 3.1 * scale, None, constant=b.chance(0.8))


def _sum_of_products(x: Tensor, w: Tensor, count: int) -> tuple[float, int | None]:
    most = x.magnitude * w.magnitude * max(count, 1)
    return most, None if x.grid is None or w.grid is None else x.grid + w.grid


def _matmul(b: Builder) -> None:
    x = b.pick(*_MOSTLY_F32, I32, I64, ranks=range(1, 5))
    k, m = x.shape[-1], b.extent()
    if b.chance(0.6) and x.dtype not in (I32, I64):
        y = weights(b, [k, m], x.dtype, k)
    else:
        batch = [e if b.chance(0.5) else 1 for e in x.shape[:-2]]
        shape = [*batch[b.rng.randrange(len(batch) + 1) :], k, m] if b.chance(0.9) else [k]
        fit = [t for t in b.tensors if t.dtype == x.dtype and len(t.shape) > 1 and t.shape[-2] == k and not t.wild]
        fit = [t for t in fit if broadcast(t.shape[:-2], x.shape[:-2]) is not None]
        y = b.rng.choice(fit) if fit and b.chance(0.5) else b.leaf(shape, x.dtype)
    batch_shape = broadcast(x.shape[:-2], y.shape[:-2])
    if batch_shape is None:
        return
    shape = [*batch_shape, *x.shape[:-1][-1:], *(y.shape[-1:] if len(y.shape) > 1 else ())]
    most, grid = _sum_of_products(x, y, k)
    if math.prod(shape) > b.largest or most > (200 if x.dtype in (F16, BF16) else 1e5):
        return
    b.node("MatMul", [x, y], shape, low=-most, high=most, grid=grid, terms=max(k, 8))


def _gemm(b: Builder) -> None:
    x = b.pick(*_MOSTLY_F32, ranks=(2,))
    turned_x, turned_w = b.rng.randrange(2), b.rng.randrange(2)
    (n, k), m = reversed(x.shape) if turned_x else x.shape, b.extent()
    w = weights(b, [m, k] if turned_w else [k, m], x.dtype, k)
    bias = b.leaf(b.rng.choice(((n, m), (m,), (1, m), (n, 1), (1,), ())), x.dtype) if b.chance(0.7) else None
    alpha, beta = b.rng.choice((1.0, 1.0, 0.5)), b.rng.choice((1.0, 1.0, 2.0))
    most, grid = _sum_of_products(x, w, k)
    most = most * alpha + (bias.magnitude * beta if bias else 0)
    if grid is not None:
        grid = None if bias and bias.grid is None else max(grid + 1, bias.grid or 0 if bias else 0)
    if most > (200 if x.dtype in (F16, BF16) else 1e5):
        return
    attributes = {"transA": turned_x, "transB": turned_w, "alpha": alpha, "beta": beta}
    b.node("Gemm", [x, w, bias], [n, m], low=-most, high=most, grid=grid, terms=max(k, 8), **attributes)


def convolve(
    b: Builder, x: Tensor, outputs: int, kernel: list[int], group: int = 1, **attributes: list[int]
) -> Tensor | None:
    """Add a convolution if it has a result."""
    spatial = len(x.shape) - 2
    strides, dilations = (attributes.get(n) or [1] * spatial for n in ("strides", "dilations"))
    pads = attributes.get("pads") or [0] * (2 * spatial)
    shape = [x.shape[0], outputs]
    for d in range(spatial):
        room = x.shape[2 + d] + pads[d] + pads[spatial + d] - dilations[d] * (kernel[d] - 1) - 1
        if room < 0:
            return None
        shape.append(room // strides[d] + 1)
    inputs = x.shape[1] // group
    count = inputs * math.prod(kernel)
    w = weights(b, [outputs, inputs, *kernel], x.dtype, count)
    bias = b.leaf([outputs], x.dtype) if b.chance(0.6) else None
    most, grid = _sum_of_products(x, w, count)
    most += bias.magnitude if bias else 0
    grid = None if grid is None or (bias and bias.grid is None) else max(grid, bias.grid or 0 if bias else 0)
    if most > (200 if x.dtype in (F16, BF16) else 1e5) or math.prod(shape) > b.largest:
        return None
    exact = False if max(kernel) == 3 else None  # Winograd's transforms leave the grid
    return b.node(
        "Conv",
        [x, w, bias],
        shape,
        low=-most,
        high=most,
        grid=grid,
        terms=max(count, 8),
        exact=exact,
        kernel_shape=kernel,
        group=group,
        **attributes,
    )


def _convolution(b: Builder) -> None:
    x = b.pick(F32, F32, F32, F32, F32, F32, F64, F16, ranks=(3, 4, 4, 4, 5) if b.chance(0.2) else (4, 4, 3))
    spatial, channels = len(x.shape) - 2, x.shape[1]
    if channels == 0:
        return
    kernel = [b.rng.choice((1, 1, 3, 3, 3, 2, 5, 7))] * spatial
    if b.chance(0.3):
        kernel = [b.rng.choice((1, 3, 5)) for _ in range(spatial)]
    group = b.rng.choice([g for g in (1, 1, 1, 2, 3, 4, channels, channels) if channels % g == 0])
    outputs = group * b.rng.choice((1, 1, 2, 3) if group > 1 else (1, 3, 4, 8, 16, 17, 24, 33))
    pads = [b.rng.choice((0, 1, 2)) for _ in range(2 * spatial)] if b.chance(0.3) else [k // 2 for k in kernel] * 2
    attributes = {
        "strides": [b.rng.choice((1, 1, 1, 2, 3))] * spatial,
        "dilations": [b.rng.choice((1, 1, 1, 1, 2))] * spatial,
        "pads": pads,
    }
    convolve(b, x, outputs, kernel, group, **attributes)


def _transposed_convolution(b: Builder) -> None:
    x = b.pick(F32, F32, F32, F64, ranks=(3, 4))
    spatial, channels = len(x.shape) - 2, x.shape[1]
    if 0 in x.shape:
        return
    group = b.rng.choice([g for g in (1, 1, 2, channels) if channels % g == 0])
    outputs = b.rng.choice((1, 2, 3, 8))
    kernel, stride = [b.rng.choice((1, 2, 3, 4)) for _ in range(spatial)], b.rng.choice((1, 2, 2, 3))
    pads = [b.rng.choice((0, 1)) if k > 2 else 0 for k in kernel] * 2
    shape = [x.shape[0], outputs * group]
    for d in range(spatial):
        shape.append((x.shape[2 + d] - 1) * stride + kernel[d] - pads[d] - pads[spatial + d])
    count = channels // group * math.prod(kernel)
    w = weights(b, [channels, outputs, *kernel], x.dtype, count)
    most, grid = _sum_of_products(x, w, count)
    if min(shape) <= 0 or math.prod(shape) > b.largest or most > 1e5:
        return
    b.node(
        "ConvTranspose",
        [x, w],
        shape,
        low=-most,
        high=most,
        grid=grid,
        terms=max(count, 8),
        kernel_shape=kernel,
        strides=[stride] * spatial,
        pads=pads,
        group=group,
    )


def _einsum(b: Builder) -> None:
    x = b.pick(F32, F32, F64, ranks=(3,))
    i, j, k = x.shape
    equation, shape, result, count = b.rng.choice(
        (
            ("ijk,ikl->ijl", (i, k, 4), (i, j, 4), k),
            ("ijk,jl->ikl", (j, 5), (i, k, 5), j),
            ("ijk,ilk->ijl", (i, 3, k), (i, j, 3), k),
            ("ijk,k->ij", (k,), (i, j), k),
            ("ijk,ijk->i", (i, j, k), (i,), j * k),
            ("ijk,lk->lij", (2, k), (2, i, j), k),
        )
    )
    y = b.leaf(shape, x.dtype)
    most, grid = _sum_of_products(x, y, count)
    if most > 1e5 or math.prod(result) > b.largest:
        return
    b.node("Einsum", [x, y], result, low=-most, high=most, grid=grid, terms=max(count, 8), equation=equation)


GENERATORS = {_matmul: 8, _gemm: 4, _convolution: 8, _transposed_convolution: 1, _einsum: 1}
