"""Fusions that regions must be able to say, each as a graph and the partition of its nodes into regions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import DType, TensorType

__all__ = ["CASES", "Case"]


@dataclass(frozen=True, slots=True)
class Case:
    """A graph whose nodes are to be one group. parts: by default one region of all nodes that are no join."""

    graph: Graph
    outputs: Sequence[Value]
    parts: Sequence[Sequence[Node]] = ()
    joins: Sequence[Node] = ()
    arrays: dict[Value, np.ndarray] = field(default_factory=dict)

    @property
    def partition(self) -> list[list[Node]]:
        """The nodes of each region."""
        if self.parts:
            return [list(part) for part in self.parts]
        return [[node for node in self.graph if node not in self.joins]]


class _Maker:
    """Inputs with random contents, and nodes."""

    def __init__(self, seed: int) -> None:
        self.graph = Graph("fusion")
        self.random = np.random.default_rng(seed)
        self.arrays: dict[Value, np.ndarray] = {}

    def x(self, *shape: int, dtype: Any = np.float32, low: float = -1.0, high: float = 1.0) -> Value:
        kind = np.dtype(dtype)
        array = np.asarray(self.random.uniform(low, high, shape)).astype(kind)
        return self.given(array)

    def given(self, array: np.ndarray) -> Value:
        value = self.graph.input(TensorType(DType.of(array.dtype), array.shape), f"x{len(self.arrays)}")
        self.arrays[value] = array
        return value

    def c(self, number: float, dtype: Any = np.float32) -> Value:
        return self.graph.constant(np.asarray(number, dtype))

    def __call__(self, op: str, *inputs: Value | None, **attrs: Any) -> Value:
        return self.graph.add(op, *inputs, **attrs)

    def case(self, *outputs: Value, parts: Sequence[Sequence[Node]] = (), joins: Sequence[Node] = ()) -> Case:
        return Case(self.graph, outputs, parts, joins, self.arrays)

    def nodes(self, first: int, last: int | None = None) -> list[Node]:
        return list(self.graph)[first:last]


POINT: dict[str, Any] = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
CASES: dict[str, Callable[[], Case]] = {}


def fusion(build: Callable[[_Maker], Case]) -> Callable[[_Maker], Case]:
    """Register a fusion under its function's name."""
    CASES[build.__name__] = lambda: build(_Maker(len(build.__name__)))
    return build


def _producer(value: Value) -> Node:
    assert value.producer is not None
    return value.producer


@fusion
def conv_bias_silu_residual(m: _Maker) -> Case:
    x, w, b = m.x(1, 5, 7, 9), m.x(6, 5, 3, 3), m.x(6)
    y = m("conv", x, w, b, strides=(2, 1), pads=(1, 1, 1, 1), dilations=(1, 1))
    return m.case(m("add", m("mul", y, m("sigmoid", y)), m.x(1, 6, 4, 9)))


@fusion
def large_conv_relu(m: _Maker) -> Case:
    """Enough channels and pixels for Winograd's algorithm."""
    attributes: dict[str, Any] = {"strides": (1, 1), "pads": (1, 0, 1, 1), "dilations": (1, 1)}
    return m.case(m("relu", m("conv", m.x(2, 17, 11, 13), m.x(35, 17, 3, 3), m.x(35), **attributes)))


@fusion
def grouped_conv_relu6(m: _Maker) -> Case:
    x, w = m.x(2, 6, 5, 5), m.x(4, 3, 3, 3)
    y = m("conv", x, w, strides=(1, 1), pads=(0, 1, 2, 1), dilations=(1, 1), group=2)
    return m.case(m("clip", y, m.c(0), m.c(6)))


@fusion
def depthwise_pointwise_group(m: _Maker) -> Case:
    x, d, p = m.x(1, 8, 7, 7), m.x(8, 1, 3, 3), m.x(5, 8, 1, 1)
    middle = m("relu", m("conv", x, d, m.x(8), strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1), group=8))
    y = m("conv", middle, p, m.x(5), **POINT)
    return m.case(y, parts=[m.nodes(0, 2), m.nodes(2)])


@fusion
def squeeze_excite(m: _Maker) -> Case:
    x = m.x(2, 8, 5, 7)
    squeezed = m("global_average_pool", x)
    narrow = m("relu", m("conv", squeezed, m.x(3, 8, 1, 1), m.x(3), **POINT))
    wide = m("conv", narrow, m.x(8, 3, 1, 1), m.x(8), **POINT)
    y = m("mul", x, m("sigmoid", wide))
    return m.case(y, parts=[m.nodes(0, 1), m.nodes(1, 3), m.nodes(3, 4), m.nodes(4)])


@fusion
def residual_layer_norm(m: _Maker) -> Case:
    total = m("add", m.x(3, 5, 12), m.x(3, 5, 12))
    y = m("layer_normalization", total, m.x(12), m.x(12))
    return m.case(y, total)


