"""Random nodes that fold elements: reductions, arg-max, running sums, softmax, norms, pooling."""

from __future__ import annotations

import math

from tests.differential.builder import Builder
from tests.differential.elementwise import guarded
from tests.differential.tensors import BF16, F16, F32, F64, I32, I64, Tensor

__all__ = ["GENERATORS"]

_REDUCTIONS = ("Sum", "Sum", "Mean", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp", "LogSum")
_MOSTLY_F32 = (F32, F32, F32, F32, F64, F16, BF16)


def _axes(b: Builder, rank: int) -> list[int]:
    if b.chance(0.5):
        return [rank - 1]
    return sorted(b.rng.sample(range(rank), b.rng.randrange(1, rank + 1)))


def _reduced(shape: tuple[int, ...], axes: list[int], keep: bool) -> list[int]:
    return [1 if d in axes else e for d, e in enumerate(shape) if keep or d not in axes]


def _reduce(b: Builder) -> None:
    op = b.rng.choice(_REDUCTIONS)
    ints = (I64, I32) if op in ("Sum", "Max", "Min") else ()
    x = b.pick(*_MOSTLY_F32, *ints, ranks=range(1, 6), wild=op in ("Max", "Min"))
    axes, keep = _axes(b, len(x.shape)), b.chance(0.5)
    count = math.prod(x.shape[d] for d in axes)
    if count == 0 and op not in ("Sum", "L1", "SumSquare"):
        return
    if op == "LogSum":
        x = guarded(b, x)
    if op == "Prod":
        if count > 12 or x.magnitude > 4:
            return
    if x.dtype in (F16, BF16) and x.magnitude * count > 200:
        return
    low, high = _range_of(op, x, count)
    if max(abs(low), abs(high)) > 1e7 and x.dtype in (*_MOSTLY_F32, I32):
        return
    grid = None if x.grid is None or op in ("Mean", "L2", "LogSumExp", "LogSum") else x.grid
    grid = grid * 2 if grid is not None and op == "SumSquare" else None if op == "Prod" else grid
    exact = True if op in ("Max", "Min") else None
    given = [d - len(x.shape) if b.chance(0.3) else d for d in axes]
    b.node(
        f"Reduce{op}",
        [x, b.numbers_of(given)],
        _reduced(x.shape, axes, keep),
        low=low,
        high=high,
        grid=grid,
        terms=max(count, 8),
        exact=exact,
        keepdims=int(keep),
    )


def _range_of(op: str, x: Tensor, count: int) -> tuple[float, float]:
    most = x.magnitude
    match op:
        case "Sum":
            return min(x.low * count, 0), max(x.high * count, 0)
        case "L1":
            return 0, most * count
        case "L2":
            return 0, most * math.sqrt(count)
        case "SumSquare":
            return 0, most * most * count
        case "Prod":
            return -(most**count), max(most, 1) ** count
        case "LogSumExp":
            return x.low, x.high + math.log(max(count, 1))
        case "LogSum":
            return math.log(max(x.low * count, 1e-3)), math.log(max(x.high * count, 1))
    return x.low, x.high


def _arg(b: Builder) -> None:
    op = b.rng.choice(("ArgMax", "ArgMin"))
    x = b.pick(*_MOSTLY_F32, I64, I32, ranks=range(1, 5), exact=True)
    axis, keep = b.rng.randrange(len(x.shape)), b.chance(0.5)
    if x.shape[axis] == 0:
        return
    shape = _reduced(x.shape, [axis], keep)
    last = b.rng.randrange(2)
    b.node(op, [x], shape, I64, 0, x.shape[axis], 0, exact=True, axis=axis, keepdims=int(keep), select_last_index=last)


def _running(b: Builder) -> None:
    x = b.pick(*_MOSTLY_F32[:5], I64, I32, ranks=range(1, 5))
    axis = b.rng.randrange(len(x.shape))
    count = x.shape[axis]
    low, high = min(x.low * count, 0), max(x.high * count, 0)
    if max(abs(low), abs(high)) > 2**30:
        return
    attributes = {"exclusive": b.rng.randrange(2), "reverse": b.rng.randrange(2)}
    b.node("CumSum", [x, b.numbers_of(axis)], x.shape, low=low, high=high, grid=x.grid, terms=count, **attributes)


def _top_k(b: Builder) -> None:
    x = b.pick(F32, F32, F64, I64, ranks=range(1, 4), exact=True)
    axis = b.rng.randrange(len(x.shape))
    if x.shape[axis] == 0:
        return
    k = b.rng.randrange(1, x.shape[axis] + 1)
    shape = [k if d == axis else e for d, e in enumerate(x.shape)]
    attributes = {"axis": axis, "largest": b.rng.randrange(2)}
    values = b.node("TopK", [x, b.numbers_of([k])], shape, grid=x.grid, exact=True, **attributes)
    name = b.name("v")
    b.nodes[-1].output.append(name)
    b.tensors.append(Tensor(name, I64, tuple(values.shape), 0, x.shape[axis]))


def _softmax(b: Builder) -> None:
    x = b.pick(*_MOSTLY_F32, ranks=range(1, 6))
    axis = b.rng.choice((-1, -1, b.rng.randrange(len(x.shape))))
    count = x.shape[axis]
    if count == 0 or x.magnitude > 40:
        return
    if b.chance(0.3):
        b.node("LogSoftmax", [x], x.shape, low=-80 - math.log(count), high=0, terms=count + 16, exact=False, axis=axis)
        return
    b.node("Softmax", [x], x.shape, low=0, high=1, terms=count + 16, exact=False, axis=axis)


def _layer_norm(b: Builder) -> None:
    x = b.pick(*_MOSTLY_F32, ranks=range(1, 5))
    axis = b.rng.choice((-1, -1, b.rng.randrange(len(x.shape))))
    inner = x.shape[axis:]
    if math.prod(inner) == 0:
        return
    scale, bias = b.leaf(inner, x.dtype), b.leaf(inner, x.dtype)
    most = math.sqrt(math.prod(inner)) * scale.magnitude + bias.magnitude
    if most > 2000 or x.magnitude > 100:
        return
    operands = [x, scale, *([bias] if b.chance(0.7) else [])]
    op = b.rng.choice(("LayerNormalization", "LayerNormalization", "RMSNormalization"))
    operands = operands[:2] if op == "RMSNormalization" else operands
    terms = math.prod(inner) * 4 + 16
    b.node(op, operands, x.shape, low=-most, high=most, terms=terms, exact=False, axis=axis, epsilon=1e-2)


def _image_norm(b: Builder) -> None:
    x = b.pick(F32, F32, F32, F64, F16, ranks=(3, 4))
    channels, pixels = x.shape[1], math.prod(x.shape[2:])
    if channels == 0 or pixels == 0 or x.magnitude > 100:
        return
    op = b.rng.choice(("BatchNormalization", "InstanceNormalization", "GroupNormalization"))
    scale, bias = b.leaf([channels], x.dtype), b.leaf([channels], x.dtype)
    if op == "BatchNormalization":
        mean, spread = b.leaf([channels], x.dtype, constant=True), b.leaf([channels], x.dtype, constant=True)
        array = abs(b.constants[spread.name].astype("f8")) + 0.25
        b.constants[spread.name] = array.astype(x.dtype)
        b.tensors.remove(spread)
        most = (x.magnitude + mean.magnitude) * 2 * scale.magnitude + bias.magnitude
        b.node(op, [x, scale, bias, mean, spread], x.shape, low=-most, high=most, terms=8, exact=False)
        return
    groups = b.rng.choice([g for g in (1, 2, 3, 4) if channels % g == 0])
    count = pixels * (channels // groups if op == "GroupNormalization" else 1)
    most = math.sqrt(count) * scale.magnitude + bias.magnitude
    if most > 2000:
        return
    attributes = {"num_groups": groups} if op == "GroupNormalization" else {}
    attributes |= {"epsilon": 1e-2}
    b.node(op, [x, scale, bias], x.shape, low=-most, high=most, terms=count * 4 + 16, exact=False, **attributes)


def _pool(b: Builder) -> None:
    x = b.pick(F32, F32, F32, F64, F16, ranks=(3, 4, 4))
    spatial = len(x.shape) - 2
    if 0 in x.shape:
        return
    if b.chance(0.25):
        op = b.rng.choice(("GlobalAveragePool", "GlobalMaxPool"))
        exact, count = op == "GlobalMaxPool", math.prod(x.shape[2:])
        b.node(op, [x], [*x.shape[:2], *[1] * spatial], grid=x.grid if exact else None, terms=count, exact=exact)
        return
    op = b.rng.choice(("MaxPool", "AveragePool"))
    kernel = [b.rng.choice((1, 2, 3, 3, 5)) for _ in range(spatial)]
    strides = [b.rng.choice((1, 1, 2, 3)) for _ in range(spatial)]
    dilations = [b.rng.choice((1, 1, 1, 2)) for _ in range(spatial)]
    pads = [b.rng.choice((0, 0, 1, 2)) for _ in range(2 * spatial)]
    pads = [min(p, kernel[n % spatial] - 1) for n, p in enumerate(pads)]
    shape = list(x.shape[:2])
    for d in range(spatial):
        room = x.shape[2 + d] + pads[d] + pads[spatial + d] - dilations[d] * (kernel[d] - 1) - 1
        if room < 0:
            return
        shape.append(room // strides[d] + 1)
    attributes = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}
    if op == "AveragePool":
        attributes["count_include_pad"] = b.rng.randrange(2)
        if all(p == 0 for p in pads) or attributes["count_include_pad"] or max(dilations) == 1:
            low, high = min(x.low, 0), max(x.high, 0)
            b.node(op, [x], shape, low=low, high=high, terms=math.prod(kernel), exact=False, **attributes)
        return
    b.node(op, [x], shape, grid=x.grid, exact=True, **attributes)


GENERATORS = {_reduce: 8, _arg: 2, _running: 1, _top_k: 1, _softmax: 4, _layer_norm: 4, _image_norm: 2, _pool: 4}
