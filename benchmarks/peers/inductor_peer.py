"""torch.compile with the inductor backend, on the torch module that the zoo exported the ONNX model from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch._inductor.config as inductor
import torch._inductor.metrics as metrics

from fusible.benchmarks.peers.protocol import Job, PeerError
from fusible.benchmarks.zoo.torch_modules import torch_module
from fusible.benchmarks.zoo.wheels import MODELS

__all__ = ["System"]


class System:
    """The peer `torch-inductor`."""

    def __init__(self, name: str, option: str) -> None:
        self.version = torch.__version__
        if option:
            raise PeerError(f"{name} has no option, got {option!r}")

    def load(self, job: Job) -> _Model:
        """Compile; the first run does most of the work."""
        if not job.name or job.name in MODELS:
            raise PeerError("torch-inductor needs the torch module; this model exists as an ONNX file only")
        torch.set_num_threads(job.threads)
        inductor.freezing = True
        module, _ = torch_module(job.name)
        return _Model(module, job)


class _Model:
    def __init__(self, module: torch.nn.Module, job: Job) -> None:
        metrics.reset()
        self._inputs = tuple(torch.from_numpy(array) for array in job.inputs.values())
        self._compiled = torch.compile(module.eval(), backend="inductor")
        self._kernels: int | None = None

    def run(self) -> object:
        """One inference."""
        with torch.inference_mode(False), torch.no_grad():
            return self._compiled(*self._inputs)

    def outputs(self) -> dict[str, np.ndarray]:
        """The outputs in order; torch modules do not name theirs."""
        return {str(index): tensor.numpy() for index, tensor in enumerate(_flat(self.run()))}

    def kernels(self) -> int | None:
        """Kernels that inductor generated, without calls into libraries; None if an earlier launch's were reused."""
        return int(metrics.generated_kernel_count) or None


def _flat(result: Any) -> list[torch.Tensor]:
    match result:
        case torch.Tensor():
            return [result]
        case dict():
            return [t for value in result.values() for t in _flat(value)]
        case tuple() | list():
            return [t for value in result for t in _flat(value)]
    return []
