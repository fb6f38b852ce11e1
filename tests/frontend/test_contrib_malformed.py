"""Malformed inputs and attributes of ONNX Runtime's operators are refused, with the node's name and what was expected.

`test_every_change_is_answered` changes ranks, sizes, types and attributes one by one, and takes an error of Fusible or
a result, never an error of NumPy's or Python's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from onnx import helper

from fusible.errors import FusibleError, InvalidModel, UnsupportedOp
from tests.frontend.imported import evaluated, model_of
from tests.frontend.test_transformer_contrib import BIAS, CACHE, FORMS, GROUPS, SCALE, SKIP, X, gqa, mha, random

IDS = np.array([[1, 4, 2], [0, 3, 3]], np.int32)
TYPES = (np.float32, np.float16, np.float64, np.int32, np.int64, np.uint8, np.bool_)
NUMBERS = (0, 1, -1, 3, 2**31, -(2**63), 1.5, "text", [1, 2])


@dataclass(frozen=True)
class Case:
    """A node: its op, the arrays it reads by name (those of `constants` are constants), and attributes."""

    op: str
    inputs: dict[str, np.ndarray]
    names: tuple[str, ...]
    results: tuple[str, ...] = ("y",)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)

    def evaluated(self) -> list[Any]:
        """Import it and compute its results."""
        node = helper.make_node(
            self.op, self.names, self.results, "the node", domain="com.microsoft", **self.attributes
        )
        outputs = [name for name in self.results if name]
        model = model_of([node], self.inputs, outputs, self.constants, domains={"com.microsoft": 1})
        return evaluated(model, self.inputs)

    def changed(self, **arrays: np.ndarray) -> Case:
        """With other arrays."""
        return replace(
            self,
            inputs={n: arrays.get(n, a) for n, a in self.inputs.items()},
            constants={n: arrays.get(n, a) for n, a in self.constants.items()},
        )


def _attention(form: str) -> Case:
    inputs, names = mha(**FORMS[form])
    return Case("MultiHeadAttention", inputs, tuple(names), attributes={"num_heads": 2, "unidirectional": 0})


def _groups(form: str) -> Case:
    made, inputs = gqa(**GROUPS[form])
    (node,) = made.graph.node
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute} | {"local_window_size": -1}
    total = {"total": np.array(GROUPS[form]["total"], np.int32)}
    return Case("GroupQueryAttention", inputs, tuple(node.input), tuple(node.output), total, attributes)


def _few_bits(order: np.ndarray) -> Case:
    constants = {
        "w": np.arange(96, dtype=np.uint8).reshape(6, 2, 8), "s": random(1, 6, 2), "z": np.ones((6, 1), np.uint8),
        "g": order.astype(np.int32), "b": random(2, 6),
    }  # fmt: skip
    attributes = {"N": 6, "K": 32, "bits": 4, "block_size": 16}
    return Case("MatMulNBits", {"x": random(3, 2, 32)}, tuple("xwszgb"), ("y",), constants, attributes)


def _steps(*names: str, unsigned: bool = True) -> dict[str, np.ndarray]:
    """A scale and a zero point for each name: s and z before it."""
    zero = np.array(3, np.uint8 if unsigned else np.int8)
    return {letter + n: v for n in names for letter, v in (("s", np.array(0.02, np.float32)), ("z", zero))}


def _quantised(op: str, names: str, arrays: dict[str, np.ndarray], **attributes: Any) -> Case:
    """A case whose parameters that are no `arrays` are constants."""
    parameters = {n: a for n, a in _steps("x", "w", "y").items() if n in names.split() and n not in arrays}
    return Case(op, arrays, tuple(names.split()), ("y",), parameters, attributes)


BYTES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
IMAGE = np.arange(120, dtype=np.uint8).reshape(2, 3, 5, 4)
KERNEL = {"w": np.arange(72, dtype=np.uint8).reshape(4, 3, 3, 2), "b": np.arange(4, dtype=np.int32)}
FILTERS = {"sw": np.full(4, 0.1, np.float32), "zw": np.ones(4, np.uint8)}
FACTORS = {"x": BYTES[0], "w": np.arange(20, dtype=np.uint8).reshape(4, 5)}
COLUMNS = {"sw": np.full(5, 0.1, np.float32), "zw": np.ones(5, np.uint8)}
QUANTISED = {
    "sum": _quantised("QLinearAdd", "x sx zx w sw zw sy zy", {"x": BYTES, "w": BYTES[:, :1]}),
    "sigmoid": _quantised("QLinearSigmoid", "x sx zx sy zy", {"x": BYTES}),
    "leaky": _quantised("QLinearLeakyRelu", "x sx zx sy zy", {"x": BYTES}, alpha=0.5),
    "softmax": _quantised("QLinearSoftmax", "x sx zx sy zy", {"x": BYTES}, opset=13, axis=1),
    "old softmax": _quantised("QLinearSoftmax", "x sx zx sy zy", {"x": BYTES}, opset=12, axis=1),
    "joined": _quantised("QLinearConcat", "sy zy x sx zx w sw zw", {"x": BYTES, "w": BYTES[:1]}, axis=0),
    "where": _quantised("QLinearWhere", "c x sx zx w sw zw sy zy", {"c": BYTES > 9, "x": BYTES, "w": BYTES[:, :1]}),
    "mean": _quantised("QLinearReduceMean", "x sx zx sy zy", {"x": BYTES}, axes=[1], keepdims=1),
    "image": _quantised("QLinearGlobalAveragePool", "x sx zx sy zy", {"x": IMAGE}, channels_last=0),
    "pool": _quantised("QLinearAveragePool", "x sx zx sy zy", {"x": IMAGE}, kernel_shape=[3, 2], strides=[2, 1],
                       pads=[1, 0, 1, 1], ceil_mode=1, count_include_pad=1, auto_pad="NOTSET", channels_last=1),
    "filters": _quantised("QLinearConv", "x sx zx w sw zw sy zy b", {"x": IMAGE, **KERNEL, **FILTERS},
                          kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1], dilations=[1, 1], group=1),
    "gemm": _quantised("QGemm", "x sx zx w sw zw c sy zy", {**FACTORS, **COLUMNS, "c": np.arange(5, dtype=np.int32)},
                       alpha=0.5, transA=0, transB=0),
    "as floats": _quantised("MatMulIntegerToFloat", "x w sx sw zx zw c", {**FACTORS, **COLUMNS, "c": random(1, 5)}),
    "dynamic": _quantised("DynamicQuantizeMatMul", "f w sw zw c",
                          {"f": random(1, 3, 4), "w": FACTORS["w"], **COLUMNS, "c": random(1, 5)}),
    "quantise": _quantised("QuantizeLinear", "f sw zw", {"f": random(1, 3, 4, 5), **COLUMNS}, axis=2),
    "dequantise": _quantised("DequantizeLinear", "w sw zw", {"w": FACTORS["w"], **COLUMNS}, axis=1),
}  # fmt: skip
TABLES = {"words": random(4, 5, 8), "table": random(5, 6, 8), "segs": random(6, 2, 8), "g": SCALE, "b": BIAS}
CASES = {
    "norm": Case("SkipLayerNormalization", {"x": X, "s": SKIP, "g": SCALE, "be": BIAS, "b": BIAS},
                 ("x", "s", "g", "be", "b"), ("y", "", "", "sum"), attributes={"epsilon": 1e-3}),
    "embedding": Case("EmbedLayerNormalization", {"i": IDS, "t": IDS % 2, **TABLES, "mask": IDS, "p": IDS + 1},
                      ("i", "t", *TABLES, "mask", "p"), ("y", "count", "sum")),
    "gelu": Case("FastGelu", {"x": X, "b": BIAS}, ("x", "b")),
    "product": Case("FusedMatMul", {"a": random(7, 2, 3, 4, 5), "b": random(8, 2, 3, 5, 6)}, ("a", "b"),
                    attributes={"alpha": 0.5, "transA": 0, "transB": 0, "transBatchA": 0, "transBatchB": 0}),
    "rotary": Case("RotaryEmbedding", {"x": random(10, 2, 3, 16), "p": IDS.astype(np.int64), **CACHE},
                   ("x", "p", "cos", "sin"),
                   attributes={"interleaved": 0, "num_heads": 2, "rotary_embedding_dim": 8}),
    "packed": Case("MultiHeadAttention", {"q": random(18, 2, 3, 2, 3, 4)}, ("q",), attributes={"num_heads": 2}),
    "bias": _attention("bias"), "mask": _attention("padded_and_added"), "past": _attention("past"),
    "prompt": _groups("packed"), "decode": _groups("decode"), "buffers": _groups("biased_buffers"),
    "blocks": _few_bits(np.arange(32) // 16), "groups": _few_bits(np.arange(32) % 2), **QUANTISED,
}  # fmt: skip


def _cut(case: str, name: str, axis: int = 0) -> Case:
    array = {**CASES[case].inputs, **CASES[case].constants}[name]
    return CASES[case].changed(**{name: np.delete(array, 0, axis)})


def _with(case: str, **attributes: Any) -> Case:
    return replace(CASES[case], attributes={**CASES[case].attributes, **attributes})


def _without(case: str, name: str) -> Case:
    return replace(CASES[case], names=tuple("" if n == name else n for n in CASES[case].names))


MALFORMED: dict[str, tuple[Case, str]] = {
    "skip": (_cut("norm", "s", 1), r"input 1 \(skip\) must have shape \[2, 3, 8\] or \[1, 3, 8\] or \[3, 8\], got f32"),
    "input": (_cut("norm", "x"), r"input 1 \(skip\) must have shape \[1, 3, 8\]"),
    "gamma": (CASES["norm"].changed(g=SCALE[None]), r"input 2 \(gamma\) must have shape \[8\], got f32\[1, 8\]"),
    "epsilon": (_with("norm", epsilon=float("nan")), "'epsilon' must be 0 or more, got nan"),
    "mask": (_cut("embedding", "mask", 1), r"input 7 \(mask\) must have shape \[2, 3\], got i32\[2, 2\]"),
    "segments": (_cut("embedding", "t"), r"input 1 \(segment_ids\) must have shape \[2, 3\]"),
    "ids": (CASES["embedding"].changed(i=IDS.astype(np.int64)), r"input 0 \(input_ids\) has type tensor\(int64\)"),
    "bias": (CASES["gelu"].changed(b=BIAS[:1]), r"input 1 \(bias\) must have shape \[8\], got f32\[1\]"),
    "flag": (_with("product", transA=2), "'transA' must be 0 or 1, got 2"),
    "unknown": (_with("product", transC=1), "attribute 'transC' is unknown"),
    "positions": (CASES["rotary"].changed(p=np.arange(3)), r"must have shape \[1\] or \[2, 3\], got i64\[3\]"),
    "angles": (_cut("rotary", "sin"), r"input 3 \(sin_cache\) must have shape \[32, 4\], got f32\[31, 4\]"),
    "packed": (CASES["packed"].changed(q=random(1, 2, 3, 2, 4, 4)), r"must have shape \[any, any, 2, 3, any\]"),
    "empty heads": (CASES["packed"].changed(q=random(1, 2, 3, 2, 3, 0)), "has no elements, got"),
    "long bias": (CASES["bias"].changed(bias=random(1, 25)), r"input 3 \(bias\) must have shape \[24\]"),
    "padding": (_cut("mask", "pad", 1), r"input 4 \(key_padding_mask\) must have shape \[2, 3\]"),
    "scores": (CASES["mask"].changed(add=random(1, 2, 3, 3)), r"input 5 \(attention_bias\) must have shape \[2, 2, 3,"),
    "values": (_cut("mask", "v", 1), "there are 3 keys and 2 values"),
    "one cache": (_without("past", "pk"), "past_key and past_value must both be given"),
    "one group's cache": (_without("decode", "pv"), "past_key and past_value must both be given"),
    "caches": (_cut("decode", "pk", 3), r"input 3 \(past_key\) must have shape \[1, 2, 6, 16\]"),
    "ends": (CASES["decode"].changed(ends=np.zeros(2, np.int32)), r"input 5 \(seqlens_k\) must have shape \[1\]"),
    "total": (CASES["decode"].changed(total=np.array(8, np.int32)), "must be 1 to 7, for 1 new keys and caches of 6"),
    "window": (_with("decode", local_window_size=0), "must be -1 for none, or a positive number of 32 bits, got 0"),
    "columns of a mask": (_cut("buffers", "add", 3), r"input 10 \(attention_bias\) must have shape \[1, 4, 1, 7\]"),
    "weight": (CASES["blocks"].changed(w=np.zeros((6, 16), np.uint8)), r"input 1 \(B\) must have shape \[6, 2, 8\]"),
    "scales of rows": (CASES["sum"].changed(sx=SCALE), r"input 1 \(A_scale\) must have shape \[\] or \[1\], got"),
    "zeros of rows": (CASES["mean"].changed(zy=BYTES[0, 0]), r"input 4 \(reduced_zero_point\) must have shape"),
    "scale of a part": (CASES["joined"].changed(sw=SCALE), r"input 6 \(inputs\) must have shape \[\] or \[1\]"),
    "signs": (CASES["sum"].changed(w=BYTES.astype(np.int8)), r"input 3 \(B\) has type tensor\(int8\), an earlier"),
    "condition": (CASES["where"].changed(c=BYTES), r"input 0 \(condition\) has type tensor\(uint8\), allowed"),
    "no scale": (_without("softmax", "sy"), r"required input 3 \(y_scale\) is missing"),
    "no version": (replace(CASES["softmax"], attributes={"axis": 1}), "required attribute 'opset' is missing"),
    "axis": (_with("softmax", axis=3), "axis 3 is out of range for rank 3"),
    "old axis": (_with("old softmax", axis=-4), "axis -4 is out of range for rank 3"),
    "means": (_with("mean", axes=[3]), "axis 3 is out of range for rank 3"),
    "kept": (_with("mean", keepdims=2), "'keepdims' must be 0 or 1, got 2"),
    "layout": (_with("filters", channels_last=-1), "'channels_last' must be 0 or 1, got -1"),
    "rank": (CASES["pool"].changed(x=BYTES), r"a kernel of rank 2 takes \[N, C, \*spatial\], got u8"),
    "pads": (_with("pool", pads=[1, 0, -1, 0]), r"pads must have 4 values from 0 to below .*, got \[1, 0, -1, 0\]"),
    "long pads": (_with("pool", pads=[1, 0, 1, 2]), r"to below those of kernel_shape, got \[1, 0, 1, 2\]"),
    "strides": (_with("pool", strides=[0, 1]), r"strides must have 2 positive values, got \[0, 1\]"),
    "kernel": (_with("pool", kernel_shape=[3, 0]), "kernel_shape must be a list of positive sizes"),
    "filters": (_with("filters", kernel_shape=[2, 3]), r"kernel_shape is \[2, 3\], but the kernel has spatial"),
    "vectors": (CASES["gemm"].changed(x=BYTES[0, 0]), r"input 0 \(A\) must have shape \[any, any\], got u8\[4\]"),
    "columns": (CASES["gemm"].changed(sw=SCALE), r"input 4 \(b_scale\) must have shape \[\] or \[1\] or \[5\] or"),
    "gemm's bias": (_cut("gemm", "c"), r"input 6 \(C\) must have shape \[\] or \[1\] or \[5\] or"),
    "no scale of Y": (_without("gemm", "sy"), r"a zero point of the result needs its scale, input 7 \(y_scale\)"),
    "scale of A": (CASES["as floats"].changed(sx=SCALE), r"input 2 \(a_scale\) must have shape \[\] or \[1\], got"),
    "product's bias": (_cut("dynamic", "c"), r"input 4 \(bias\) must have shape \[5\], got f32\[4\]"),
    "blocks": (_with("quantise", block_size=2), "attribute 'block_size' is unknown"),
    "flat groups": (CASES["groups"].changed(g=np.zeros((1, 32), np.int32)), r"input 4 \(g_idx\) must have shape \[32"),
}  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed(what: str) -> None:
    case, message = MALFORMED[what]
    with pytest.raises(InvalidModel, match=f"at 'the node': .*{message}"):
        case.evaluated()


def test_caches_of_another_type() -> None:
    with pytest.raises(UnsupportedOp, match="its caches hold f16, its queries f32"):
        CASES["decode"].changed(**{n: CASES["decode"].inputs[n].astype(np.float16) for n in ("pk", "pv")}).evaluated()


def _arrays(array: np.ndarray) -> Iterator[np.ndarray]:
    yield from (array.astype(t) for t in TYPES if array.dtype != t)
    yield array[None]
    yield array[..., None]
    yield array.reshape(-1)
    if array.ndim and array.size:
        yield array[0]
    for axis in range(array.ndim):
        yield array.take([], axis)
        if array.shape[axis]:
            yield np.concatenate([array, array.take([0], axis)], axis)
            yield np.delete(array, 0, axis)
    if array.dtype.kind in "iu" and array.size:
        yield (array.astype(np.int64) - 100).astype(array.dtype)
        yield (array.astype(np.int64) + 10000).astype(array.dtype)


def _changes(case: Case) -> Iterator[Case]:
    for name, array in {**case.inputs, **case.constants}.items():
        yield from (case.changed(**{name: other}) for other in _arrays(array))
        yield replace(case, names=tuple("" if n == name else n for n in case.names))
    for name in case.constants:
        others = {n: a for n, a in case.constants.items() if n != name}
        yield replace(case, inputs={**case.inputs, name: case.constants[name]}, constants=others)
    yield replace(case, names=(*case.names, *case.names[:1] * 20))
    yield replace(case, results=(*case.results, *(f"more{n}" for n in range(4))))
    for name in case.attributes:
        yield from (replace(case, attributes={**case.attributes, name: value}) for value in NUMBERS)
        yield replace(case, attributes={n: v for n, v in case.attributes.items() if n != name})


@pytest.mark.parametrize("name", CASES)
def test_every_change_is_answered(name: str) -> None:
    CASES[name].evaluated()
    answers = [1, 0]
    for changed in _changes(CASES[name]):
        try:
            changed.evaluated()
            answers[0] += 1
        except FusibleError as error:
            assert "'the node'" in str(error), "or it does not say where"
            answers[1] += 1
    assert all(answers), "of results and errors there are some"
