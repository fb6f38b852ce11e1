"""Random nodes that move elements: views, joins, cuts, gathers, padding, resizing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tests.differential.builder import Builder
from tests.differential.tensors import BOOL, F16, F32, F64, I32, I64, U8, Tensor

__all__ = ["GENERATORS"]

_ANY = (F32, F32, F32, F32, F64, F16, I64, I32, U8, BOOL)


def _transpose(b: Builder) -> None:
    x = b.pick(*_ANY, wild=True)
    if not x.shape:
        return
    order = list(range(len(x.shape)))
    b.rng.shuffle(order)
    b.moved("Transpose", [x], [x.shape[d] for d in order], perm=order)


def _factors(b: Builder, total: int) -> list[int]:
    """Sizes whose product is `total`, at random."""
    found: list[int] = []
    while total > 1 and len(found) < 4:
        divisors = [d for d in range(2, total + 1) if total % d == 0][:12]
        found.append(b.rng.choice(divisors))
        total //= found[-1]
    found += [total] if total != 1 else []
    for _ in range(b.rng.choice((0, 0, 1, 2))):
        found.insert(b.rng.randrange(len(found) + 1), 1)
    return found


def _reshape(b: Builder) -> None:
    x = b.pick(*_ANY, wild=True)
    if 0 in x.shape:
        return
    shape = _factors(b, x.size)
    if len(x.shape) > 1 and b.chance(0.5):  # keep the first dimensions, as models do
        keep = b.rng.randrange(1, len(x.shape))
        shape = [*x.shape[:keep], *_factors(b, math.prod(x.shape[keep:]))]
    asked = list(shape)
    if asked and b.chance(0.4):
        asked[b.rng.randrange(len(asked))] = -1
    b.moved("Reshape", [x, b.numbers_of(asked)], shape)


def _squeeze(b: Builder) -> None:
    x = b.pick(*_ANY, wild=True)
    ones = [d for d, e in enumerate(x.shape) if e == 1]
    if ones and b.chance(0.6):
        axes = b.rng.sample(ones, b.rng.randrange(1, len(ones) + 1))
        b.moved("Squeeze", [x, b.numbers_of(sorted(axes))], [e for d, e in enumerate(x.shape) if d not in axes])
    elif len(x.shape) < 6:
        axis = b.rng.randrange(len(x.shape) + 1)
        shape = [*x.shape[:axis], 1, *x.shape[axis:]]
        b.moved("Unsqueeze", [x, b.numbers_of([axis])], shape)


def _flatten(b: Builder) -> None:
    x = b.pick(*_ANY)
    axis = b.rng.randrange(len(x.shape) + 1)
    b.moved("Flatten", [x], [math.prod(x.shape[:axis]), math.prod(x.shape[axis:])], axis=axis)


def _expand(b: Builder) -> None:
    x = b.pick(*_ANY, wild=True)
    shape = [b.extent() if e == 1 and b.chance(0.7) else e for e in x.shape]
    if len(shape) < 5 and b.chance(0.3):
        shape.insert(0, b.extent())
    if math.prod(shape) > b.largest:
        return
    if b.chance(0.3) and shape:
        repeats = [b.rng.choice((1, 1, 2, 3)) for _ in x.shape]
        shape = [e * r for e, r in zip(x.shape, repeats, strict=True)]
        if math.prod(shape) <= b.largest:
            b.moved("Tile", [x, b.numbers_of(repeats)], shape)
        return
    b.moved("Expand", [x, b.numbers_of(shape)], shape)


def _cut(b: Builder, extent: int) -> tuple[int, int, int, int]:
    """start, end, step as Slice takes them, and how many elements that gives."""
    step = b.rng.choice((1, 1, 1, 2, 3, -1, -2))
    start, end = sorted(b.rng.randrange(-extent - 1, extent + 2) for _ in range(2))
    if step < 0:
        start, end = end, start
    if b.chance(0.2):
        end = 2**40 if step > 0 else -(2**40)
    return start, end, step, len(range(extent)[slice(start, _end(end, step, extent), step)])


def _end(end: int, step: int, extent: int) -> int | None:
    """ONNX clamps where Python counts from the back."""
    return None if step < 0 and end < -extent else end


def _slice(b: Builder) -> None:
    x = b.pick(*_ANY, ranks=range(1, 6), wild=True)
    axes = b.rng.sample(range(len(x.shape)), b.rng.randrange(1, len(x.shape) + 1))
    cuts = [_cut(b, x.shape[axis]) for axis in axes]
    shape = list(x.shape)
    for axis, (*_, count) in zip(axes, cuts, strict=True):
        shape[axis] = count
    if 0 in shape and not b.chance(0.1):
        return
    starts, ends, steps = ([cut[n] for cut in cuts] for n in range(3))
    given = [axis - len(x.shape) if b.chance(0.3) else axis for axis in axes]
    b.moved("Slice", [x, *(b.numbers_of(v) for v in (starts, ends, given, steps))], shape)


def _split(b: Builder) -> None:
    x = b.pick(*_ANY, ranks=range(1, 6))
    axis = b.rng.randrange(len(x.shape))
    extent, count = x.shape[axis], b.rng.choice((2, 2, 3, 4))
    if extent < count:
        return
    ends = sorted(b.rng.sample(range(1, extent), count - 1))
    sizes = [after - before for before, after in zip([0, *ends], [*ends, extent], strict=True)]
    if extent % count == 0 and b.chance(0.6):
        sizes = [extent // count] * count
    shapes = [[*x.shape[:axis], size, *x.shape[axis + 1 :]] for size in sizes]
    b.split("Split", [x, b.numbers_of(sizes)], shapes, axis=axis)


def _concat(b: Builder) -> None:
    x = b.pick(*_ANY, ranks=range(1, 6))
    axis = b.rng.randrange(len(x.shape))
    around = x.shape[:axis] + x.shape[axis + 1 :]
    fit = [
        t
        for t in b.tensors
        if t.dtype == x.dtype and len(t.shape) == len(x.shape) and t.shape[:axis] + t.shape[axis + 1 :] == around
        if not t.wild
    ]
    parts = [x, *(b.rng.choice(fit) for _ in range(b.rng.choice((1, 1, 2, 3))) if fit)]
    if b.chance(0.3):
        parts.append(b.leaf([*x.shape[:axis], b.extent(), *x.shape[axis + 1 :]], x.dtype))
    b.rng.shuffle(parts)
    shape = [*x.shape[:axis], sum(t.shape[axis] for t in parts), *x.shape[axis + 1 :]]
    if math.prod(shape) > b.largest:
        return
    grids = [t.grid for t in parts]
    grid = None if None in grids else max(g for g in grids if g is not None)
    low, high = min(t.low for t in parts), max(t.high for t in parts)
    b.node("Concat", parts, shape, x.dtype, low, high, grid, exact=True, axis=axis)


def _pad(b: Builder) -> None:
    x = b.pick(*_ANY, ranks=range(1, 6))
    mode = b.rng.choice(("constant", "constant", "constant", "edge", "reflect", "wrap"))
    before, after = ([b.rng.choice((0, 0, 1, 2)) for _ in x.shape] for _ in range(2))
    if mode == "constant" and b.chance(0.2):
        before[b.rng.randrange(len(before))] = -1  # a crop
    shape = [e + p + q for e, p, q in zip(x.shape, before, after, strict=True)]
    if math.prod(shape) > b.largest or min(shape) < 0:
        return
    if mode != "constant" and min(x.shape) < 3:
        return
    value: Tensor | None = None
    if mode == "constant" and b.chance(0.5):
        value = b.scalar(b.rng.choice((-1, 0.5, 2)) if x.dtype in (F32, F64, F16) else 1, x.dtype)
    number = 0.0 if value is None else value.low
    grid = None if x.grid is None else max(x.grid, 1)
    operands = [x, b.numbers_of([*before, *after]), *([value] if value else [])]
    low, high = min(x.low, number), max(x.high, number)
    b.node("Pad", operands, shape, low=low, high=high, grid=grid, exact=True, mode=mode)


def _gather(b: Builder) -> None:
    x = b.pick(*_ANY, ranks=range(1, 5), wild=True)
    axis = b.rng.randrange(len(x.shape))
    if x.shape[axis] == 0:
        return
    shape = b.shape(b.rng.choice((0, 1, 1, 2)))
    whole = [*x.shape[:axis], *shape, *x.shape[axis + 1 :]]
    if math.prod(whole) > b.largest:
        return
    least = -x.shape[axis] if b.chance(0.5) else 0
    array = b.random.integers(least, x.shape[axis], shape)
    indices = b.given(np.asarray(array, b.rng.choice((I64, I64, I32))), least, x.shape[axis] - 1)
    b.moved("Gather", [x, indices], whole, axis=axis)


def _gather_elements(b: Builder) -> None:
    x = b.pick(*_ANY, ranks=range(1, 5))
    axis = b.rng.randrange(len(x.shape))
    if 0 in x.shape:
        return
    shape = [b.rng.randrange(1, 6) if d == axis else b.rng.randrange(1, e + 1) for d, e in enumerate(x.shape)]
    indices = b.given(b.random.integers(0, x.shape[axis], shape), 0, x.shape[axis] - 1)
    if b.chance(0.3):
        updates = b.leaf(shape, x.dtype)
        low, high = min(x.low, updates.low), max(x.high, updates.high)
        grid = None if None in (x.grid, updates.grid) else max(x.grid or 0, updates.grid or 0)
        if shape[axis] > 1:  # two updates of one element: which one stays is not defined
            return
        b.node("ScatterElements", [x, indices, updates], x.shape, x.dtype, low, high, grid, exact=True, axis=axis)
        return
    b.moved("GatherElements", [x, indices], shape, axis=axis)


def _gather_nd(b: Builder) -> None:
    x = b.pick(*_ANY, ranks=range(1, 5))
    if 0 in x.shape:
        return
    depth = b.rng.randrange(1, len(x.shape) + 1)
    rows = b.rng.randrange(1, 7)
    array = np.stack([b.random.integers(0, x.shape[d], rows) for d in range(depth)], axis=-1)
    indices = b.given(array, 0, max(x.shape) - 1)
    b.moved("GatherND", [x, indices], [rows, *x.shape[depth:]])


def _resize(b: Builder) -> None:
    x = b.pick(F32, F32, F32, F64, F16, ranks=(3, 4))
    if 0 in x.shape:
        return
    mode = b.rng.choice(("nearest", "nearest", "linear", "cubic"))
    spatial = len(x.shape) - 2
    scales = [b.rng.choice((1, 2, 2, 3, 0.5, 1.5)) for _ in range(spatial)]
    shape = [*x.shape[:2], *(math.floor(e * s) for e, s in zip(x.shape[2:], scales, strict=True))]
    if 0 in shape or math.prod(shape) > b.largest:
        return
    names = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    attributes = {"mode": mode, "coordinate_transformation_mode": b.rng.choice(names)}
    if mode == "nearest":
        attributes["nearest_mode"] = b.rng.choice(("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"))
    name = b.name("s")
    b.constants[name] = np.asarray([1, 1, *scales], np.float32)
    factors = Tensor(name, F32, (len(x.shape),), 0, 3)
    if mode == "nearest":
        b.moved("Resize", [x, None, factors], shape, **attributes)
    else:
        most = x.magnitude * (1 if mode == "linear" else 2)
        b.node("Resize", [x, None, factors], shape, low=-most, high=most, terms=16, exact=False, **attributes)


def _depth_space(b: Builder) -> None:
    x = b.pick(F32, F32, F32, F64, ranks=(4,))
    n, c, h, w = x.shape
    if c % 4 == 0 and c and b.chance(0.5):
        b.moved("DepthToSpace", [x], [n, c // 4, h * 2, w * 2], blocksize=2, mode=b.rng.choice(("DCR", "CRD")))
    elif h % 2 == 0 and w % 2 == 0:
        b.moved("SpaceToDepth", [x], [n, c * 4, h // 2, w // 2], blocksize=2)


def _triangle(b: Builder) -> None:
    x = b.pick(F32, F32, F64, I64, ranks=(2, 3, 4))
    k = b.rng.randrange(-2, 3)
    low, high, upper = min(x.low, 0), max(x.high, 0), b.rng.randrange(2)
    b.node("Trilu", [x, b.numbers_of(k)], x.shape, low=low, high=high, grid=x.grid, exact=True, upper=upper)


def _shape_chain(b: Builder) -> None:
    """Reshape by a shape that the graph computes."""
    x = b.pick(F32, F32, F64, I64, ranks=range(2, 5))
    if 0 in x.shape:
        return
    whole = b.node("Shape", [x], [len(x.shape)], I64, 0, 1000, 0)
    first = b.node("Gather", [whole, b.numbers_of(0)], [], I64, 0, 1000, 0, axis=0)
    row = b.node("Unsqueeze", [first, b.numbers_of([0])], [1], I64, 0, 1000, 0)
    asked = b.node("Concat", [row, b.numbers_of([-1])], [2], I64, -1, 1000, 0, axis=0)
    b.tensors = [t for t in b.tensors if t not in (whole, first, row, asked)]
    b.moved("Reshape", [x, asked], [x.shape[0], math.prod(x.shape[1:])])


def _one_hot(b: Builder) -> None:
    depth = b.rng.randrange(1, 9)
    shape = b.shape(b.rng.choice((0, 1, 2)))
    if math.prod(shape) * depth > b.largest:
        return
    indices = b.given(b.random.integers(-depth, depth, shape), -depth, depth - 1)
    name = b.name("s")
    dtype = b.rng.choice((F32, F32, I64))
    b.constants[name] = np.asarray([0, 1], dtype)
    ends = Tensor(name, dtype, (2,), 0, 1)
    b.node("OneHot", [indices, b.numbers_of(depth), ends], [*shape, depth], dtype, 0, 1, 0, exact=True)


def _range_mask(b: Builder) -> None:
    """Positions compared with lengths: the mask that decoders make."""
    n, most = b.rng.randrange(1, 5), b.rng.randrange(1, 20)
    lengths = b.given(b.random.integers(0, most + 1, (n, 1)), 0, most, constant=False)
    positions = b.numbers_of(list(range(most)))
    b.node("Less", [replace(positions, shape=(most,)), lengths], [n, most], BOOL, 0, 1, 0, exact=True)


GENERATORS = {
    _transpose: 6,
    _reshape: 6,
    _squeeze: 3,
    _flatten: 1,
    _expand: 3,
    _slice: 5,
    _split: 2,
    _concat: 4,
    _pad: 3,
    _gather: 3,
    _gather_elements: 1,
    _gather_nd: 1,
    _resize: 2,
    _depth_space: 1,
    _triangle: 1,
    _shape_chain: 1,
    _one_hot: 1,
    _range_mask: 1,
}
