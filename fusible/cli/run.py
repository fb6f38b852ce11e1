"""`fusible run MODEL|ARTIFACT`: run once, on given or random inputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer

from fusible.cli.arrays import random_inputs, read_inputs, write_outputs
from fusible.cli.console import print_json, print_table, progress
from fusible.cli.models import open_executable
from fusible.cli.parameters import (
    AllowHostOption,
    InputsOption,
    JsonOption,
    PrecisionOption,
    ProgramArgument,
    SeedOption,
    ShapeOption,
    TargetOption,
    TuningOption,
)

__all__ = ["run"]

OutputsOption = Annotated[Path | None, typer.Option("--outputs", metavar="Y.npz", help="Write the outputs, by name.")]


def run(
    program: ProgramArgument,
    inputs: InputsOption = None,
    outputs: OutputsOption = None,
    target: TargetOption = "auto",
    shape: ShapeOption = None,
    precision: PrecisionOption = "fp32",
    tuning: TuningOption = None,
    allow_host: AllowHostOption = False,
    seed: SeedOption = 0,
    json_output: JsonOption = False,
) -> None:
    """Run MODEL or ARTIFACT on arrays from a file, or on random ones, and describe its outputs."""
    executable = open_executable(program, target, shape or (), precision, allow_host=allow_host, tuning=tuning)
    if inputs is not None:
        given: Mapping[str, Any] = read_inputs(inputs, executable.inputs)
    else:
        given = random_inputs(executable, seed)
    began = perf_counter()
    with progress(f"running {program.name}"):
        results = executable.run(given)
    seconds = perf_counter() - began
    if outputs is not None:
        write_outputs(outputs, results)
    rows = [summary(name, value) for name, value in results.items()]
    if json_output:
        print_json({"seconds": round(seconds, 6), "outputs": rows})
    else:
        columns = ("name", "kind", "dtype", "shape", "min", "mean", "max")
        print_table(columns, [[_cell(row.get(column)) for column in columns] for row in rows])


def summary(name: str, value: Any) -> dict[str, Any]:
    """Describe an output: its kind, and of a tensor the dtype, the shape, and the range if it holds finite numbers."""
    if value is None:
        return {"name": name, "kind": "none"}
    if isinstance(value, list):
        return {"name": name, "kind": "sequence", "shape": [len(value)]}
    row = {"name": name, "kind": "tensor", "dtype": str(value.dtype), "shape": list(value.shape)}
    return row | _range(value)


def _range(array: np.ndarray) -> dict[str, float]:
    if array.size == 0 or array.dtype.kind in "OUSc":
        return {}
    wide = array.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    if finite.size == 0:
        return {}
    return {"min": float(finite.min()), "mean": float(finite.mean()), "max": float(finite.max())}


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.6g}"
        case list():
            return "x".join(map(str, value)) or "scalar"
        case _:
            return str(value)
