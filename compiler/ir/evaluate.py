"""Run a graph directly with the NumPy meanings of its ops: constant folding, oracles, checks of rewrites.

No plan, no arena: every value is a fresh array. Subgraphs (If, Loop) are run recursively.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.ops import kernel_arguments
from fusible.compiler.ir.symbol_values import evaluate
from fusible.compiler.ir.symbols import Symbol, SymInt
from fusible.compiler.ir.types import TensorType, Type
from fusible.errors import FusibleError, InvalidModel, LimitExceeded

__all__ = ["RuntimeValue", "bind_symbols", "evaluate_graph", "evaluate_node", "resolve_attributes"]

RuntimeValue: TypeAlias = "np.ndarray | list[Any] | None"


def evaluate_graph(
    graph: Graph,
    inputs: Sequence[RuntimeValue],
    env: Mapping[str, int] | None = None,
    *,
    loop_iterations: int = 100_000,
    observe: Callable[[Value, RuntimeValue], None] | None = None,
) -> list[RuntimeValue]:
    """Compute the outputs. `env` gives symbols that no input defines; `observe` sees every value computed.

    Raises FusibleError naming the node if a kernel refuses its operands.
    """
    symbols = dict(env or {})
    values: dict[Value, RuntimeValue] = {}
    for formal, given in zip(graph.inputs, inputs, strict=True):
        values[formal] = given
        bind_symbols(formal.type, given, symbols)
    for node in graph:
        operands = [_read(values, v) for v in node.inputs]
        results = evaluate_node(node, operands, symbols, loop_iterations=loop_iterations)
        for output, result in zip(node.outputs, results, strict=True):
            values[output] = result
            bind_symbols(output.type, result, symbols)
            if observe is not None:
                observe(output, result)
    return [_read(values, v) for v in graph.outputs]


def _read(values: dict[Value, RuntimeValue], value: Value | None) -> RuntimeValue:
    if value is None:
        return None
    return value.constant.array if value.constant is not None else values[value]


def bind_symbols(type_: Type, given: RuntimeValue, symbols: dict[str, int]) -> None:
    """Give values to the symbols that stand alone in a tensor's shape and have none yet."""
    if not isinstance(type_, TensorType) or type_.shape is None or not isinstance(given, np.ndarray):
        return
    if given.ndim != len(type_.shape):
        raise InvalidModel(f"a tensor of rank {given.ndim} where {type_} was inferred")
    for dim, extent in zip(type_.shape, given.shape, strict=True):
        if isinstance(dim, SymInt) and len(dim.terms) == 1:
            monomial, coefficient = dim.terms[0]
            if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], Symbol):
                symbols.setdefault(monomial[0].name, int(extent))


def resolve_attributes(node: Node, symbols: Mapping[str, int]) -> dict[str, Any]:
    """The node's attributes as keyword arguments, symbolic dims evaluated."""
    return {name: _resolve(value, symbols) for name, value in kernel_arguments(node.attrs).items()}


def _resolve(value: Any, symbols: Mapping[str, int]) -> Any:
    if isinstance(value, SymInt):
        return int(evaluate(value, symbols))
    if isinstance(value, tuple):
        return tuple(_resolve(v, symbols) for v in value)
    return value


def evaluate_node(
    node: Node, operands: Sequence[RuntimeValue], symbols: Mapping[str, int], *, loop_iterations: int = 100_000
) -> list[RuntimeValue]:
    """Compute one node's outputs from its operands' run-time values."""
    if node.op.name == "if":
        return _run_if(node, operands, symbols, loop_iterations)
    if node.op.name == "loop":
        return _run_loop(node, operands, symbols, loop_iterations)
    if node.op.name == "fused":
        return evaluate_graph(node.subgraphs[0], operands, symbols, loop_iterations=loop_iterations)
    try:
        result = node.op.numpy(*operands, **resolve_attributes(node, symbols))
    except FusibleError:
        raise
    except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError) as error:
        raise InvalidModel(f"{node.op.name} at {node.where}: {error}") from error
    return list(result) if isinstance(result, tuple) else [result]


def _run_if(
    node: Node, operands: Sequence[RuntimeValue], symbols: Mapping[str, int], loop_iterations: int
) -> list[RuntimeValue]:
    taken = node.subgraphs[0 if bool(np.asarray(operands[0]).reshape(())) else 1]
    return evaluate_graph(taken, list(operands[1:]), symbols, loop_iterations=loop_iterations)


def _run_loop(
    node: Node, operands: Sequence[RuntimeValue], symbols: Mapping[str, int], loop_iterations: int
) -> list[RuntimeValue]:
    body, carried_count = node.subgraphs[0], node.attrs.carried
    trip = None if operands[0] is None else int(np.asarray(operands[0]).reshape(()))
    going = True if operands[1] is None else bool(np.asarray(operands[1]).reshape(()))
    carried, captures = list(operands[2 : 2 + carried_count]), list(operands[2 + carried_count :])
    scans: list[list[RuntimeValue]] = [[] for _ in range(len(node.outputs) - carried_count)]
    iteration = 0
    while going and (trip is None or iteration < trip):
        if iteration >= loop_iterations:
            raise LimitExceeded("loop_iterations", "more", loop_iterations, node.where)
        arguments = [np.asarray(iteration, np.int64), np.asarray(going), *carried, *captures]
        results = evaluate_graph(body, arguments, symbols, loop_iterations=loop_iterations)
        going = bool(np.asarray(results[0]).reshape(()))
        carried = results[1 : 1 + carried_count]
        for scan, result in zip(scans, results[1 + carried_count :], strict=True):
            scan.append(result)
        iteration += 1
    return [*carried, *(_stack(s, body.outputs[1 + carried_count + n].type) for n, s in enumerate(scans))]


def _stack(items: list[RuntimeValue], type_: Type) -> np.ndarray:
    if items:
        return np.stack([np.asarray(i) for i in items])
    assert isinstance(type_, TensorType)
    shape = tuple(d if isinstance(d, int) else 0 for d in type_.shape or ())
    return np.empty((0, *shape), type_.dtype.numpy)
