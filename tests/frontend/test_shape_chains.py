"""Shapes computed from shapes, as exporters write them: every dimension is an expression of the inputs' symbols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fusible.compiler.frontend.convert import import_model
from fusible.compiler.frontend.load import load_model
from fusible.compiler.ir.evaluate import evaluate_graph
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.symbol_values import evaluate
from fusible.compiler.ir.symbols import dim_text
from fusible.compiler.ir.types import TensorType
from fusible.compiler.options import Limits
from tests import oracle

END = 2**63 - 1


class Chain:
    """Writes ONNX nodes as an exporter does; names are made up."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, op: str, *operands: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node; the name of its only output, or of the first of several: they end in 0, 1, ..."""
        stem = f"{op.lower()}_{len(self.nodes)}"
        names = [stem] if outputs == 1 else [f"{stem}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, operands, names, **attributes))
        return stem

    def ints(self, *values: int) -> str:
        """An int64 vector."""
        return self.array(np.array(values, np.int64))

    def scalar(self, value: int) -> str:
        """An int64 scalar."""
        return self.array(np.array(value, np.int64))

    def array(self, array: np.ndarray) -> str:
        """Any constant."""
        name = f"c_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def size(self, x: str, axis: int) -> str:
        """`x.size(axis)`, a scalar."""
        return self("Gather", self("Shape", x), self.scalar(axis), axis=0)

    def vector(self, *parts: str | int) -> str:
        """Scalars and numbers joined to a vector, each unsqueezed on its own."""
        rows = [self.ints(p) if isinstance(p, int) else self("Unsqueeze", p, self.ints(0)) for p in parts]
        return self("Concat", *rows, axis=0)

    def expand(self, x: str, *parts: str | int) -> str:
        """`x.expand(...)` of the TorchScript exporter, where -1 keeps a dimension."""
        shape = self.vector(*parts)
        one = numpy_helper.from_array(np.array([1], np.int64))
        ones = self("ConstantOfShape", self("Shape", shape), value=one)
        kept = self("Equal", shape, self("Mul", ones, self.scalar(-1)))
        return self("Expand", x, self("Where", kept, ones, shape))


Build = Callable[[Chain], str]
# name: (shape of the float32 input x, builder, expected shape of the result)
CHAINS: dict[str, tuple[tuple[str | int, ...], Build, str]] = {}


def chain(result: str, *shape: str | int) -> Callable[[Build], Build]:
    def register(build: Build) -> Build:
        CHAINS[build.__name__] = (shape, build, result)
        return build

    return register


@chain("n, 3*h*w", "n", 3, "h", "w")
def view_of_batch_and_rest(c: Chain) -> str:
    return c("Reshape", "x", c.vector(c.size("x", 0), -1))


@chain("2*n, 3", "n", 6)
def twice_the_batch(c: Chain) -> str:
    return c("Reshape", "x", c.vector(c("Mul", c.size("x", 0), c.scalar(2)), 3))


@chain("n, s, 48", "n", "s", 48)
def heads_and_back(c: Chain) -> str:
    n, s = c.size("x", 0), c.size("x", 1)
    heads = c("Transpose", c("Reshape", "x", c.vector(n, s, 6, 8)), perm=[0, 2, 1, 3])
    scores = c("MatMul", heads, c("Transpose", heads, perm=[0, 1, 3, 2]))
    context = c("Transpose", c("MatMul", c("Softmax", scores), heads), perm=[0, 2, 1, 3])
    width = c("Mul", c.size(context, -2), c.size(context, -1))
    return c("Reshape", context, c.vector(c.size(context, 0), c.size(context, 1), width))


@chain("n*s, 48", "n", "s", 48)
def rows_of_a_classifier(c: Chain) -> str:
    return c("Reshape", "x", c.vector(-1, c.size("x", -1)))


@chain("n, 1, s, s", "n", "s")
def causal_mask(c: Chain) -> str:
    s = c.size("x", 1)
    steps = c("Range", c.scalar(0), s, c.scalar(1))
    future = c("Greater", c("Unsqueeze", steps, c.ints(0)), c("Unsqueeze", steps, c.ints(1)))
    return c.expand(c("Unsqueeze", c("Cast", future, to=TensorProto.FLOAT), c.ints(0, 1)), c.size("x", 0), 1, s, s)


@chain("n, 1, s, s", "n", "s")
def expanded_padding_mask(c: Chain) -> str:
    mask = c("Unsqueeze", c("Unsqueeze", "x", c.ints(1)), c.ints(2))
    return c.expand(mask, -1, 1, c.size("x", 1), -1)


@chain("n, s", "n", "s", 4)
def default_attention_mask(c: Chain) -> str:
    one = numpy_helper.from_array(np.ones(1, np.float32))
    return c("ConstantOfShape", c("Slice", c("Shape", "x"), c.ints(0), c.ints(2)), value=one)


@chain("n, s, 4", "n", "s", 4)
def position_embedding(c: Chain) -> str:
    table = c.array(np.arange(40, dtype=np.float32).reshape(10, 4))
    ids = c.array(np.arange(10, dtype=np.int64)[None])
    some = c("Slice", ids, c.ints(0), c("Unsqueeze", c.size("x", 1), c.ints(0)), c.ints(1))
    return c("Add", "x", c("Gather", table, some, axis=0))


@chain("s, s", "n", "s", 4)
def triangle_of_ones(c: Chain) -> str:
    s = c.size("x", 1)
    one = numpy_helper.from_array(np.ones(1, np.float32))
    return c("Trilu", c("ConstantOfShape", c.vector(s, s), value=one), c.scalar(1), upper=0)


@chain("n, 4, 2*h, 2*w", "n", 4, "h", "w")
def nearest_upsampling_by_shapes(c: Chain) -> str:
    n, h, w = (c.size("x", d) for d in (0, 2, 3))
    grid = c("Unsqueeze", c("Unsqueeze", "x", c.ints(3)), c.ints(5))
    double = [c("Mul", d, c.scalar(2)) for d in (h, w)]
    return c("Reshape", c("Expand", grid, c.vector(n, 4, h, 2, w, 2)), c.vector(n, 4, *double))


@chain("n, 4, h, w", "n", 8, "h", "w")
def channel_shuffle_then_half(c: Chain) -> str:
    n, h, w = (c.size("x", d) for d in (0, 2, 3))
    groups = c("Div", c.size("x", 1), c.scalar(2))
    cut = c("Transpose", c("Reshape", "x", c.vector(n, 2, groups, h, w)), perm=[0, 2, 1, 3, 4])
    return c("Split", c("Reshape", cut, c.vector(n, -1, h, w)), axis=1, outputs=2) + "_1"


@chain("n, h + mod(6*mod(h, 7), 7), 8", "n", "h", 8)
def padding_to_a_multiple(c: Chain) -> str:
    seven = c.scalar(7)
    lack = c("Mod", c("Sub", seven, c("Mod", c.size("x", 1), seven)), seven)
    return c("Pad", "x", c.vector(0, 0, 0, 0, lack, 0))


@chain("floordiv(h, 4)*n, 4, 8", "n", "h", 8)
def windows(c: Chain) -> str:
    n, count = c.size("x", 0), c("Div", c.size("x", 1), c.scalar(4))
    cut = c("Reshape", "x", c.vector(n, count, 4, 8))
    return c("Reshape", cut, c.vector(c("Mul", n, count), 4, 8))


@chain("w, h", 1, "h", "w")
def sizes_by_split(c: Chain) -> str:
    pieces = c("Split", c("Shape", "x"), axis=0, outputs=3)
    return c("Reshape", c("Transpose", "x", perm=[0, 2, 1]), c("Concat", f"{pieces}_2", f"{pieces}_1", axis=0))


@chain("h*n*w", "n", "h", "w")
def number_of_elements(c: Chain) -> str:
    return c("Reshape", "x", c("ReduceProd", c("Shape", "x"), keepdims=1))


@chain("n, 6", "n", 2, 3)
def flattened_by_slices_of_the_shape(c: Chain) -> str:
    shape = c("Shape", "x")
    rest = c("ReduceProd", c("Slice", shape, c.ints(1), c.ints(END)), axes=[0], keepdims=1)
    return c("Reshape", "x", c("Concat", c("Slice", shape, c.ints(0), c.ints(1)), rest, axis=0))


@chain("n, h, w", "n", "h*w", "h", "w")
def reduced_sizes_are_kept(c: Chain) -> str:
    # keepdims leaves a 1 that squeezing drops.
    return c("Squeeze", c("ReduceMean", "x", axes=[1], keepdims=1), c.ints(1))


@chain("n, h - 1, 5", "n", "h", 5)
def neighbours(c: Chain) -> str:
    last = c("Sub", c.size("x", 1), c.scalar(1))
    head = c("Slice", "x", c.ints(0), c("Unsqueeze", last, c.ints(0)), c.ints(1))
    return c("Reshape", head, c.vector(c.size("x", 0), last, 5))


@chain("n, 3*s, 4", "n", "s", 4)
def tiles(c: Chain) -> str:
    s = c.size("x", 1)
    flat = c("Tile", "x", c.vector(1, c("Div", c("Mul", s, c.scalar(3)), s), 1))
    return c("Reshape", flat, c.vector(0, -1, 4))


@chain("n, min(3, s), 4", "n", "s", 4)
def the_best_few(c: Chain) -> str:
    k = c("Min", c.ints(3), c("Unsqueeze", c.size("x", 1), c.ints(0)))
    return c("TopK", "x", k, axis=1, outputs=2) + "_0"


@chain("n, s, s", "n", "s")
def one_hot_over_a_dimension(c: Chain) -> str:
    values = c.array(np.array([0, 1], np.float32))
    return c("OneHot", c("Cast", "x", to=TensorProto.INT64), c.size("x", 1), values)


@chain("n, s, 2, 3", "n", "s", 6)
def shape_updated_in_place(c: Chain) -> str:
    # index_put into a vector of sizes.
    shape = c("ScatterND", c.ints(0, 7, 2, 3), c.array(np.array([[1]])), c.vector(c.size("x", 1)))
    return c("Reshape", "x", shape)


@chain("n, h*w, 5", "n", 5, "h", "w")
def patches_to_tokens(c: Chain) -> str:
    return c("Transpose", c("Reshape", "x", c("Concat", c.vector(0, 0), c.ints(-1), axis=0)), perm=[0, 2, 1])


@chain("n, h*w + 1, 5", "n", "h*w", 5)
def class_token(c: Chain) -> str:
    token = c.expand(c.array(np.ones((1, 1, 5), np.float32)), c.size("x", 0), -1, -1)
    return c("Concat", token, "x", axis=1)


@chain("n, s", "n", "s", 4)
def sizes_through_floats(c: Chain) -> str:
    # Older exporters compute sizes in float32.
    wide = c("Cast", c("Shape", "x"), to=TensorProto.FLOAT)
    sizes = c("Cast", c("Floor", c("Mul", wide, c.array(np.ones(3, np.float32)))), to=TensorProto.INT64)
    return c("ReduceSum", c("Reshape", "x", sizes), c.ints(2), keepdims=0)


@chain("n, floordiv(s + 1, 2), 1, floordiv(s + 1, 2), 2", "n", 3, "s")
def sizes_after_a_convolution_that_truncate(c: Chain) -> str:
    """torch.export: the length is (s - 1) // 2 + 1, a Div that truncates; then it is used again."""
    weights = c.array(np.ones((2, 3, 3), np.float32) / 8)
    rows = c("Transpose", c("Conv", "x", weights, strides=[2], pads=[1, 1]), perm=[0, 2, 1])
    length = c("Add", c("Div", c("Add", c.scalar(-1), c.size("x", 2)), c.scalar(2)), c.scalar(1))
    longer = c("Reshape", rows, c.vector(c.size("x", 0), length, 1, 2))
    return c("Expand", c("Unsqueeze", longer, c.ints(2)), c.vector(c.size("x", 0), length, 1, length, 2))


def build(name: str) -> onnx.ModelProto:
    shape, builder, _ = CHAINS[name]
    c = Chain()
    result = builder(c)
    symbols = [d if isinstance(d, int) else (d if d.isidentifier() else "hw") for d in shape]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, symbols)
    graph = helper.make_graph(c.nodes, name, [x], [helper.make_empty_tensor_value_info(result)], c.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def result_type(graph: Graph) -> TensorType:
    type_ = graph.outputs[0].type
    assert isinstance(type_, TensorType)
    return type_


def dynamic_ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph if node.op.name.endswith("_dynamic") or node.defines]


