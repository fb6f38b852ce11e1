"""Seeded weights by which untrained networks compute sane numbers: no layer's output dies, explodes or is constant.

Convolutions by He et al. (arXiv:1502.01852), linear layers so that variance is kept; whatever a definition sets to a
constant (scales, shifts, tables of biases) is varied a little; batch normalisations get the statistics of one batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fusible.benchmarks.zoo.architectures.table import SEED

__all__ = ["seeded"]


def seeded(build: Callable[[], nn.Module], name: str, batch: Sequence[torch.Tensor]) -> nn.Module:
    """Build a module with weights drawn from the seed of `name`, calibrated on `batch`, in evaluation mode.

    The generator of the process is left as it was.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(int.from_bytes(hashlib.sha256(f"{SEED} {name}".encode()).digest()[:8]))
        module = build()
        _initialise(module)
        _vary_constants(module)
    module.eval().requires_grad_(False)
    _calibrate(module, batch)
    return module


def _initialise(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        elif isinstance(layer, nn.LSTM):
            for weight in (parameter for parameter in layer.parameters() if parameter.ndim == 2):
                nn.init.normal_(weight, std=weight.shape[1] ** -0.5)


def _vary_constants(module: nn.Module) -> None:
    for parameter in module.parameters():
        first = parameter.flatten()[0]
        if (parameter == first).all():
            noise = torch.randn_like(parameter)
            parameter.copy_(first * torch.exp(noise / 8) if first else noise / 20)


def _calibrate(module: nn.Module, batch: Sequence[torch.Tensor]) -> None:
    """Set the running statistics of every batch normalisation to those of `batch`.

    In float64, so that the statistics in float32 do not depend on how a processor or a number of threads adds up.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches, of which there is one
        norm.train()
    with torch.no_grad():
        module.double()(*(array.double() if array.is_floating_point() else array for array in batch))
    module.float().eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
