"""Models full of concatenations: random ones, and the growth of a DenseNet."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["dense_block", "inputs_of", "random_model"]

BATCH, SIDE = 2, 6
_LARGEST = 24  # along the axis that is joined


class _Maker:
    """A random model under construction: values by name with their shapes."""

    def __init__(self, seed: int, symbolic: bool) -> None:
        self.random = np.random.default_rng(seed)
        self.symbolic = symbolic
        self.images = bool(self.random.integers(2))
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.names = (f"v{n}" for n in itertools.count())

    def add(self, op: str, operands: list[str], shape: tuple[int, ...], **attributes: object) -> str:
        name = next(self.names)
        self.nodes.append(helper.make_node(op, operands, [name], name=f"n_{name}", **attributes))
        self.shapes[name] = shape
        return name

    def constant(self, *shape: int) -> str:
        name = next(self.names)
        values = self.random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        self.constants.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def pick(self) -> str:
        return str(self.random.choice(list(self.shapes)[-4:]))

    def grow(self) -> None:
        kinds = [self.unary, self.unary, self.sum, self.product, self.product, self.join, self.join, self.join]
        kinds[int(self.random.integers(len(kinds)))]()

    def unary(self) -> None:
        name = self.pick()
        self.add(str(self.random.choice(["Relu", "Sigmoid", "Neg"])), [name], self.shapes[name])

    def sum(self) -> None:
        name = self.pick()
        same = [other for other, shape in self.shapes.items() if shape == self.shapes[name]]
        self.add("Add", [name, str(self.random.choice(same))], self.shapes[name])

    def product(self) -> None:
        name = self.pick()
        shape, width = self.shapes[name], int(self.random.integers(1, 9))
        if not self.images:
            self.add("MatMul", [name, self.constant(shape[-1], width)], (*shape[:-1], width))
            return
        size = int(self.random.choice([1, 3]))
        pads = [size // 2] * 4
        self.add("Conv", [name, self.constant(width, shape[1], size, size)], (shape[0], width, *shape[2:]), pads=pads)

    def join(self) -> None:
        name = self.pick()
        shape = self.shapes[name]
        axis = int(self.random.integers(1 if self.symbolic else 0, len(shape)))
        fit = [v for v, s in self.shapes.items() if (*s[:axis], *s[axis + 1 :]) == (*shape[:axis], *shape[axis + 1 :])]
        count = int(self.random.integers(2, 4))
        twice = count > len(fit) or self.random.integers(8) == 0
        operands = [str(v) for v in self.random.choice(fit, count, replace=twice)]
        total = sum(self.shapes[v][axis] for v in operands)
        if total <= _LARGEST:
            self.add("Concat", operands, (*shape[:axis], total, *shape[axis + 1 :]), axis=axis)


def random_model(seed: int, *, symbolic: bool = False, steps: int = 14) -> onnx.ModelProto:
    """Concatenations along every axis between convolutions or products, sums and activations.

    Values are shared by several readers and concatenations; inputs, constants and outputs are joined too. symbolic: the
    first dimension has a name instead of a size.
    """
    made = _Maker(seed, symbolic)
    shape = (BATCH, 5, SIDE, SIDE) if made.images else (BATCH, SIDE, 5)
    made.shapes["x"] = shape
    while len(made.nodes) < steps:
        made.grow()
    read = {name for node in made.nodes for name in node.input}
    unread = [v for v in made.shapes if v not in read]
    inner = [v for v in made.shapes if v != "x" and made.random.integers(16) == 0]
    outputs = [*(made.add("Tanh", [v], made.shapes[v]) for v in unread), *inner]
    graph = helper.make_graph(
        made.nodes,
        f"joined{seed}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape[1:]] if symbolic else shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        made.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def inputs_of(model: onnx.ModelProto, batch: int = BATCH) -> dict[str, np.ndarray]:
    """The input of such a model."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    shape = [batch, *(d.dim_value for d in dims[1:])]
    return {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}


def dense_block(layers: int = 4, growth: int = 8) -> onnx.ModelProto:
    """Each layer reads all results before it, joined; the last thing that happens to them is a convolution."""
    made = _Maker(0, symbolic=False)
    size = (1, 16, 8, 8)
    made.shapes["x"] = (1, 3, 8, 8)
    parts = [made.add("Conv", ["x", made.constant(16, 3, 3, 3)], size, pads=[1, 1, 1, 1])]
    for _ in range(layers):
        channels = sum(made.shapes[v][1] for v in parts)
        whole = parts[0]
        if len(parts) > 1:
            whole = made.add("Concat", list(parts), (1, channels, 8, 8), axis=1)
        scaled = made.add("Mul", [whole, made.constant(1, channels, 1, 1)], (1, channels, 8, 8))
        active = made.add("Relu", [scaled], (1, channels, 8, 8))
        narrow = made.add("Conv", [active, made.constant(24, channels, 1, 1)], (1, 24, 8, 8))
        narrow = made.add("Relu", [narrow], (1, 24, 8, 8))
        parts.append(made.add("Conv", [narrow, made.constant(growth, 24, 3, 3)], (1, growth, 8, 8), pads=[1, 1, 1, 1]))
    channels = sum(made.shapes[v][1] for v in parts)
    whole = made.add("Concat", parts, (1, channels, 8, 8), axis=1)
    active = made.add("Relu", [whole], (1, channels, 8, 8))
    result = made.add("Conv", [active, made.constant(4, channels, 1, 1)], (1, 4, 8, 8))
    graph = helper.make_graph(
        made.nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)],
        made.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
