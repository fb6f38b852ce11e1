"""What models are made of: attention, residual blocks, gates, rotary positions, shuffled channels, embeddings."""

from __future__ import annotations

import math

import numpy as np

from tests.differential.builder import Builder
from tests.differential.contractions import convolve, weights
from tests.differential.tensors import BOOL, F16, F32, Tensor

__all__ = ["GENERATORS"]

_IMAGES = ((1, 1, 2, 3), (1, 3, 4, 8, 16, 17, 24), (1, 4, 7, 8, 12, 15), (1, 5, 7, 8, 14, 18))


def _chosen(b: Builder, *choices: tuple[int, ...]) -> list[int]:
    return [b.rng.choice(numbers) for numbers in choices]


def _product(b: Builder, x: Tensor, y: Tensor, shape: list[int]) -> Tensor:
    count = x.shape[-1]
    most = x.magnitude * y.magnitude * count
    return b.node("MatMul", [x, y], shape, low=-most, high=most, terms=max(count, 8), exact=False)


def _binary(b: Builder, op: str, x: Tensor, y: Tensor) -> Tensor:
    shape = list(np.broadcast_shapes(x.shape, y.shape))
    most = x.magnitude + y.magnitude if op in ("Add", "Sub") else x.magnitude * y.magnitude
    return b.node(op, [x, y], shape, low=-most, high=most, terms=4, exact=False)


def _unary(b: Builder, op: str, x: Tensor, low: float, high: float) -> Tensor:
    return b.node(op, [x], x.shape, low=low, high=high, terms=8, exact=False)


def _attention(b: Builder) -> None:
    n, heads, queries, size = _chosen(b, (1, 2, 3), (1, 2, 4), (1, 4, 7, 17, 33), (3, 8, 16, 20))
    keys = queries if b.chance(0.7) else b.rng.choice((1, 5, 19))
    groups = b.rng.choice([g for g in (1, heads) if heads % g == 0]) if b.chance(0.2) else heads
    width, dtype = heads * size, F32 if b.chance(0.9) else F16
    x, y = b.leaf([n, queries, width], dtype), b.leaf([n, keys, width], dtype)

    def head(source: Tensor, rows: int, count: int, order: list[int]) -> Tensor:
        cut = source
        if b.chance(0.6):
            cut = _product(b, source, weights(b, [width, count * size], dtype, width), [n, rows, count * size])
        elif count != heads:
            ends = [b.numbers_of([v]) for v in (0, count * size, 2)]
            cut = b.moved("Slice", [source, *ends], [n, rows, count * size])
        apart = b.moved("Reshape", [cut, b.numbers_of([n, rows, count, size])], [n, rows, count, size])
        return b.moved("Transpose", [apart], [apart.shape[d] for d in order], perm=order)

    q = head(x, queries, heads, [0, 2, 1, 3])
    k, v = head(y, keys, groups, [0, 2, 3, 1]), head(y, keys, groups, [0, 2, 1, 3])
    if b.chance(0.5):
        q = _binary(b, "Mul", q, b.scalar(round(size**-0.5, 3), dtype))
    scores = _product(b, q, k, [n, heads, queries, keys])
    if b.chance(0.5):
        scores = _binary(b, "Mul", scores, b.scalar(0.25, dtype))
    scores = _masked(b, scores, n, queries, keys)
    soft = b.node("Softmax", [scores], scores.shape, low=0, high=1, terms=keys + 16, exact=False, axis=-1)
    seen = _product(b, soft, v, [n, heads, queries, size])
    turned = b.moved("Transpose", [seen], [n, queries, heads, size], perm=[0, 2, 1, 3])
    b.moved("Reshape", [turned, b.numbers_of([n, queries, width])], [n, queries, width])


def _masked(b: Builder, scores: Tensor, n: int, queries: int, keys: int) -> Tensor:
    shape = b.rng.choice(((n, 1, 1, keys), (1, 1, queries, keys), (queries, keys), (keys,)))
    match b.rng.randrange(4):
        case 0:
            array = np.where(b.random.random(shape) < 0.3, -50.0, 0.0).astype(scores.dtype)
            return _binary(b, "Add", scores, b.given(array, -50, 0))
        case 1:
            array = b.random.random(shape) < 0.8
            array[..., 0] = True
            mask, low = b.given(array, 0, 1), b.scalar(-50, scores.dtype)
            least = min(scores.low, -50)
            return b.node("Where", [mask, scores, low], scores.shape, scores.dtype, least, scores.high, exact=True)
        case 2:
            return _binary(b, "Add", scores, b.leaf(shape, scores.dtype))
    return scores


