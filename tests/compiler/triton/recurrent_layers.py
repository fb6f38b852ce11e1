"""Recurrent layers as nodes with random operands, and what their kernels must compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from fusible.compiler.backends.triton.gpu_targets import GpuTarget, gpu_target
from fusible.compiler.backends.triton.print_kernel import print_node
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.ir.graph import Graph, Node
from fusible.compiler.ir.symbols import Symbol, SymInt
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.region import Buffer
from fusible.kernels.numpy.recurrent import gru, lstm, rnn
from tests.compiler.triton.checked import run_checked
from tests.tolerance import assert_close

__all__ = ["GATES", "LAYERS", "Layer"]

H100 = gpu_target("h100")
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
MEANINGS = {"lstm": lstm, "gru": gru, "rnn": rnn}
STEPS, ROWS, WIDTH, HIDDEN = 5, 19, 7, 37


class Layer:
    """A node of random operands. given: those that are there beside x, w and r."""

    def __init__(self, op: str, given: str = "bias", dtype: Any = np.float32, *, symbolic: bool = False, **attrs: Any):
        random, gates = np.random.default_rng(len(op) + len(given)), GATES[op]
        directions = 2 if attrs.get("direction") == "bidirectional" else 1
        batch_first = attrs.get("layout", 0)
        x, state = (STEPS, ROWS, WIDTH), (directions, ROWS, HIDDEN)
        if batch_first:
            x, state = (ROWS, STEPS, WIDTH), (ROWS, directions, HIDDEN)
        shapes = {
            "x": x, "w": (directions, gates * HIDDEN, WIDTH), "r": (directions, gates * HIDDEN, HIDDEN),
            "bias": (directions, 2 * gates * HIDDEN), "lengths": (ROWS,), "h": state, "c": state,
            "peepholes": (directions, 3 * HIDDEN),
        }  # fmt: skip
        self.op, self.attrs = op, attrs
        graph = Graph("layer")
        self.arrays: list[np.ndarray | None] = []
        values = []
        for name, shape in list(shapes.items())[: 8 if op == "lstm" else 6]:
            if name not in ("x", "w", "r", *given.split()):
                values.append(None)
                self.arrays.append(None)
                continue
            array = (random.standard_normal(shape) / (4 if name in "wr" else 1)).astype(dtype)
            if name == "lengths":
                array = random.integers(0, STEPS + 1, shape).astype(np.int32)
                array[:3] = 0, STEPS, 1
            known: Sequence[Any] = shape
            if symbolic:
                symbols = {STEPS: "steps", ROWS: "rows"}
                known = tuple(SymInt.of(Symbol(symbols[d], 0, 4096)) if d in symbols else d for d in shape)
            values.append(graph.input(TensorType(DType.of(array.dtype), tuple(known)), name))
            self.arrays.append(array)
        self.env = {"steps": STEPS, "rows": ROWS} if symbolic else {}
        self.node: Node = graph.add_node(op, values, attrs, outputs=3 if op == "lstm" else 2)

    def wanted(self) -> tuple[np.ndarray, ...]:
        """By the op's meaning, in float64."""
        wide = [a if a is None or a.dtype == np.int32 else a.astype(np.float64) for a in self.arrays]
        return MEANINGS[self.op](*wide, **self.attrs)  # type: ignore[no-any-return, operator]

    def printed(self, gpu: GpuTarget = H100) -> PrintedKernel:
        kernel = print_node(self.node, gpu)
        assert kernel is not None
        return kernel

    def check(self, kernel: PrintedKernel | None = None) -> None:
        outputs = []
        for value in self.node.outputs:
            assert isinstance(value.type, TensorType) and value.type.shape is not None
            outputs.append(Buffer(value.type.dtype, value.type.shape))
        given = [a for a in self.arrays if a is not None]
        got = run_checked(kernel or self.printed(), outputs, given, self.env)
        for array, reference in zip(got, self.wanted(), strict=True):
            assert_close(array, reference, accumulation=STEPS * (WIDTH + HIDDEN))


LAYERS: dict[str, dict[str, Any]] = {
    "lstm": {"op": "lstm"},
    "lstm_with_everything": {
        "op": "lstm", "given": "bias lengths h c peepholes", "direction": "bidirectional", "clip": 0.6,
    },
    "lstm_batch_first_coupled": {
        "op": "lstm", "given": "h c", "direction": "reverse", "layout": 1, "input_forget": 1,
    },
    "lstm_half": {"op": "lstm", "given": "bias h c", "dtype": np.float16},
    "lstm_other_activations": {
        "op": "lstm", "direction": "bidirectional",
        "activations": ("HardSigmoid", "Softsign", "Relu", "Sigmoid", "ScaledTanh", "Elu"),
        "activation_alpha": (0.3, 0.9, 0.7), "activation_beta": (0.4, 1.1),
    },
    "gru": {"op": "gru", "given": "bias h"},
    "gru_linear_first": {
        "op": "gru", "given": "bias lengths h", "linear_before_reset": 1, "direction": "bidirectional", "layout": 1,
    },
    "gru_with_lengths": {"op": "gru", "given": "lengths", "direction": "reverse", "dtype": ml_dtypes.bfloat16},
    "rnn": {"op": "rnn", "given": "bias h", "clip": 0.4},
    "lstm_brain_floats": {"op": "lstm", "given": "bias lengths c", "dtype": ml_dtypes.bfloat16},
    "gru_half": {"op": "gru", "given": "bias h", "dtype": np.float16},
    "rnn_half": {"op": "rnn", "given": "bias lengths", "dtype": np.float16},
    "rnn_brain_floats": {"op": "rnn", "given": "bias h", "direction": "reverse", "dtype": ml_dtypes.bfloat16},
    "rnn_symbolic": {"op": "rnn", "given": "bias lengths", "direction": "bidirectional", "symbolic": True},
}  # fmt: skip
