"""Our kernels, ready to be called: what a run executes for one node, on buffers that are there already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusible.benchmarks.kernels.cases import Case
from fusible.compiler.backends.numpy import NumpyBackend
from fusible.compiler.ir.facts import node_facts
from fusible.compiler.ir.graph import Graph, Node
from fusible.compiler.ir.ops import kernel_arguments, kernel_module
from fusible.compiler.lower import lower
from fusible.compiler.options import Options
from fusible.compiler.outcome import Outcome
from fusible.errors import LoweringError
from fusible.kernels.registry import KERNELS, Kernel
from fusible.runtime.executable import Executable
from fusible.runtime.plan import Call, Launch
from fusible.runtime.signature import DTYPES

__all__ = ["GENERATED", "Refused", "Subject", "subjects_of"]

GENERATED = "generated"
DEVICES = {"numpy": "cpu"}


@dataclass(frozen=True)
class Subject:
    """A kernel of ours on the operands of a case.

    name: the kernel's function, `generated` where the backend prints one. device: where it runs. call: one call;
    results: what it leaves. view: it hands out memory of its operand and moves nothing.
    """

    name: str
    device: str
    call: Callable[[], object]
    results: Callable[[], Sequence[Any]]
    view: bool = False


@dataclass(frozen=True)
class Refused:
    """A registered kernel that does not take the case, and its reason."""

    name: str
    device: str
    reason: str


def subjects_of(case: Case, values: Sequence[Any]) -> list[Subject | Refused]:
    """The kernel that Fusible brings for the op, then those registered for it from outside.

    Raises InvalidModel if the operands do not fit the op, LoweringError if it is no kernel.
    """
    graph = case.graph(values)
    with _only_own_kernels(case.op):
        found: list[Subject | Refused] = [_own(graph, values)]
    node = next(iter(graph))
    found += [_registered(kernel, node, values) for kernel in KERNELS.for_op(case.op)]
    return found


@contextmanager
def _only_own_kernels(op: str) -> Iterator[None]:
    """Within the block the backend finds no kernel registered from outside for the op."""
    registered = KERNELS.for_op(op)
    for kernel in registered:
        KERNELS.unregister(kernel)
    try:
        yield
    finally:
        for kernel in registered:
            KERNELS.register(kernel)


def _own(graph: Graph, values: Sequence[Any]) -> Subject:
    node = next(iter(graph))
    executable = lower(graph, NumpyBackend(), Options(), Outcome())
    step = next((s for s in executable.plan.steps if isinstance(s, (Launch, Call))), None)
    if step is None:
        raise LoweringError(f"op {node.op.name}", {"numpy": "it is no kernel, so there is nothing to time"})
    kernel = executable.kernel(step.kernel)
    name, operands = _name(executable, node), tuple(values[: len(node.inputs)])
    if isinstance(step, Call):
        return Subject(name, "cpu", lambda: kernel(*operands), _returned(kernel, operands), step.view)
    outputs = tuple(_buffer(executable, number) for number in step.outputs)
    return Subject(name, "cpu", lambda: kernel(*operands, *outputs), _written(kernel, operands, outputs))


def _name(executable: Executable, node: Node) -> str:
    """The kernel's path where the generated function calls it; what it computes itself has no name of its own."""
    path = node.op.kernel
    if path is None:
        function = node.op.function
        assert function is not None
        return f"{function.__module__}:{function.__qualname__}"
    return path if f"import {kernel_module(path)} as " in executable.source else GENERATED


def _buffer(executable: Executable, number: int) -> np.ndarray:
    """An array for an output, full of what no kernel writes."""
    value = executable.plan.values[number]
    shape = tuple(d for d in value.shape or () if isinstance(d, int))
    array = np.empty(shape, DTYPES[value.dtype])
    if array.dtype.kind in "fc":
        array.fill(np.nan)
    return array


def _returned(kernel: Callable[..., Any], operands: tuple[Any, ...]) -> Callable[[], Sequence[Any]]:
    def results() -> Sequence[Any]:
        result = kernel(*operands)
        return result if isinstance(result, tuple) else (result,)

    return results


def _written(
    kernel: Callable[..., Any], operands: tuple[Any, ...], outputs: tuple[np.ndarray, ...]
) -> Callable[[], Sequence[Any]]:
    def results() -> Sequence[Any]:
        kernel(*operands, *outputs)
        return outputs

    return results


def _registered(kernel: Kernel, node: Node, values: Sequence[Any]) -> Subject | Refused:
    device = DEVICES.get(kernel.targets[0], kernel.targets[0])
    verdict = kernel.legal(node_facts(node))
    if verdict is not True:
        return Refused(kernel.path, device, f"not legal here: {verdict or 'it does not say why'}")
    function, arguments = kernel.function, kernel_arguments(node.attrs)
    operands = tuple(values[: len(node.inputs)])

    def call() -> Any:
        return function(*operands, **arguments)

    def results() -> Sequence[Any]:
        result = call()
        return result if isinstance(result, tuple) else (result,)

    return Subject(kernel.path, device, call, results)
