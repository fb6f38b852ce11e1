"""The zoo's architectures as torch modules, with the weights and inputs that their ONNX files have."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import nn

from fusible.benchmarks.zoo.architectures.table import architecture, example_inputs
from fusible.benchmarks.zoo.architectures.weights import seeded

__all__ = ["torch_module"]

_CALIBRATED_ON = 2  # rows of the batch


def torch_module(name: str, batch: int = 1) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """The module of architecture `name` in evaluation mode, and inputs for it, in the order of the ONNX inputs.

    Weights and inputs are those of the files that `catalog.obtain` returns. Raises UsageError for an unknown name.
    """
    row = architecture(name)
    builders = import_module(f"fusible.benchmarks.zoo.architectures.{row.family}").BUILDERS
    module = seeded(builders[name], row.weights, _tensors(name, _CALIBRATED_ON))
    return module, _tensors(name, batch)


def _tensors(name: str, batch: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(array) for array in example_inputs(name, batch).values())