@fusion
def rms_norm_half(m: _Maker) -> Case:
    return m.case(m("rms_normalization", m.x(3, 17, dtype=np.float16), m.x(17, dtype=np.float16)))


@fusion
def group_norm_silu(m: _Maker) -> Case:
    y = m("group_normalization", m.x(2, 6, 3, 5), m.x(6), m.x(6), num_groups=3)
    return m.case(m("swish", y))


@fusion
def instance_norm_relu(m: _Maker) -> Case:
    return m.case(m("relu", m("instance_normalization", m.x(2, 3, 5, 7), m.x(3), m.x(3))))


@fusion
def masked_softmax(m: _Maker) -> Case:
    mask = m.given(np.where(np.arange(11) % 3 == 0, -np.inf, 0).astype(np.float32).reshape(1, 1, 1, 11))
    scores = m("add", m("mul", m.x(2, 3, 5, 11), m.c(0.125)), mask)
    return m.case(m("softmax", scores))


@fusion
def attention_gqa_score_hook(m: _Maker) -> Case:
    """Soft-capped scores, causal, three query heads to a key head."""
    q, k, v = m.x(2, 6, 5, 8), m.x(2, 2, 7, 8), m.x(2, 2, 7, 4)
    return m.case(m("attention", q, k, v, is_causal=True, softcap=2.0))


@fusion
def attention_from_packed_projection(m: _Maker) -> Case:
    """Heads are cut out of [tokens, 3 * heads * size] and merged again: views become index maps and a store."""
    packed = m.x(5, 3 * 4 * 8)
    cut = m("transpose", m("reshape", packed, shape=(5, 3, 4, 8)), perm=(1, 2, 0, 3))
    q, k, v = (m("gather", cut, m.graph.constant(np.asarray(n)), axis=0) for n in range(3))
    scores = m("mul", m("matmul", q, m("transpose", k, perm=(0, 2, 1))), m.c(8**-0.5))
    y = m("matmul", m("softmax", scores), v)
    return m.case(m("reshape", m("transpose", y, perm=(1, 0, 2)), shape=(5, 32)))


@fusion
def sibling_gemms(m: _Maker) -> Case:
    """Three products of one operand, in one loop over its columns."""
    x = m.x(7, 12)
    q, k, v = (m("add", m("matmul", x, m.x(12, 8)), m.x(8)) for _ in range(3))
    return m.case(q, k, v)


@fusion
def merged_projection_split(m: _Maker) -> Case:
    """One product whose columns are stored to three outputs."""
    merged = m("matmul", m.x(7, 12), m.x(12, 24))
    node = m.graph.add_node("split", [merged], {"axis": 1, "split": (8, 4, 12)}, outputs=3)
    return m.case(*node.outputs)


@fusion
def gemm_transposed_cast_operands(m: _Maker) -> Case:
    """Operands in bf16 and transposed; the sum in f32, rounded, then an epilogue in f32."""
    a, b = m.x(9, 5, dtype=ml_dtypes.bfloat16), m.x(7, 9, dtype=ml_dtypes.bfloat16)
    y = m("gemm", a, b, transA=True, transB=True)
    return m.case(m("relu", m("cast", y, dtype=DType.F32)))


@fusion
def gated_mlp(m: _Maker) -> Case:
    """silu(x @ w) * (x @ v): two products in one loop, and their product."""
    x = m.x(5, 8)
    return m.case(m("mul", m("swish", m("matmul", x, m.x(8, 12))), m("matmul", x, m.x(8, 12))))


@fusion
def concat_by_offsets(m: _Maker) -> Case:
    """Two convolutions and an input, each written where it belongs."""
    x = m.x(1, 4, 5, 5)
    one = m("conv", x, m.x(6, 4, 1, 1), **POINT)
    other = m("conv", x, m.x(3, 4, 3, 3), strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1))
    y = m("concat", m("relu", one), x, m("relu", other), axis=1)
    nodes = m.nodes(0)
    return m.case(y, parts=[[nodes[0], nodes[2]], [nodes[1], nodes[3]]], joins=[_producer(y)])


@fusion
def batch_norm_relu_of_concat(m: _Maker) -> Case:
    """DenseNet: the concatenation is read in place, no copy is made."""
    y = m("concat", m.x(1, 3, 5, 5), m.x(1, 4, 5, 5), axis=1)
    variance = m.x(7, low=0.5, high=2.0)
    return m.case(m("relu", m("batch_normalization", y, m.x(7), m.x(7), m.x(7), variance)))


@fusion
def padded_max_pool(m: _Maker) -> Case:
    y = m("max_pool", m.x(1, 3, 8, 9), kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1), dilations=(1, 1))
    return m.case(y)


@fusion
def average_pool_without_padding(m: _Maker) -> Case:
    y = m("average_pool", m.x(1, 3, 7, 7), kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1), dilations=(1, 1))
    return m.case(m("mul", y, m.x(1, 3, 1, 1)))


