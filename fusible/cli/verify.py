"""`fusible verify MODEL`: compile with every pass verified, run, and compare with a reference."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusible.cli.arrays import random_inputs, read_inputs
from fusible.cli.console import print_json, print_line, print_table, progress
from fusible.cli.models import compile_file, options_for
from fusible.cli.parameters import (
    InputsOption,
    JsonOption,
    ModelArgument,
    PrecisionOption,
    SeedOption,
    ShapeOption,
    TargetOption,
    TuningOption,
)
from fusible.cli.shapes import parse_shapes
from fusible.errors import UsageError

if TYPE_CHECKING:
    from fusible.compiler.accuracy import Bound, Comparison, StepBound
    from fusible.runtime.executable import Executable

__all__ = ["verify"]


class Reference(StrEnum):
    """What to compare with: ONNX Runtime, optimisations disabled, or our NumPy meanings of the unoptimised graph."""

    ONNXRUNTIME = "onnxruntime"
    NUMPY = "numpy"


AgainstOption = Annotated[
    Reference | None,
    typer.Option(help="Default: onnxruntime if it is installed, else the ops' NumPy meanings, unoptimised."),
]


def verify(
    model: ModelArgument,
    against: AgainstOption = None,
    inputs: InputsOption = None,
    target: TargetOption = "auto",
    shape: ShapeOption = None,
    precision: PrecisionOption = "fp32",
    tuning: TuningOption = None,
    seed: SeedOption = 0,
    json_output: JsonOption = False,
) -> None:
    """Compile MODEL with every pass verified and show the error of each output against a reference.

    Exit code 1 if an output is out of tolerance.
    """
    from fusible.compiler.accuracy import StepBound, compare_outputs

    executable = compile_file(model, target, shape or (), options=options_for(precision, verify=True, tuning=tuning))
    if inputs is not None:
        given: Mapping[str, Any] = read_inputs(inputs, executable.inputs)
    else:
        given = random_inputs(executable, seed)
    installed = importlib.util.find_spec("onnxruntime") is not None
    reference = against or (Reference.ONNXRUNTIME if installed else Reference.NUMPY)
    with progress(f"running {model.name}"):
        results = executable.run(given)
    with progress(f"running {reference.value}"):
        expected = _expected(reference, model, given, shape or ())
    bound = _bound(model, executable, precision)
    if precision == "bf16" and executable.target == "cpu" and not isinstance(bound, StepBound):
        with progress(f"running {reference.value} with rounded operands"):
            bound = _widened(bound, expected, reference, model, given, shape or ())
    verdicts = compare_outputs(expected, results, bound)
    if json_output:
        print_json(_facts(reference, bound, verdicts))
    else:
        _show(reference, bound, verdicts)
    if not all(verdicts.values()):
        raise typer.Exit(1)


def _expected(
    reference: Reference, model: Path, inputs: Mapping[str, Any], shapes: list[str] | tuple[()]
) -> dict[str, Any]:
    return _onnxruntime(model, inputs) if reference is Reference.ONNXRUNTIME else _numpy(model, inputs, shapes)


def _widened(
    row: Bound, expected: Mapping[str, Any], reference: Reference, model: Path, inputs: Mapping[str, Any],
    shapes: list[str] | tuple[()],
) -> Bound:  # fmt: skip
    """The row, or what rounding the operands of products does to the reference itself, if that is more."""
    import onnx

    from fusible.compiler.accuracy import compare_outputs, widened
    from fusible.compiler.frontend.rounded_products import with_rounded_products

    rounded = with_rounded_products(onnx.load(model))
    if rounded is None:
        return row
    with tempfile.TemporaryDirectory(prefix="fusible-verify-") as name:
        path = Path(name) / "rounded.onnx"
        onnx.save(rounded, path)
        moved = compare_outputs(expected, _expected(reference, path, inputs, shapes), row)
    return widened(row, moved.values())


def _onnxruntime(model: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Run ONNX Runtime with its optimiser off: the optimiser moves roundings."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError("onnxruntime is not installed; pip install onnxruntime, or --against numpy") from error
    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))
    except Exception as error:  # its errors have no root of their own
        raise UsageError(f"onnxruntime cannot run the model ({error}); use --against numpy") from error


def _numpy(model: Path, inputs: Mapping[str, Any], shapes: list[str] | tuple[()]) -> dict[str, Any]:
    """Compute the imported graph node by node, before any pass."""
    from fusible.compiler.api import import_graph
    from fusible.compiler.ir.evaluate import evaluate_graph

    graph = import_graph(model, shapes=parse_shapes(shapes))
    results = evaluate_graph(graph, [inputs[value.name] for value in graph.inputs])
    return dict(zip(graph.output_names, results, strict=True))


def _bound(model: Path, executable: Executable, precision: str) -> Bound | StepBound:
    """Choose the row of the tolerances: by whether the model rounds to steps, else by its narrowest floats."""
    from fusible.compiler.accuracy import model_bound, rounds_to_steps
    from fusible.compiler.frontend.load import load_model
    from fusible.compiler.options import Limits

    proto = load_model(model, Limits()).proto
    operators = {node.op_type for nodes in (proto.graph.node, *(f.node for f in proto.functions)) for node in nodes}
    dtypes = {str(spec.dtype) for spec in executable.outputs} | {str(array.dtype) for array in executable.constants}
    if precision == "fp32":
        precision = "bf16" if "bfloat16" in dtypes else "fp16" if "float16" in dtypes else "fp32"
    if precision == "tf32":
        precision = "fp16"  # it has as many bits of mantissa
    return model_bound(precision, quantised=rounds_to_steps(operators))


def _facts(reference: Reference, bound: Bound | StepBound, verdicts: Mapping[str, Comparison]) -> dict[str, Any]:
    return {
        "against": reference.value,
        "agrees": all(verdicts.values()),
        "bound": vars(bound),
        "outputs": [
            {
                "name": name,
                "agrees": verdict.agrees,
                "max_error": _finite(verdict.max_error),
                "rms_error": _finite(verdict.rms_error),
                "worst": None if verdict.worst is None else list(verdict.worst),
                "reason": verdict.reason,
            }
            for name, verdict in verdicts.items()
        ],
    }


def _finite(number: float) -> float | None:
    return float(number) if abs(number) < float("inf") else None


def _show(reference: Reference, bound: Bound | StepBound, verdicts: Mapping[str, Comparison]) -> None:
    rows = [
        (name, "yes" if verdict else "NO", f"{verdict.max_error:.2e}", f"{verdict.rms_error:.2e}", verdict.reason)
        for name, verdict in verdicts.items()
    ]
    print_table(("output", "agrees", "max error", "RMS error", ""), rows)
    allowed = ", ".join(f"{name} {value:g}" for name, value in vars(bound).items())
    print_line(f"against {reference.value}; allowed: {allowed}")
