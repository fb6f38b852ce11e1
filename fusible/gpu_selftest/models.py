"""Small models, one for each kind of kernel and step that a session on a device has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["CASES", "Case", "doubled", "growing_cache", "matmul", "shared_sums"]

_TYPES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(bool): TensorProto.BOOL,
}


Run: TypeAlias = "dict[str, tuple[int, ...] | np.ndarray]"
"""Inputs by name: shapes of random ones, or arrays."""


@dataclass(frozen=True, slots=True)
class Case:
    """A model, and the shapes of its inputs in one run after the other; others are given as arrays."""

    name: str
    model: onnx.ModelProto
    runs: tuple[Run, ...]

    def inputs(self, run: int) -> dict[str, np.ndarray]:
        """The inputs of a run; random ones are the same each time."""
        generator = np.random.default_rng(run)
        return {
            name: what if isinstance(what, np.ndarray) else generator.standard_normal(what).astype(np.float32)
            for name, what in self.runs[run].items()
        }


def _value(name: str, shape: Sequence[int | str], dtype: type = np.float32) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _TYPES[np.dtype(dtype)], list(shape))


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[str],
    constants: dict[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    known = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, "selftest", inputs, [onnx.ValueInfoProto(name=o) for o in outputs], known)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], name=output, **attributes)


def _weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32) / 8


def doubled(count: int) -> onnx.ModelProto:
    """y = x + x."""
    return _model([_node("Add", "x x", "y")], [_value("x", [count])], ["y"])


def matmul(m: int, n: int, k: int) -> onnx.ModelProto:
    """y = x @ w, w being constant."""
    return _model([_node("MatMul", "x w", "y")], [_value("x", [m, k])], ["y"], {"w": _weights(k, n)})


def _pointwise() -> Case:
    nodes = [_node("Sigmoid", "x", "s"), _node("Mul", "x s", "m"), _node("Add", "m b", "y")]
    made = _model(nodes, [_value("x", ["n", 24])], ["y"], {"b": _weights(24)})
    return Case("x * sigmoid(x) + b", made, ({"x": (33, 24)}, {"x": (1, 24)}, {"x": (0, 24)}))


def _product() -> Case:
    nodes = [_node("MatMul", "x w", "p"), _node("Add", "p b", "q"), _node("Relu", "q", "y")]
    made = _model(nodes, [_value("x", ["n", 96])], ["y"], {"w": _weights(96, 80), "b": _weights(80)})
    return Case("relu(x @ w + b)", made, ({"x": (65, 96)}, {"x": (7, 96)}))


def _normalised() -> Case:
    nodes = [_node("LayerNormalization", "x g b", "l", axis=-1), _node("Softmax", "l", "y", axis=-1)]
    made = _model(nodes, [_value("x", ["n", 100])], ["y"], {"g": _weights(100), "b": _weights(100)})
    return Case("softmax(layer norm)", made, ({"x": (37, 100)},))


def _convolution() -> Case:
    nodes = [
        _node("Conv", "x w", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
        _node("Relu", "c", "r"),
        _node("GlobalAveragePool", "r", "y"),
    ]
    made = _model(nodes, [_value("x", ["n", 16, 15, 17])], ["y"], {"w": _weights(24, 16, 3, 3)})
    return Case("mean(relu(conv))", made, ({"x": (2, 16, 15, 17)}, {"x": (1, 16, 15, 17)}))


def _attention() -> Case:
    nodes = [
        _node("Transpose", "k", "kt", perm=[0, 1, 3, 2]),
        _node("MatMul", "q kt", "s"),
        _node("Softmax", "s", "p", axis=-1),
        _node("MatMul", "p v", "y"),
    ]
    shape = (1, 2, 40, 32)
    made = _model(nodes, [_value(n, shape) for n in "qkv"], ["y"])
    return Case("attention", made, ({"q": shape, "k": shape, "v": shape},))


def shared_sums() -> Case:
    """A long sum of few tiles, and one query of many keys: what several programs compute together."""
    nodes = [
        _node("MatMul", "x w", "y"),
        _node("Transpose", "k", "kt", perm=[0, 1, 3, 2]),
        _node("MatMul", "q kt", "s"),
        _node("Softmax", "s", "p", axis=-1),
        _node("MatMul", "p v", "z"),
    ]
    shapes = {"x": (9, 2048), "q": (1, 2, 1, 64), "k": (1, 2, 1000, 64), "v": (1, 2, 1000, 64)}
    made = _model(nodes, [_value(n, s) for n, s in shapes.items()], ["y", "z"], {"w": _weights(2048, 200)})
    return Case("sums that programs share", made, (dict(shapes),))


def growing_cache() -> Case:
    """One query of keys and values that grow by one in each run."""
    nodes = [
        _node("Concat", "past_k k", "keys", axis=2),
        _node("Concat", "past_v v", "values", axis=2),
        _node("Transpose", "keys", "kt", perm=[0, 1, 3, 2]),
        _node("MatMul", "q kt", "s"),
        _node("Softmax", "s", "p", axis=-1),
        _node("MatMul", "p values", "y"),
    ]
    one, past = (2, 4, 1, 32), (2, 4, "past", 32)
    inputs = [*(_value(n, one) for n in "qkv"), *(_value(n, past) for n in ("past_k", "past_v"))]
    made = _model(nodes, inputs, ["y", "keys", "values"])
    return Case(
        "a cache that grows", made, ({**dict.fromkeys("qkv", one), "past_k": (2, 4, 5, 32), "past_v": (2, 4, 5, 32)},)
    )


def _host() -> Case:
    nodes = [
        _node("Greater", "x zero", "m"),
        _node("NonZero", "m", "i"),
        _node("Transpose", "i", "t", perm=[1, 0]),
        _node("GatherND", "x t", "g"),
        _node("Mul", "g g", "y"),
    ]
    made = _model(nodes, [_value("x", ["n", 5])], ["y"], {"zero": np.zeros((), np.float32)})
    return Case("a step on the host, a late size", made, ({"x": (9, 5)}, {"x": (4, 5)}))


def _branches() -> Case:
    then = helper.make_graph([_node("Add", "x x", "t")], "then", [], [onnx.ValueInfoProto(name="t")])
    other = helper.make_graph([_node("Mul", "x x", "e")], "else", [], [onnx.ValueInfoProto(name="e")])
    body = helper.make_graph(
        [_node("Identity", "c", "c2"), _node("Add", "v x", "v2"), _node("Identity", "v2", "s")],
        "body",
        [_value("i", [], np.int64), _value("c", [], bool), _value("v", ["n"])],
        [onnx.ValueInfoProto(name=o) for o in ("c2", "v2", "s")],
    )
    nodes = [
        helper.make_node("If", ["flag"], ["b"], name="if", then_branch=then, else_branch=other),
        helper.make_node("Loop", ["count", "", "b"], ["y", "z"], name="loop", body=body),
    ]
    made = _model(nodes, [_value("x", ["n"]), _value("flag", [], bool), _value("count", [], np.int64)], ["y", "z"])
    runs: list[Run] = [
        {"x": (20,), "flag": np.asarray(flag), "count": np.asarray(count)} for flag in (True, False) for count in (0, 3)
    ]
    return Case("branches and loops", made, tuple(runs))


CASES = (_pointwise(), _product(), _normalised(), _convolution(), _attention(), _host(), _branches())
"""What sessions are checked with."""
