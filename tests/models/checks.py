"""What every model must do: verify and print after every pass, compile to the same bytes twice, run bare."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import fusible
from fusible.compiler.api import compile_with
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.text import parse_graph, print_graph
from fusible.passes.instruments import Instrument, Step
from tests import oracle
from tests.tolerance import assert_outputs_close

Inputs = dict[str, np.ndarray]
Source = Path | onnx.ModelProto

ROOT = Path(__file__).resolve().parents[2]
BARE = Path(__file__).with_name("bare_process.py")


@dataclass
class RoundTrip(Instrument):
    """Prints, parses and prints the graph before the first pass and after each one that changed it."""

    seen: list[str] = field(default_factory=list)

    def start(self, graph: Graph) -> None:
        self._check(graph, "import")

    def after(self, step: Step, graph: Graph) -> None:
        self.seen.append(step.name)
        if step.changes:
            self._check(graph, step.title)

    def _check(self, graph: Graph, title: str) -> None:
        text = print_graph(graph)
        assert print_graph(parse_graph(text)) == text, f"printed again, the graph after {title} differs"


def compile_checked(
    source: Source, shapes: Mapping[str, tuple[int, ...]] | None = None, target: str = "numpy"
) -> fusible.Executable:
    """Compile; verify the graph and its text after every pass. shapes: those of whole inputs."""
    round_trip = RoundTrip()
    options = fusible.Options(verify="passes")
    executable = compile_with(source, target, shapes=shapes, options=options, instruments=[round_trip])
    assert set(round_trip.seen) == {pass_.name for stage in fusible.pipeline(target).stages for pass_ in stage.passes}
    return executable


def assert_agrees(
    executable: fusible.Executable, source: Source, sets: Sequence[Inputs], margin: float | None = None
) -> None:
    """One executable, all input sets, against ONNX Runtime; buffers and outputs start as NaN.

    margin: None, or for a quantised model how far the inputs must keep away from ties (see `oracle.tie_margin`).
    """
    quantised = margin is not None
    if margin is not None:
        source = oracle.without_saturation(source if isinstance(source, onnx.ModelProto) else onnx.load(source))
        for inputs in sets:
            assert oracle.tie_margin(source, inputs) >= margin, "this input is close to a tie: choose another"
    reference = oracle.session(source)
    session = executable.session()
    session._poison = True
    for inputs in sets:
        assert_outputs_close(session.run(inputs), oracle.run(reference, inputs), quantised=quantised)


def assert_same_artifact_twice(executable: fusible.Executable, source: Source, folder: Path) -> Path:
    """Compile once more, in another process with another hash seed, and compare the files. Returns an artifact."""
    first, second, model = folder / "first.fusible", folder / "second.fusible", folder / "model.onnx"
    executable.save(first)
    if isinstance(source, onnx.ModelProto):
        onnx.save(source, model)
    else:
        model = source
    script = "import fusible, sys; fusible.compile(sys.argv[1], target='numpy').save(sys.argv[2])"
    environment = {**os.environ, "PYTHONHASHSEED": "4321", "PYTHONPATH": str(ROOT)}
    _run([sys.executable, "-c", script, str(model), str(second)], environment)
    assert first.read_bytes() == second.read_bytes(), "two compilations of one model differ"
    second.unlink()
    return first


def assert_runs_bare(executable: fusible.Executable, artifact: Path, inputs: Mapping[str, np.ndarray]) -> None:
    """Run the artifact where only the standard library, NumPy, ml_dtypes and Fusible's runtime can be imported."""
    given, returned = artifact.with_name("inputs.npz"), artifact.with_name("outputs.npz")
    names = list(inputs)
    np.savez(given, *inputs.values())
    _run([sys.executable, "-I", str(BARE), str(ROOT), str(artifact), str(given), str(returned), *names], None)
    expected = list(executable.run(inputs).values())
    with np.load(returned) as arrays:
        assert len(arrays.files) == len(expected)
        for number, wanted in enumerate(expected):
            np.testing.assert_array_equal(arrays[f"arr_{number}"], wanted)


def _run(command: Sequence[str], environment: Mapping[str, str] | None) -> None:
    done: Any = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