@pytest.mark.parametrize("name", CHAINS)
def test_dimensions_resolve(name: str) -> None:
    graph = import_model(load_model(build(name), Limits()))
    expected = CHAINS[name][2].replace("h*w + 1", "hw + 1") if "h*w" in CHAINS[name][0] else CHAINS[name][2]
    shape = result_type(graph).shape
    assert shape is not None
    assert ", ".join(dim_text(d) for d in shape) == expected
    assert not dynamic_ops(graph)


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize(
    "sizes", [{"n": 2, "s": 3, "h": 8, "w": 5, "hw": 40}, {"n": 1, "s": 5, "h": 4, "w": 1, "hw": 4}]
)
def test_values_and_sizes_agree_with_the_runtime(name: str, sizes: dict[str, int]) -> None:
    model = build(name)
    graph = import_model(load_model(model, Limits()))
    dims = [d if isinstance(d, int) else sizes[d if d.isidentifier() else "hw"] for d in CHAINS[name][0]]
    x = np.random.default_rng(0).random(dims, dtype=np.float32)
    (got,) = evaluate_graph(graph, [x])
    (reference,) = oracle.run(model, {"x": x}).values()
    assert isinstance(got, np.ndarray)
    assert got.shape == reference.shape
    np.testing.assert_allclose(got, reference, rtol=1e-5)
    assert tuple(evaluate(d, sizes) for d in result_type(graph).shape or ()) == got.shape


