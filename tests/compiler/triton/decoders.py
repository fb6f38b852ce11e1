"""Blocks of decoder language models as exporters write them: prefill and decode, small, with random weights.

    llama       torch's exporter: RMS norms, rotary embedding by halves, and keys for groups of heads, written out
    partial     of GPT-NeoX and Phi: layer norm, rotary embedding of a part of each head, both branches from one norm
    contrib     ONNX Runtime's model builder: GroupQueryAttention, MatMulNBits, SkipSimplifiedLayerNormalization
    standard    opset 23: Attention, RMSNormalization, RotaryEmbedding

`python -m tests.compiler.triton.decoders` runs all of them on triton-cpu in checking mode, prefill and decode, against
ONNX Runtime, and says how many launches each takes.

`block(form, new, past)` gives the model of one block between two others' values: hidden states in and out, caches in
and out, and the number of keys that are there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import fusible
from fusible.compiler.accuracy import compare_outputs, model_bound
from tests import oracle

__all__ = ["FORMS", "block", "launches"]

HEADS, GROUPS, SIZE, WIDTH, INNER = 4, 2, 16, 64, 96


class Writer:
    """Collects nodes, inputs and constants."""

    def __init__(self, new: int, past: int) -> None:
        self.new, self.past, self.random = new, past, np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.inputs: dict[str, np.ndarray] = {}

    def __call__(
        self,
        op: str,
        *inputs: str,
        outputs: int = 1,
        unnamed: tuple[int, ...] = (),
        domain: str = "",
        **attributes: Any,
    ) -> Any:
        """Add a node; unnamed: results that nobody reads."""
        names = ["" if n in unnamed else f"v{len(self.nodes)}_{n}" for n in range(outputs)]
        node = helper.make_node(op, list(inputs), names, f"{op}_{len(self.nodes)}", domain=domain, **attributes)
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def c(self, array: Any, dtype: Any = np.float32) -> str:
        """A constant."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array, dtype)
        return name

    def ints(self, *values: int) -> str:
        """A constant of whole numbers."""
        return self.c(values, np.int64)

    def weight(self, *shape: int) -> str:
        """A constant of random numbers, small enough for what follows to stay of the order of one."""
        return self.c(self.random.normal(0, shape[0] ** -0.5, shape))

    def scale(self, size: int = WIDTH) -> str:
        """The scale of a norm."""
        return self.c(self.random.uniform(0.5, 1.5, size))

    def x(self, name: str, *shape: int) -> str:
        """An input."""
        self.inputs[name] = self.random.normal(0, 1, shape).astype(np.float32)
        return name

    def caches(self, heads: int = GROUPS) -> tuple[str, str]:
        """Past keys and values."""
        return self.x("past_key", 1, heads, self.past, SIZE), self.x("past_value", 1, heads, self.past, SIZE)

    def angles(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and sines [places, size / 2] of every place that there is."""
        places = np.arange(self.past + self.new)[:, None]
        angle = places / 100.0 ** (np.arange(size // 2) * 2 / size)
        return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)

    def linear(self, x: str, rows: int, columns: int) -> str:
        """x @ W."""
        return str(self("MatMul", x, self.weight(rows, columns)))

    def n_bits(self, x: str, rows: int, columns: int) -> str:
        """x @ W, of 4 bits in blocks of 32 terms."""
        codes = self.random.integers(0, 256, (columns, rows // 32, 16))
        scales = self.random.uniform(0.5, 1.5, (columns, rows // 32)) * rows**-0.5 / 5
        attributes = {"N": columns, "K": rows, "bits": 4, "block_size": 32, "domain": "com.microsoft"}
        return str(self("MatMulNBits", x, self.c(codes, np.uint8), self.c(scales), **attributes))

    def model(self, outputs: list[str]) -> onnx.ModelProto:
        """The model."""
        given = [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in self.inputs.items()]
        results = [helper.make_empty_tensor_value_info(name) for name in outputs]
        tensors = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(self.nodes, "block", given, results, tensors)
        domains = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=domains, ir_version=10)


Form = Callable[[Writer], list[str]]
FORMS: dict[str, Form] = {}


def block(form: str, new: int, past: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A block that reads `new` tokens after `past` others (0: it has no caches as inputs), and its inputs."""
    writer = Writer(new, past)
    outputs = FORMS[form](writer)
    return writer.model(outputs), writer.inputs


def launches(name: str, new: int, past: int) -> int:
    """The launches of a block on triton-cpu. AssertionError if it disagrees with ONNX Runtime or a step is NumPy's."""
    model, inputs = block(name, new, past)
    exe = fusible.compile(model, "triton-cpu", options=fusible.Options(verify="kernels"))
    verdicts = compare_outputs(oracle.run(model, inputs), exe.run(inputs), model_bound("fp32", quantised=False))
    assert all(verdicts.values()), verdicts
    languages = [row.get("language") for row in exe.report.kernels]
    assert set(languages) == {"triton"}, languages
    return len(languages)


def main() -> None:
    """Print a line for each form and phase."""
    for name in FORMS:
        for phase, new, past in (("decode", 1, 20), ("prefill", 6, 0), ("more", 6, 20)):
            sys.stdout.write(f"{name:10} {phase:8} {launches(name, new, past):3} launches\n")


def form(make: Form) -> Form:
    """Register a form by its name."""
    FORMS[make.__name__] = make
    return make


def _rms(w: Writer, x: str) -> str:
    mean = w("ReduceMean", w("Pow", x, w.c(2.0)), w.ints(-1), keepdims=1)
    root = w("Reciprocal", w("Sqrt", w("Add", mean, w.c(1e-6))))
    return str(w("Mul", w.scale(), w("Mul", x, root)))


def _split(w: Writer, x: str, heads: int) -> str:
    return str(w("Transpose", w("Reshape", x, w.ints(1, w.new, heads, SIZE)), perm=[0, 2, 1, 3]))


def _cut(w: Writer, x: str, start: int, end: int) -> str:
    return str(w("Slice", x, w.ints(start), w.ints(end), w.ints(-1)))


def _turned(w: Writer, x: str, cos: str, sin: str, size: int) -> str:
    half = w("Concat", w("Neg", _cut(w, x, size // 2, size)), _cut(w, x, 0, size // 2), axis=-1)
    return str(w("Add", w("Mul", x, cos), w("Mul", half, sin)))


def _wide_angles(w: Writer, size: int) -> tuple[str, str]:
    """[1, 1, new, size], each angle twice, of the new places."""
    found = [np.concatenate([a, a], -1)[None, None, w.past :] for a in w.angles(size)]
    return w.c(found[0]), w.c(found[1])


def _attended(w: Writer, q: str, k: str, v: str) -> str:
    """softmax(q k' / sqrt(D) + mask) v, [1, new, HEADS * SIZE]; with the mask only where there are several queries."""
    scores = w("Mul", w("MatMul", q, w("Transpose", k, perm=[0, 1, 3, 2])), w.c(SIZE**-0.5))
    if w.new > 1:
        total = w.new + w.past
        mask = np.where(np.arange(total) > np.arange(w.new)[:, None] + w.past, np.finfo(np.float32).min, 0.0)
        scores = w("Add", scores, w.c(mask[None, None]))
    y = w("MatMul", w("Softmax", scores, axis=-1), v)
    return str(w("Reshape", w("Transpose", y, perm=[0, 2, 1, 3]), w.ints(1, w.new, HEADS * SIZE)))


def _repeated(w: Writer, x: str) -> str:
    """Keys of groups for every head."""
    total, times = w.new + w.past, HEADS // GROUPS
    wide = w("Expand", w("Unsqueeze", x, w.ints(2)), w.ints(1, GROUPS, times, total, SIZE))
    return str(w("Reshape", wide, w.ints(1, HEADS, total, SIZE)))


def _with_past(w: Writer, k: str, v: str, heads: int) -> tuple[str, str]:
    if not w.past:
        return k, v
    past_key, past_value = w.caches(heads)
    return w("Concat", past_key, k, axis=2), w("Concat", past_value, v, axis=2)


def _gated(w: Writer, x: str, linear: Callable[[str, int, int], str]) -> str:
    gate = linear(x, WIDTH, INNER)
    up = linear(x, WIDTH, INNER)
    return linear(w("Mul", w("Mul", gate, w("Sigmoid", gate)), up), INNER, WIDTH)


@form
def llama(w: Writer) -> list[str]:
    """As torch's exporter writes Llama, Qwen and Mistral."""
    x = w("Identity", w.x("hidden", 1, w.new, WIDTH))
    normed = _rms(w, x)
    widths = (HEADS, GROUPS, GROUPS)
    q, k, v = (_split(w, w.linear(normed, WIDTH, heads * SIZE), heads) for heads in widths)
    cos, sin = _wide_angles(w, SIZE)
    q, k = _turned(w, q, cos, sin, SIZE), _turned(w, k, cos, sin, SIZE)
    k, v = _with_past(w, k, v, GROUPS)
    y = w.linear(_attended(w, q, _repeated(w, k), _repeated(w, v)), HEADS * SIZE, WIDTH)
    x = w("Add", x, y)
    return [w("Add", x, _gated(w, _rms(w, x), w.linear)), k, v]


@form
def partial(w: Writer) -> list[str]:
    """As torch's exporter writes GPT-NeoX and Phi."""
    x, turned = w("Identity", w.x("hidden", 1, w.new, WIDTH)), SIZE // 2
    normed = w("LayerNormalization", x, w.scale(), w.c(w.random.normal(0, 1, WIDTH)), axis=-1)

    def biased(value: str, rows: int, columns: int) -> str:
        return str(w("Add", w.linear(value, rows, columns), w.c(w.random.normal(0, 1, columns))))

    q, k, v = (_split(w, biased(normed, WIDTH, HEADS * SIZE), HEADS) for _ in range(3))
    cos, sin = _wide_angles(w, turned)
    q, k = (
        w("Concat", _turned(w, _cut(w, part, 0, turned), cos, sin, turned), _cut(w, part, turned, SIZE), axis=-1)
        for part in (q, k)
    )
    k, v = _with_past(w, k, v, HEADS)
    y = biased(_attended(w, q, k, v), HEADS * SIZE, WIDTH)
    inner = biased(w("Gelu", biased(normed, WIDTH, INNER), approximate="tanh"), INNER, WIDTH)
    return [w("Add", w("Add", y, inner), x), k, v]


@form
def contrib(w: Writer) -> list[str]:
    """As ONNX Runtime's model builder writes decoders with weights of 4 bits."""
    ms = {"domain": "com.microsoft"}
    skip, x = w.x("hidden", 1, w.new, WIDTH), w.x("more", 1, w.new, WIDTH)
    normed, _, _, x = w("SkipSimplifiedLayerNormalization", x, skip, w.scale(), outputs=4, unnamed=(1, 2), **ms)
    q, k, v = (w.n_bits(normed, WIDTH, heads * SIZE) for heads in (HEADS, GROUPS, GROUPS))
    past = w.caches()
    cos, sin = (w.c(a) for a in w.angles(SIZE))
    ends = [w.c([w.past + w.new - 1], np.int32), w.c(w.past + w.new, np.int32)]
    attributes = {"num_heads": HEADS, "kv_num_heads": GROUPS, "do_rotary": 1, **ms}
    y, k, v = w("GroupQueryAttention", q, k, v, *past, *ends, cos, sin, outputs=3, **attributes)
    y = w.n_bits(y, HEADS * SIZE, WIDTH)
    normed, _, _, x = w("SkipSimplifiedLayerNormalization", x, y, w.scale(), outputs=4, unnamed=(1, 2), **ms)
    return [w("Add", x, _gated(w, normed, w.n_bits)), k, v]


@form
def standard(w: Writer) -> list[str]:
    """With the operators of opset 23."""
    x = w("Identity", w.x("hidden", 1, w.new, WIDTH))
    normed = w("RMSNormalization", x, w.scale(), epsilon=1e-6)
    q, k, v = (w.linear(normed, WIDTH, heads * SIZE) for heads in (HEADS, GROUPS, GROUPS))
    cos, sin = (w.c(a[None, w.past :]) for a in w.angles(SIZE))
    q, k = (w("RotaryEmbedding", a, cos, sin, num_heads=n) for a, n in ((q, HEADS), (k, GROUPS)))
    past = w.caches() if w.past else ("", "")
    heads = {"q_num_heads": HEADS, "kv_num_heads": GROUPS, "is_causal": 1}
    y, k, v = w("Attention", q, k, v, "", *past, outputs=3, **heads)
    x = w("Add", x, w.linear(y, HEADS * SIZE, WIDTH))
    return [w("Add", x, _gated(w, w("RMSNormalization", x, w.scale(), epsilon=1e-6), w.linear)), k, v]


if __name__ == "__main__":
    main()
