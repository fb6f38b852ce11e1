"""OpenVINO on the CPU: fp32 or bf16, one stream, latency."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

# Read when the package is imported: a benchmark sends nothing anywhere.
os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")

import openvino
import openvino.properties as properties
import openvino.properties.hint as hints

from fusible.benchmarks.peers.protocol import Job, PeerError

__all__ = ["System"]

_NO_WORK = frozenset({"Parameter", "Result", "Constant", "Input", "Output", "Const", "MemoryInput", "MemoryOutput"})


class System:
    """The peer `openvino`; option: bf16, which it computes in fp32 where the processor has no instructions for it."""

    def __init__(self, name: str, option: str) -> None:
        self.version = str(openvino.__version__).split("-")[0]
        if option not in ("", "bf16"):
            raise PeerError(f"{name} has no option but bf16, got {option!r}")
        self.precision = openvino.Type.bf16 if option else openvino.Type.f32

    def load(self, job: Job) -> _Model:
        """Read, fix the shapes to those of the inputs, compile."""
        core = openvino.Core()
        settings = {
            properties.inference_num_threads(): job.threads,
            hints.performance_mode(): hints.PerformanceMode.LATENCY,
            hints.inference_precision(): self.precision,
        }
        try:
            model = core.read_model(str(job.model))
            names = {name: port for port in model.inputs for name in port.get_names()}
            model.reshape({names[n]: openvino.PartialShape(list(a.shape)) for n, a in job.inputs.items() if n in names})
            return _Model(core.compile_model(model, "CPU", settings), job)
        except RuntimeError as error:
            raise PeerError(f"openvino cannot load the model: {_reason(error)}") from error


class _Model:
    """Inputs and outputs are shared with the request, so that no copy is timed."""

    def __init__(self, compiled: Any, job: Job) -> None:
        self._compiled, self._request = compiled, compiled.create_infer_request()
        self._arrays = {name: np.ascontiguousarray(array) for name, array in job.inputs.items()}
        for port in compiled.inputs:
            name = next((n for n in port.get_names() if n in self._arrays), None)
            if name is None:
                raise PeerError(f"openvino: no array for input {port.get_any_name()!r}")
            self._request.set_tensor(port, openvino.Tensor(self._arrays[name], shared_memory=True))

    def run(self) -> object:
        """One inference."""
        try:
            return self._request.infer(share_outputs=True)
        except RuntimeError as error:
            raise PeerError(f"openvino cannot run the model: {_reason(error)}") from error

    def outputs(self) -> dict[str, np.ndarray]:
        """The outputs by each of their names."""
        self._request.infer()
        found = {}
        for port in self._compiled.outputs:
            array = np.array(self._request.get_tensor(port).data)
            found.update(dict.fromkeys(port.get_names(), array))
        return found

    def kernels(self) -> int | None:
        """Execution nodes of the compiled graph."""
        return sum(_kind(node) not in _NO_WORK for node in self._compiled.get_runtime_model().get_ops())


def _kind(node: Any) -> str:
    information = node.get_rt_info()
    return str(information["layerType"].astype(str)) if "layerType" in information else str(node.get_type_name())


def _reason(error: RuntimeError) -> str:
    """The last line says what; those before it, where in the library's sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:300]