def test_sizes_that_values_decide_flow_on() -> None:
    """The number of non-zero elements is a symbol, and reshapes after it are expressions of it."""
    c = Chain()
    places = c("Transpose", c("NonZero", "x"), perm=[1, 0])
    flat = c("Reshape", places, c.vector(c("Mul", c.size(places, 0), c.scalar(2))))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    graph_proto = helper.make_graph(c.nodes, "g", [x], [helper.make_empty_tensor_value_info(flat)], c.constants)
    model = helper.make_model(graph_proto, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    graph = import_model(load_model(model, Limits()))
    (dim,) = result_type(graph).shape or ()
    assert dim_text(dim) == "2*nonzero_0"
    given = np.array([[0, 1, 2], [3, 0, 0]], np.float32)
    (got,) = evaluate_graph(graph, [given])
    assert np.array_equal(np.asarray(got), oracle.run(model, {"x": given})[flat])


def test_a_shape_given_at_run_time_has_the_rank_of_its_length() -> None:
    c = Chain()
    result = c("Reshape", "x", "shape")
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3]),
        helper.make_tensor_value_info("shape", TensorProto.INT64, [3]),
    ]
    graph_proto = helper.make_graph(c.nodes, "g", inputs, [helper.make_empty_tensor_value_info(result)])
    model = helper.make_model(graph_proto, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    graph = import_model(load_model(model, Limits()))
    assert result_type(graph).rank == 3
    assert dynamic_ops(graph) == ["reshape_dynamic"]
    (got,) = evaluate_graph(graph, [np.zeros((4, 3), np.float32), np.array([2, -1, 1])])
    assert np.asarray(got).shape == (2, 6, 1)
