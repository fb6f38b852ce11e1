"""ONNX Runtime on the CPU, with all its optimisations or none."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from fusible.benchmarks.peers.protocol import Job, PeerError

__all__ = ["System", "optimised_model", "optimised_nodes"]


class System:
    """The peers `onnxruntime` and `onnxruntime-unoptimised`.

    Option `ort`: the first launch optimises the model and saves it in ONNX Runtime's own format, which later ones load.
    """

    def __init__(self, name: str, option: str) -> None:
        onnxruntime.set_default_logger_severity(4)
        self.version = str(onnxruntime.__version__)
        self.optimised = name == "onnxruntime"
        if option not in ("", "ort") or (option and not self.optimised):
            raise PeerError(f"{name} has {'the option ort' if self.optimised else 'no option'}, got {option!r}")
        self._saves = option == "ort"

    def load(self, job: Job) -> _Model:
        """Make a session with the job's number of threads."""
        options, path = self._options(job.threads), job.model
        if self._saves and job.cache is not None:
            saved = job.cache / "model.ort"
            if saved.exists():
                path = saved
                options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is done
            else:
                options.optimized_model_filepath = str(saved)
                options.add_session_config_entry("session.save_model_format", "ORT")
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no root of their own
            raise PeerError(f"onnxruntime cannot load the model: {_first_line(error)}") from error
        return _Model(session, job, self)

    def _options(self, threads: int) -> Any:
        options = onnxruntime.SessionOptions()
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if self.optimised else levels.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        return options


def optimised_nodes(model: Path, level: str = "ORT_ENABLE_ALL") -> Counter[str]:
    """The nodes that ONNX Runtime's optimisations leave of a model, by operator, without Constants.

    Of an If the longer branch counts. level: see `optimised_model`.
    """
    return _count(optimised_model(model, level).graph)


def optimised_model(model: Path, level: str) -> onnx.ModelProto:
    """The model that ONNX Runtime optimises a file to, without its weights. level: a GraphOptimizationLevel's name."""
    with tempfile.TemporaryDirectory(prefix="fusible-bench-") as folder:
        target = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.log_severity_level = 4
        options.optimized_model_filepath = str(target)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        return onnx.load(target, load_external_data=False)


def _count(graph: onnx.GraphProto) -> Counter[str]:
    """Nodes that compute, by operator; of an If the longer branch."""
    total: Counter[str] = Counter()
    for node in graph.node:
        inner = [_count(a.g) for a in node.attribute if a.HasField("g")]
        if node.op_type != "Constant":
            total += _longest(inner) if inner else Counter([node.op_type])
    return total


def _longest(branches: list[Counter[str]]) -> Counter[str]:
    return branches[max(range(len(branches)), key=lambda n: branches[n].total())]


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
        level = "ORT_ENABLE_ALL" if self._system.optimised else "ORT_DISABLE_ALL"
        return optimised_nodes(self._job.model, level).total()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
