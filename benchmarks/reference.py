"""What the outputs must be: ONNX Runtime's, optimisations disabled, so that nobody wins by computing something else."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from fusible.benchmarks.peers.client import Task, Worker
from fusible.benchmarks.peers.protocol import Contestant, Inputs
from fusible.compiler.accuracy import (
    Bound,
    Comparison,
    StepBound,
    compare_outputs,
    model_bound,
    rounds_to_steps,
    widened,
)
from fusible.compiler.frontend.rounded_products import with_rounded_products

__all__ = ["bf16_tolerance", "judge", "model_tolerance", "reference_outputs", "without_saturation"]

# Per operator: (the operand that holds 8-bit weights, its zero point).
_WEIGHTS = {"MatMulInteger": ((1, 3),), "DynamicQuantizeLSTM": ((1, 9), (2, 11))}


def reference_outputs(model: Path, inputs: Inputs) -> dict[str, np.ndarray]:
    """The outputs by name, in the model's order. Raises PeerError if ONNX Runtime is not there or cannot run it."""
    with tempfile.TemporaryDirectory(prefix="fusible-bench-") as name:
        folder = Path(name)
        exact = _exact_model(model, folder)
        task = Task("", exact, inputs, folder)
        with Worker(Contestant("onnxruntime-unoptimised"), threads=1) as worker:
            worker.load(task, cache=None)
            return worker.outputs(task)


def _exact_model(model: Path, folder: Path) -> Path:
    """The model itself, or a copy whose integer products do not saturate."""
    proto = onnx.load(model, load_external_data=False)
    if not any(node.op_type in _WEIGHTS for node in proto.graph.node):
        return model
    target = folder / "exact.onnx"
    onnx.save(without_saturation(onnx.load(model)), target)
    return target


def model_tolerance(model: Path) -> Bound | StepBound:
    """The row of the tolerances for a model: fp32, or quantised if it rounds to steps."""
    proto = onnx.load(model, load_external_data=False)
    operators = {node.op_type for nodes in (proto.graph.node, *(f.node for f in proto.functions)) for node in nodes}
    return model_bound("fp32", quantised=rounds_to_steps(operators))


def bf16_tolerance(model: Path, inputs: Inputs, expected: Mapping[str, np.ndarray]) -> Bound:
    """What a contestant that multiplies in bf16 is held to: its row, or twice what rounding alone does to the model.

    Raises PeerError as `reference_outputs`.
    """
    row = model_bound("bf16")
    assert isinstance(row, Bound)
    rounded = with_rounded_products(onnx.load(model))
    if rounded is None:
        return row
    with tempfile.TemporaryDirectory(prefix="fusible-bench-") as name:
        onnx.save(rounded, Path(name) / "rounded.onnx")
        got = reference_outputs(Path(name) / "rounded.onnx", inputs)
    return widened(row, compare_outputs(expected, got, row).values())


def judge(
    expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray], bound: Bound | StepBound
) -> tuple[float, float, str]:
    """(largest error, RMS error, what is wrong or ""), over all outputs.

    Outputs are matched by name; a system that names none of them has them in the model's order.
    """
    if not set(expected) <= set(got) and len(expected) == len(got):
        got = dict(zip(expected, got.values(), strict=True))
    missing = [name for name in expected if name not in got]
    if missing:
        return float("inf"), float("inf"), f"output {missing[0]!r} is missing"
    verdicts = compare_outputs(expected, {name: got[name] for name in expected}, bound)
    wrong = [f"{name}: {_said(verdict)}" for name, verdict in verdicts.items() if not verdict]
    worst = max((v.max_error for v in verdicts.values()), default=0.0)
    rms = max((v.rms_error for v in verdicts.values()), default=0.0)
    return worst, rms, "; ".join(wrong[:2])


def _said(verdict: Comparison) -> str:
    return verdict.reason or f"error max {verdict.max_error:.1e}, RMS {verdict.rms_error:.1e}"


def without_saturation(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with int8 weights stored as uint8, 128 higher, and zero points 128 higher.

    On x86 processors that lack VNNI, ONNX Runtime multiplies uint8 by int8 with an instruction that adds pairs of
    products in saturating int16, so that its integer products are wrong. For uint8 by uint8 they are exact everywhere.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in result.graph.initializer}
    for node in result.graph.node:
        for weight, zero_point in _WEIGHTS.get(node.op_type, ()):
            tensor = stored.get(node.input[weight])
            if tensor is None or tensor.data_type != onnx.TensorProto.INT8:
                continue
            node.input.extend([""] * (zero_point + 1 - len(node.input)))
            old = node.input[zero_point]
            offset = numpy_helper.to_array(stored[old]) if old else np.int8(0)
            node.input[weight] = _unsigned(result, stored, tensor.name, numpy_helper.to_array(tensor))
            node.input[zero_point] = _unsigned(result, stored, old or f"{tensor.name}/zero_point", offset)
    return result


def _unsigned(
    model: onnx.ModelProto, stored: dict[str, onnx.TensorProto], name: str, array: np.ndarray | np.int8
) -> str:
    key = f"{name}/unsigned"
    if key not in stored:
        shifted = (np.asarray(array).astype(np.int16) + 128).astype(np.uint8)
        stored[key] = numpy_helper.from_array(shifted, key)
        model.graph.initializer.append(stored[key])
    return key
