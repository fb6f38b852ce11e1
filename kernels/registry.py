"""Registered kernels: implementations that replace an op's own on some targets, where they are legal and cheaper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["KERNELS", "Kernel", "KernelRegistry", "NodeFacts", "TensorFacts"]


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """dtype and shape of a tensor; symbolic dimensions are their text, an unknown rank is None."""

    dtype: np.dtype
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One use of an op, as plain data (absent and non-tensor inputs are None)."""

    op: str
    inputs: tuple[TensorFacts | None, ...]
    outputs: tuple[TensorFacts | None, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kernel:
    """An implementation of `op`: called with the op's inputs and keyword attributes, returns its outputs.

    legal(facts) -> True, or a reason (str) why not. cost(facts): lower wins; the op's own kernel has cost 1.0.
    """

    op: str
    targets: tuple[str, ...]
    function: Callable[..., Any]
    legal: Callable[[NodeFacts], bool | str]
    cost: Callable[[NodeFacts], float]
    version: int = 1

    @property
    def path(self) -> str:
        """`module:qualname`, by which an artifact finds the function again."""
        return f"{self.function.__module__}:{self.function.__qualname__}"


class KernelRegistry:
    """Registered kernels by op."""

    def __init__(self) -> None:
        self._kernels: dict[str, list[Kernel]] = {}

    def register(self, kernel: Kernel) -> None:
        """Add a kernel; later ones win ties."""
        self._kernels.setdefault(kernel.op, []).append(kernel)

    def unregister(self, kernel: Kernel) -> None:
        """Remove a kernel (for tests and interactive use)."""
        self._kernels[kernel.op].remove(kernel)

    def for_op(self, op: str) -> tuple[Kernel, ...]:
        """All kernels registered for an op."""
        return tuple(self._kernels.get(op, ()))

    def best(self, op: str, target: str, facts: NodeFacts) -> Kernel | None:
        """The cheapest legal kernel below the cost of the op's own (1.0), or None."""
        legal = [k for k in self._kernels.get(op, ()) if target in k.targets and k.legal(facts) is True]
        ranked = sorted(((k.cost(facts), -n, k) for n, k in enumerate(legal)), key=lambda item: item[:2])
        return ranked[0][2] if ranked and ranked[0][0] < 1.0 else None


KERNELS = KernelRegistry()
