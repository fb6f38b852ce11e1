"""ONNX Runtime on the CPU: a model of the one node, made by our exporter, with inputs and outputs bound beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime

from fusible.benchmarks.kernels.cases import Case
from fusible.benchmarks.kernels.counterparts.onnx_tables import TABLES, model_with_tables
from fusible.benchmarks.kernels.counterparts.protocol import BaselineError, Counterpart, NoCounterpart
from fusible.compiler.frontend.export import export_onnx
from fusible.compiler.frontend.load import onnx_dtype
from fusible.compiler.ir.types import DType
from fusible.errors import UnsupportedOp

__all__ = ["System", "one_node_model"]

# What its messages say where it has no kernel for an operator, or not for these types.
_LACKING = ("NOT_IMPLEMENTED", "Could not find an implementation", "is not a registered function/op")


class System:
    """Optimised as users have it; a model whose operands are all constant is not, for nothing would be left to run."""

    device = "cpu"

    def __init__(self) -> None:
        onnxruntime.set_default_logger_severity(4)
        self.version = str(onnxruntime.__version__)

    def build(self, case: Case, values: Sequence[Any], threads: int) -> Counterpart:
        """See `Baseline`."""
        model = one_node_model(case, values)
        inputs = {
            f"x{i}": v
            for i, (o, v) in enumerate(zip(case.operands, values, strict=True))
            if o is not None and not o.constant
        }
        session = _session(model, threads, optimised=bool(inputs))
        bound = _bound(session, inputs)
        names = [output.name for output in session.get_outputs()]
        if bound is not None:
            return Counterpart(bound, _results(session, names, inputs))
        return Counterpart(lambda: session.run(names, inputs), _results(session, names, inputs))


def one_node_model(case: Case, values: Sequence[Any]) -> onnx.ModelProto:
    """The case as an ONNX model. Raises NoCounterpart for what ONNX has no operator for."""
    graph = case.graph(values)
    if case.op in TABLES:
        return model_with_tables(graph, values)
    try:
        return export_onnx(graph)
    except UnsupportedOp as error:
        raise NoCounterpart(error.why) from error


def _session(model: onnx.ModelProto, threads: int, *, optimised: bool) -> Any:
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no root of their own
        lacking = any(words in str(error) for words in _LACKING)
        kind = NoCounterpart if lacking else BaselineError
        raise kind(f"onnxruntime cannot load the model of this node: {_first_line(error)}") from error


def _bound(session: Any, inputs: dict[str, Any]) -> Callable[[], object] | None:
    """A run with inputs in place and outputs in memory of ONNX Runtime's own; None where values cannot be bound."""
    if any(not isinstance(v, np.ndarray) or v.dtype == object for v in inputs.values()):
        return None
    if any(not o.type.startswith("tensor(") or o.type == "tensor(string)" for o in session.get_outputs()):
        return None
    try:
        binding = session.io_binding()
        keep = [_value(array) for array in inputs.values()]
        for name, value in zip(inputs, keep, strict=True):
            binding.bind_ortvalue_input(name, value)
        for output in session.get_outputs():
            binding.bind_output(output.name)
        session.run_with_iobinding(binding)
    except Exception as error:  # its errors have no root of their own
        raise BaselineError(f"onnxruntime cannot run this node: {_first_line(error)}") from error

    def run() -> object:
        session.run_with_iobinding(binding)
        return keep  # the memory that is bound must live as long

    return run


def _value(array: np.ndarray) -> Any:
    if array.dtype.isbuiltin == 1:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    kind = onnx_dtype(DType.of(array.dtype))
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(f"u{array.dtype.itemsize}"), kind)


def _results(session: Any, names: list[str], inputs: dict[str, Any]) -> Callable[[], Sequence[Any]]:
    def results() -> Sequence[Any]:
        try:
            found: Sequence[Any] = session.run(names, inputs)
        except Exception as error:  # its errors have no root of their own
            raise BaselineError(f"onnxruntime cannot run this node: {_first_line(error)}") from error
        return found

    return results


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
