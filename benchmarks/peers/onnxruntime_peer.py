"""ONNX Runtime on the CPU, with all its optimisations or none."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from fusible.benchmarks.peers.protocol import Job, PeerError

__all__ = ["System"]


class System:
    """The peers `onnxruntime` and `onnxruntime-unoptimised`."""

    def __init__(self, name: str, option: str) -> None:
        onnxruntime.set_default_logger_severity(4)
        self.version = str(onnxruntime.__version__)
        self._optimised = name == "onnxruntime"
        if option:
            raise PeerError(f"{name} has no option, got {option!r}")

    def load(self, job: Job) -> _Model:
        """Make a session with the job's number of threads."""
        try:
            session = onnxruntime.InferenceSession(
                str(job.model), self._options(job.threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no root of their own
            raise PeerError(f"onnxruntime cannot load the model: {_first_line(error)}") from error
        return _Model(session, job, self)

    def _options(self, threads: int) -> Any:
        options = onnxruntime.SessionOptions()
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if self._optimised else levels.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        return options

    def nodes(self, model: Path) -> int:
        """The nodes that are left after optimisation, without constants."""
        with tempfile.TemporaryDirectory(prefix="fusible-bench-") as folder:
            target = Path(folder) / "optimised.onnx"
            options = self._options(1)
            options.optimized_model_filepath = str(target)
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
            onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
            return _count(onnx.load(target, load_external_data=False).graph)


def _count(graph: onnx.GraphProto) -> int:
    """Nodes that compute; of an If the longer branch."""
    total = 0
    for node in graph.node:
        inner = [_count(a.g) for a in node.attribute if a.HasField("g")]
        total += (max(inner) if inner else 1) if node.op_type != "Constant" else 0
    return total


class _Model:
    def __init__(self, session: Any, job: Job, system: System) -> None:
        self._session, self._job, self._system = session, job, system
        self._names = [output.name for output in session.get_outputs()]
        wanted = {i.name for i in session.get_inputs()}
        self._inputs = {name: array for name, array in job.inputs.items() if name in wanted}

    def run(self) -> object:
        """One inference."""
        try:
            return self._session.run(self._names, self._inputs)
        except Exception as error:  # its errors have no root of their own
            raise PeerError(f"onnxruntime cannot run the model: {_first_line(error)}") from error

    def outputs(self) -> dict[str, np.ndarray]:
        """The outputs that are tensors."""
        results = self._session.run(self._names, self._inputs)
        return {n: r for n, r in zip(self._names, results, strict=True) if isinstance(r, np.ndarray)}

    def kernels(self) -> int | None:
        """Nodes of the optimised graph."""
        return self._system.nodes(self._job.model)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