def _image(b: Builder) -> Tensor:
    return b.leaf(_chosen(b, *_IMAGES), F32)


def _conv_block(b: Builder) -> None:
    """Convolutions with norms, activations, a residual, a gate on channels."""
    x = _image(b)
    for _ in range(b.rng.choice((1, 2, 3, 4))):
        channels = x.shape[1]
        size = b.rng.choice((1, 1, 3, 3, 5))
        group = channels if b.chance(0.35) else b.rng.choice([g for g in (1, 1, 1, 2, 4) if channels % g == 0])
        outputs = channels if b.chance(0.5) or group == channels else group * b.rng.choice((2, 4, 8))
        stride = b.rng.choice((1, 1, 1, 2))
        y = convolve(b, x, outputs, [size] * 2, group, strides=[stride] * 2, pads=[size // 2] * 4)
        if y is None:
            return
        y = _activated(b, y)
        if b.chance(0.3):
            y = _gated(b, y)
        if y.shape == x.shape and b.chance(0.7):
            y = _binary(b, "Add", y, x)
        x = y
    if b.chance(0.4):
        pooled = b.node("GlobalAveragePool", [x], [*x.shape[:2], 1, 1], terms=math.prod(x.shape[2:]), exact=False)
        flat = b.moved("Flatten", [pooled], [*x.shape[:2]])
        w = weights(b, [7, x.shape[1]], F32, x.shape[1])
        most = flat.magnitude * w.magnitude * x.shape[1]
        b.node("Gemm", [flat, w], [x.shape[0], 7], low=-most, high=most, terms=x.shape[1], exact=False, transB=1)


def _activated(b: Builder, x: Tensor) -> Tensor:
    if x.magnitude > 1000:
        ends = [b.scalar(-50, x.dtype), b.scalar(50, x.dtype)]
        return b.node("Clip", [x, *ends], x.shape, low=-50, high=50, exact=True)
    match b.rng.randrange(5):
        case 0:
            return b.node("Relu", [x], x.shape, low=0, exact=True)
        case 1:
            return _binary(b, "Mul", x, _unary(b, "Sigmoid", x, 0, 1))
        case 2:
            return b.node("HardSwish", [x], x.shape, low=-0.4, terms=4, exact=False)
        case 3:
            most = x.magnitude * 5 + 4
            affine = [b.leaf([x.shape[1], 1, 1], x.dtype) for _ in range(2)]
            return _binary(b, "Add", _binary(b, "Mul", x, affine[0]), affine[1]) if most < 2000 else x
    return x


def _gated(b: Builder, x: Tensor) -> Tensor:
    """Squeeze and excite."""
    pooled = b.node("GlobalAveragePool", [x], [*x.shape[:2], 1, 1], terms=math.prod(x.shape[2:]), exact=False)
    small = convolve(b, pooled, 4, [1, 1])
    if small is None:
        return x
    small = b.node("Relu", [small], small.shape, low=0, exact=True)
    wide = convolve(b, small, x.shape[1], [1, 1])
    return x if wide is None else _binary(b, "Mul", x, _unary(b, "HardSigmoid", wide, 0, 1))


def _shuffle(b: Builder) -> None:
    x = _image(b)
    n, c, h, w = x.shape
    group = b.rng.choice([g for g in (2, 3, 4, 8) if c % g == 0] or [1])
    y = convolve(b, x, c, [1, 1]) if b.chance(0.7) else x
    if y is None:
        return
    apart = b.moved("Reshape", [y, b.numbers_of([n, group, c // group, h, w])], [n, group, c // group, h, w])
    turned = b.moved("Transpose", [apart], [n, c // group, group, h, w], perm=[0, 2, 1, 3, 4])
    joined = b.moved("Reshape", [turned, b.numbers_of([n, c, h, w])], [n, c, h, w])
    if c > 1 and b.chance(0.7):
        half = c // 2
        shapes = [[n, half, h, w], [n, c - half, h, w]]
        left, right = b.split("Split", [joined, b.numbers_of([half, c - half])], shapes, axis=1)
        made = convolve(b, right, c - half, [3, 3], c - half if b.chance(0.5) else 1, pads=[1] * 4)
        if made is not None:
            most = max(left.magnitude, made.magnitude)
            b.node("Concat", [left, made], [n, c, h, w], low=-most, high=most, exact=True, axis=1)
    else:
        convolve(b, joined, 8, [3, 3], pads=[1] * 4)


def _rotary(b: Builder) -> None:
    n, rows, heads, half = _chosen(b, (1, 2), (1, 5, 9), (1, 2, 4), (2, 4, 8))
    x = b.leaf([n, heads, rows, 2 * half], F32)
    cos, sin = b.leaf([rows, 2 * half], F32), b.leaf([rows, 2 * half], F32)
    left, right = b.split("Split", [x, b.numbers_of([half, half])], [[n, heads, rows, half]] * 2, axis=-1)
    minus = b.node("Neg", [right], right.shape, low=-right.high, high=-right.low, grid=right.grid, exact=True)
    most = x.magnitude
    turned = b.node("Concat", [minus, left], x.shape, low=-most, high=most, grid=x.grid, exact=True, axis=-1)
    _binary(b, "Add", _binary(b, "Mul", x, cos), _binary(b, "Mul", turned, sin))


def _embedding(b: Builder) -> None:
    rows, width, n, count = _chosen(b, (3, 10, 50), (4, 8, 20), (1, 2), (1, 3, 9))
    table = b.leaf([rows, width], F32, constant=True)
    ids = b.given(b.random.integers(0, rows, (n, count)), 0, rows, constant=False)
    x = b.moved("Gather", [table, ids], [n, count, width])
    total = _binary(b, "Add", x, b.leaf([count, width], F32))
    scale, bias = b.leaf([width], F32), b.leaf([width], F32)
    most = math.sqrt(width) * scale.magnitude + bias.magnitude
    operands, terms = [total, scale, bias], width * 4
    b.node("LayerNormalization", operands, total.shape, low=-most, high=most, terms=terms, exact=False, epsilon=1e-2)


def _written_out_norm(b: Builder) -> None:
    """The mean of squares, a root, a division: as exporters write norms, over any axes."""
    x = b.pick(F32, ranks=range(1, 5))
    if 0 in x.shape or x.magnitude > 100:
        return
    axes = b.numbers_of(sorted(b.rng.sample(range(len(x.shape)), b.rng.randrange(1, len(x.shape) + 1))))
    folded = b.constants[axes.name].tolist()
    shape = [1 if d in folded else e for d, e in enumerate(x.shape)]
    count = math.prod(x.shape[d] for d in folded)
    mean = b.node("ReduceMean", [x, axes], shape, terms=count, exact=False, keepdims=1)
    centred = _binary(b, "Sub", x, mean)
    square = b.node("Mul", [centred, centred], x.shape, low=0, high=centred.magnitude**2, terms=2, exact=False)
    variance = b.node("ReduceMean", [square, axes], shape, low=0, terms=count, exact=False, keepdims=1)
    small = b.scalar(0.0625, F32)
    shifted = b.node("Add", [variance, small], shape, low=0.0625, high=variance.high + 1, terms=1, exact=False)
    root = b.node("Sqrt", [shifted], shape, low=0.25, high=math.sqrt(shifted.high), terms=1, exact=False)
    most = math.sqrt(count) * 4
    b.node("Div", [centred, root], x.shape, low=-most, high=most, terms=count * 4, exact=False)


def _gated_mlp(b: Builder) -> None:
    x = b.leaf([b.rng.choice((1, 2)), b.rng.choice((1, 5, 9)), b.rng.choice((4, 8, 24))], F32)
    width, inner = x.shape[-1], b.rng.choice((4, 16, 33))
    a, g = (_product(b, x, weights(b, [width, inner], F32, width), [*x.shape[:2], inner]) for _ in range(2))
    swish = b.chance(0.5)
    gate = _binary(b, "Mul", a, _unary(b, "Sigmoid", a, 0, 1)) if swish else _unary(b, "Gelu", a, -1, a.magnitude)
    y = _product(b, _binary(b, "Mul", gate, g), weights(b, [inner, width], F32, inner), [*x.shape])
    if b.chance(0.5):
        _binary(b, "Add", x, y)


def _masked_softmax(b: Builder) -> None:
    x = b.pick(F32, ranks=(2, 3, 4))
    if 0 in x.shape or x.magnitude > 60:
        return
    mask = b.leaf([e if b.chance(0.6) else 1 for e in x.shape], BOOL)
    hidden = b.node("Where", [mask, x, b.scalar(-50, F32)], x.shape, F32, min(x.low, -50), max(x.high, -50), exact=True)
    soft = b.node("Softmax", [hidden], x.shape, low=0, high=1, terms=x.shape[-1] + 16, exact=False, axis=-1)
    b.node("Where", [mask, soft, b.scalar(0, F32)], x.shape, F32, 0, 1, exact=True)


GENERATORS = {
    _attention: 3,
    _conv_block: 6,
    _shuffle: 3,
    _rotary: 1,
    _embedding: 1,
    _written_out_norm: 1,
    _gated_mlp: 1,
    _masked_softmax: 1,
}
