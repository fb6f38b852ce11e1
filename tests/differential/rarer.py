"""Random nodes of rarer kinds: recurrent layers, quantisation, branches and loops, sizes that data decide."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from onnx import TensorProto, helper

from tests.differential.builder import Builder
from tests.differential.tensors import BOOL, F16, F32, F64, I32, I64, U8, Tensor

__all__ = ["GENERATORS"]

I8 = np.dtype(np.int8)
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _recurrent(b: Builder) -> None:
    op = b.rng.choice(("LSTM", "LSTM", "GRU", "GRU", "RNN"))
    time, batch, width, hidden = (b.rng.choice(c) for c in ((1, 2, 5, 9), (1, 2, 3), (1, 4, 7, 16), (1, 3, 8, 17)))
    direction = b.rng.choice(("forward", "forward", "reverse", "bidirectional"))
    ways, gates = 2 if direction == "bidirectional" else 1, _GATES[op]
    x = b.leaf([time, batch, width], F32, constant=False)
    scale = 1 / math.sqrt(max(width, hidden))
    weights = []
    for shape in ([ways, gates * hidden, width], [ways, gates * hidden, hidden], [ways, 2 * gates * hidden]):
        array = (np.clip(b.random.standard_normal(shape), -3, 3) * scale).astype(np.float32)
        weights.append(b.given(array, -3, 3, None, constant=b.chance(0.85)))
    operands: list[Tensor | None] = [x, weights[0], weights[1], weights[2] if b.chance(0.8) else None]
    attributes = {"hidden_size": hidden, "direction": direction}
    if b.chance(0.4):
        lengths = b.random.integers(1, time + 1, batch).astype(np.int32)
        operands.append(b.given(lengths, 1, time, constant=False))
        operands.append(b.leaf([ways, batch, hidden], F32) if b.chance(0.5) else None)
    if op == "GRU":
        attributes["linear_before_reset"] = b.rng.randrange(2)
    shape = [time, ways, batch, hidden]
    y = b.node(op, operands, shape, low=-9, high=9, terms=64 * time, exact=False, **attributes)
    last = replace(y, name=b.name("v"), shape=(ways, batch, hidden))
    b.nodes[-1].output.append(last.name)
    b.tensors.append(last)
    if ways == 1 and b.chance(0.6):
        b.moved("Squeeze", [y, b.numbers_of([1])], [time, batch, hidden])


def _quantised(b: Builder) -> None:
    x = b.pick(F32, ranks=range(1, 5), exact=True)
    if x.magnitude > 1000:
        return
    kind = b.rng.choice((U8, I8))
    scale = b.scalar(b.rng.choice((0.5, 0.25, 2.0)), F32)
    zero = b.scalar(b.rng.choice((0, 3) if kind == U8 else (0, -3)), kind)
    low, high = (0, 255) if kind == U8 else (-128, 127)
    q = b.node("QuantizeLinear", [x, scale, zero], x.shape, kind, low, high, 0, exact=True)
    most = 300 * scale.high
    b.node("DequantizeLinear", [q, scale, zero], x.shape, F32, -most, most, 2, exact=True)


def _quantised_convolution(b: Builder) -> None:
    """Of dequantised operands; scales are powers of two, so that sums of floats are exact too."""
    group = b.rng.choice((1, 1, 1, 2, 16))
    channels, kernel = (16, 3) if group > 1 else (b.rng.choice((8, 11, 16, 20)), b.rng.choice((1, 3, 3)))
    outputs, side = group * b.rng.choice((1, 4, 17)), [b.rng.choice((3, 5, 9)) for _ in range(2)]
    kind = b.rng.choice((U8, I8))
    zero = b.scalar(b.rng.choice((0, 3, 128) if kind == U8 else (-128, 0, -3)), kind)
    scale = b.scalar(0.25, F32)
    image = b.leaf([b.rng.choice((1, 2)), channels, *side], F32, constant=False)
    low, high = (0, 255) if kind == U8 else (-128, 127)
    q = b.node("QuantizeLinear", [image, scale, zero], image.shape, kind, low, high, 0, exact=True)
    x = b.node("DequantizeLinear", [q, scale, zero], q.shape, F32, -75, 75, 2, exact=True)
    bytes_ = b.random.integers(-128, 128, (outputs, channels // group, kernel, kernel)).astype(np.int8)
    levels = b.given(bytes_, -128, 127, constant=b.chance(0.9))
    steps = np.exp2(-b.random.integers(5, 7, outputs)).astype(np.float32) if b.chance(0.5) else np.float32(2.0**-5)
    step = b.given(np.asarray(steps), 0, 0.04, 6, constant=True)
    w = b.node("DequantizeLinear", [levels, step], levels.shape, F32, -4, 4, 6, exact=True, axis=0)
    pads = [b.rng.choice((0, 1)) for _ in range(4)]
    stride = b.rng.choice((1, 1, 2))
    shape = [image.shape[0], outputs, *((side[d] + pads[d] + pads[2 + d] - kernel) // stride + 1 for d in range(2))]
    count = channels // group * kernel * kernel
    bias = b.leaf([outputs], F32) if b.chance(0.6) else None
    exact = bias is None or bias.grid is not None
    y = b.node(
        "Conv", [x, w, bias], shape, low=-300 * count - 40, high=300 * count + 40, grid=8 if exact else None,
        terms=max(count, 8), exact=exact or None, kernel_shape=[kernel] * 2, group=group, pads=pads,
        strides=[stride] * 2,
    )  # fmt: skip
    if exact and b.chance(0.6):
        coarse = b.scalar(64.0, F32)
        b.node("QuantizeLinear", [y, coarse, zero], shape, kind, low, high, 0, exact=True)


def _integer_product(b: Builder) -> None:
    n, k, m = (b.rng.choice((1, 3, 8, 17)) for _ in range(3))
    x = b.given(b.random.integers(0, 256, (n, k)).astype(np.uint8), 0, 255, constant=False)
    kind = b.rng.choice((U8, I8))
    low, high = (0, 255) if kind == U8 else (-128, 127)
    w = b.given(b.random.integers(low, high + 1, (k, m)).astype(kind), low, high, constant=b.chance(0.8))
    zeros = [b.scalar(3, U8), b.scalar(1, kind)] if b.chance(0.7) else []
    most = 256 * 256 * k
    product = b.node("MatMulInteger", [x, w, *zeros], [n, m], I32, -most, most, 0, exact=True)
    if b.chance(0.5):
        b.node("Cast", [product], [n, m], F32, -most, most, 0, exact=True, to=TensorProto.FLOAT)


def _dynamic(b: Builder) -> None:
    """Sizes that are known only when it runs."""
    x = b.pick(F32, F32, I64, F64, ranks=(1, 2, 3), exact=True)
    if 0 in x.shape:
        return
    condition = b.node("Greater", [x, b.scalar(0, x.dtype)], x.shape, BOOL, 0, 1, 0, exact=True)
    flat = b.moved("Reshape", [x, b.numbers_of([-1])], [x.size])
    mask = b.moved("Reshape", [condition, b.numbers_of([-1])], [x.size])
    kept = b.moved("Compress", [flat, mask], [1], axis=0)
    b.tensors = b.tensors[:-1]  # nothing but these reads it, for its size is not known
    negative = b.node("Neg", [kept], [1], low=-kept.high, high=-kept.low, grid=kept.grid, exact=True)
    b.tensors = b.tensors[:-1]
    total = negative.magnitude * x.size
    b.node("ReduceSum", [negative], [], low=-total, high=total, grid=negative.grid, terms=x.size, keepdims=0)


def _branch(b: Builder) -> None:
    x = b.pick(F32, ranks=range(4))
    condition = b.leaf([], BOOL, constant=False)
    name = b.name("b")
    double = helper.make_node("Add", [x.name, x.name], [f"{name}t"], name=f"{name}Double")
    minus = helper.make_node("Neg", [x.name], [f"{name}f"], name=f"{name}Minus")
    graphs = {}
    for key, node in (("then_branch", double), ("else_branch", minus)):
        value = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, list(x.shape))
        graphs[key] = helper.make_graph([node], f"{name}{key}", [], [value])
    most = 2 * x.magnitude
    b.readers[x.name] = b.readers.get(x.name, 0) + 1
    grid = x.grid if x.exact else None
    b.node("If", [condition], x.shape, F32, -most, most, grid, terms=x.terms + 1, exact=x.exact, **graphs)


def _loop(b: Builder) -> None:
    """x = x * 0.5 + c, some times over."""
    x = b.pick(F32, ranks=range(1, 4))
    count = b.rng.choice((0, 1, 3))
    if x.magnitude > 100:
        return
    name, shape = b.name("l"), list(x.shape)
    half = helper.make_node("Constant", [], [f"{name}h"], value=helper.make_tensor("h", TensorProto.FLOAT, [], [0.5]))
    nodes = [
        half,
        helper.make_node("Mul", [f"{name}in", f"{name}h"], [f"{name}m"]),
        helper.make_node("Add", [f"{name}m", f"{name}h"], [f"{name}out"]),
        helper.make_node("Identity", [f"{name}go"], [f"{name}on"]),
    ]
    info = helper.make_tensor_value_info
    inputs = [info(f"{name}i", TensorProto.INT64, []), info(f"{name}go", TensorProto.BOOL, [])]
    inputs.append(info(f"{name}in", TensorProto.FLOAT, shape))
    outputs = [info(f"{name}on", TensorProto.BOOL, []), info(f"{name}out", TensorProto.FLOAT, shape)]
    body = helper.make_graph(nodes, f"{name}body", inputs, outputs)
    times = b.numbers_of(count)
    result = replace(x, name=b.name("v"), low=-x.magnitude - 1, high=x.magnitude + 1).inexact(2 * count + 1)
    b.add("Loop", [times, None, x], [result.name], {"body": body})
    b.tensors.append(result)


def _attention_op(b: Builder) -> None:
    n, heads, queries, keys, size = (b.rng.choice(c) for c in ((1, 2), (1, 2, 4), (1, 3, 9), (1, 3, 17), (4, 8)))
    shared = b.rng.choice([h for h in (1, 2, heads) if heads % h == 0])
    dtype = F32 if b.chance(0.9) else F16
    q = b.leaf([n, heads, queries, size], dtype)
    k, v = (b.leaf([n, shared, keys, size], dtype) for _ in range(2))
    if q.magnitude > 4 or k.magnitude > 4:
        return
    operands = [q, k, v, *([b.leaf([queries, keys], dtype)] if b.chance(0.4) else [])]
    attributes = {"is_causal": b.rng.randrange(2)}
    terms = 4 * (keys + size)
    low, high = v.low - 1, v.high + 1
    b.node("Attention", operands, q.shape, low=low, high=high, terms=terms, exact=False, **attributes)


def _small(b: Builder) -> None:
    op = b.rng.choice(("Shrink", "ThresholdedRelu", "Hardmax", "LpNormalization", "LRN", "MeanVarianceNormalization"))
    x = b.pick(F32, F32, F64, ranks=(4,) if op in ("LRN", "MeanVarianceNormalization") else range(1, 5), exact=True)
    if 0 in x.shape or x.magnitude > 100:
        return
    match op:
        case "Shrink":
            b.node(op, [x], x.shape, low=x.low - 1, high=x.high + 1, grid=x.grid, terms=2, lambd=0.5, bias=0.0)
        case "ThresholdedRelu":
            b.node(op, [x], x.shape, low=0, high=max(x.high, 0), grid=x.grid, exact=True, alpha=1.0)
        case "Hardmax":
            b.node(op, [x], x.shape, low=0, high=1, grid=0, exact=True, axis=b.rng.randrange(len(x.shape)))
        case "LpNormalization" if x.dtype == F32:
            far = b.scalar(200, F32)
            y = b.node("Add", [x, far], x.shape, low=x.low + 200, high=x.high + 200, terms=1, exact=False)
            b.node(op, [y], x.shape, low=0, high=1, terms=64, exact=False, p=b.rng.choice((1, 2)), axis=-1)
        case "LRN":
            b.node(op, [x], x.shape, terms=16, exact=False, size=b.rng.choice((1, 3, 5)))
        case _:
            return


GENERATORS = {
    _recurrent: 3,
    _quantised: 2,
    _quantised_convolution: 2,
    _integer_product: 2,
    _dynamic: 1,
    _branch: 1,
    _loop: 1,
    _attention_op: 2,
    _small: 2,
}