@fusion
def resize_nearest_add(m: _Maker) -> Case:
    y = m("resize", m.x(1, 3, 4, 5), scales=(1.0, 1.0, 2.0, 2.0), coordinate_transformation_mode="asymmetric",
          nearest_mode="floor")  # fmt: skip
    return m.case(m("add", y, m.x(1, 3, 8, 10)))


@fusion
def channel_shuffle(m: _Maker) -> Case:
    x = m("relu", m.x(1, 6, 3, 5))
    cut = m("transpose", m("reshape", x, shape=(1, 2, 3, 3, 5)), perm=(0, 2, 1, 3, 4))
    return m.case(m("reshape", cut, shape=(1, 6, 3, 5)))


@fusion
def embedding_norm(m: _Maker) -> Case:
    """Gather + positions + norm; negative indices count from the end."""
    ids = m.given(np.asarray([[3, 0, -1, 7, 2]]))
    y = m("add", m("gather", m.x(9, 12), ids, axis=0), m.x(5, 12))
    return m.case(m("layer_normalization", y, m.x(12), m.x(12)))


@fusion
def rope(m: _Maker) -> Case:
    """x * cos + rotate_half(x) * sin, as exporters write it."""
    x, cos, sin = m.x(2, 3, 5, 8), m.x(5, 8), m.x(5, 8)
    low = m("slice", x, starts=(0,), ends=(4,), axes=(3,), steps=(1,))
    high = m("slice", x, starts=(4,), ends=(8,), axes=(3,), steps=(1,))
    turned = m("concat", m("neg", high), low, axis=3)
    return m.case(m("add", m("mul", x, cos), m("mul", turned, sin)))


@fusion
def arg_max_of_logits(m: _Maker) -> Case:
    logits = m("matmul", m.x(4, 6), m.x(6, 10))
    return m.case(m("arg_max", logits, axis=1, keepdims=True))


@fusion
def cumulative_positions(m: _Maker) -> Case:
    """Positions of tokens from a mask: cumsum(mask) * mask + 1."""
    mask = m.given((np.arange(14).reshape(2, 7) % 3 > 0).astype(np.int64))
    counted = m("mul", m("cum_sum", mask, axis=1), mask)
    return m.case(m("add", counted, m.c(1, np.int64)))


@fusion
def dequantise_gemm_prologue(m: _Maker) -> Case:
    """Weights in int8 with a scale a column, widened where the product reads them."""
    w = m.given(m.random.integers(-127, 128, (12, 6)).astype(np.int8))
    wide = m("dequantize_linear", w, m.x(6, low=0.01, high=0.1), None, axis=1, output_dtype=DType.F32)
    return m.case(m("relu", m("matmul", m.x(5, 12), wide)))


@fusion
def lstm_cell(m: _Maker) -> Case:
    """Four gates in one loop over the hidden state, and the new state."""
    h, c, r = m.x(3, 5), m.x(3, 5), m.x(20, 5)
    gates = m("add", m("matmul", h, m("transpose", r, perm=(1, 0))), m.x(3, 20))

    def gate(n: int) -> Value:
        return m("slice", gates, starts=(5 * n,), ends=(5 * n + 5,), axes=(1,), steps=(1,))

    i, o, f, g = m("sigmoid", gate(0)), m("sigmoid", gate(1)), m("sigmoid", gate(2)), m("tanh", gate(3))
    cell = m("add", m("mul", f, c), m("mul", i, g))
    return m.case(m("mul", o, m("tanh", cell)), cell)


@fusion
def pixel_shuffle_epilogue(m: _Maker) -> Case:
    """The convolution stores each channel block to its place in a larger image."""
    y = m("conv", m.x(1, 3, 4, 5), m.x(8, 3, 1, 1), **POINT)
    return m.case(m("depth_to_space", y, blocksize=2, mode="CRD"))


@fusion
def patch_embedding(m: _Maker) -> Case:
    """A strided convolution whose pixels become tokens, plus positions."""
    y = m("conv", m.x(1, 3, 8, 12), m.x(6, 3, 4, 4), m.x(6), strides=(4, 4), pads=(0, 0, 0, 0), dilations=(1, 1))
    tokens = m("transpose", m("reshape", y, shape=(1, 6, 6)), perm=(0, 2, 1))
    return m.case(m("add", tokens, m.x(1, 6, 6)))


@fusion
def log_sum_exp(m: _Maker) -> Case:
    return m.case(m("reduce_log_sum_exp", m.x(3, 13, low=-40, high=40), axes=(1,), keepdims=False))


@fusion
def transposed_convolution(m: _Maker) -> Case:
    attributes: dict[str, Any] = {"strides": (2, 2), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    y = m("conv_transpose", m.x(1, 4, 3, 3), m.x(4, 5, 2, 2), m.x(5), **attributes)
    return m.case(m("sigmoid", y))
