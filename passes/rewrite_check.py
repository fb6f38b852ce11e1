"""verify="rewrites": run the piece that a rule matched and the piece it built on the same random inputs and compare.

Both pieces are copied out of the graph with the values that enter them as inputs. Symbols get small values within
their bounds. Where the piece that was there refuses random data (an index out of range), nothing is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fusible.compiler.ir.evaluate import RuntimeValue, evaluate_graph
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbol_values import evaluate, symbols_of
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt
from fusible.compiler.ir.text import print_graph
from fusible.compiler.ir.types import DType, TensorType, type_symbols
from fusible.errors import FusibleError, PassError, UsageError
from fusible.passes.base import PassContext
from fusible.passes.match import Match
from fusible.passes.rewrite import Rule, attributes

__all__ = ["check_rewrite", "piece", "random_inputs"]

_SMALL = (2, 3, 5, 4, 7)


def check_rewrite(
    context: PassContext,
    pass_name: str,
    rule: Rule,
    match: Match,
    old: Sequence[Value],
    made: Sequence[Value],
    new: Sequence[Node],
) -> None:
    """Raise PassError with both graphs if a rewrite changes numbers by more than its exactness allows."""
    if context.verify != "rewrites":
        return
    if context.compare is None:
        raise UsageError('verify="rewrites" needs PassContext.compare: what counts as equal')
    before_nodes = match.matched[::-1]
    entering = _entering(before_nodes, new, made)
    before = piece("before", _in_order(before_nodes), entering, old)
    after = piece("after", new, entering, made)
    inputs, env = random_inputs(entering, context.seed + context.applications)
    try:
        expected = evaluate_graph(before, inputs, env, loop_iterations=context.loop_iterations)
    except FusibleError:
        return
    where = f"rule {rule.name!r} at {match.root.where}"
    try:
        got = evaluate_graph(after, inputs, env, loop_iterations=context.loop_iterations)
    except FusibleError as error:
        detail = f"{where}: what it built fails on random inputs: {error}\n{_both(before, after)}"
        raise PassError(pass_name, detail) from error
    for reference, result in zip(expected, got, strict=True):
        if isinstance(reference, np.ndarray) and isinstance(result, np.ndarray):
            wrong = context.compare(reference, result, rule.exactness)
            if wrong:
                stated = f"{where} ({rule.exactness.name}) changes numbers: {wrong}"
                raise PassError(pass_name, f"{stated}\n{_both(before, after)}")


def _both(before: Graph, after: Graph) -> str:
    return f"{print_graph(before)}\n{print_graph(after)}"


def _in_order(nodes: Sequence[Node]) -> list[Node]:
    """Matched nodes in graph order: operands before users."""
    inside, done = set(nodes), dict[Node, None]()

    def visit(node: Node) -> None:
        if node in done:
            return
        for operand in node.inputs:
            if operand is not None and operand.producer in inside:
                visit(operand.producer)
        done[node] = None

    for node in nodes:
        visit(node)
    return list(done)


def _entering(before: Sequence[Node], after: Sequence[Node], results: Sequence[Value]) -> list[Value]:
    """The values that the old nodes read and did not compute, and those that only the new ones read."""
    computed = {value for node in (*before, *after) for value in node.outputs}
    read = [value for node in (*before, *after) for value in node.inputs if value is not None]
    # What the new nodes read of the old ones (a shared interior value) enters the new piece too.
    interior = {value for node in before for value in node.outputs}
    reused = [v for v in (*(o for n in after for o in n.inputs if o is not None), *results) if v in interior]
    outer = [v for v in (*read, *results) if v.constant is None and v not in computed]
    return list(dict.fromkeys((*outer, *reused)))


def piece(name: str, nodes: Iterable[Node], entering: Sequence[Value], results: Sequence[Value]) -> Graph:
    """A copy of some nodes, given in order, as a graph of its own with the `entering` values as inputs."""
    graph = Graph(name)
    copies: dict[Value, Value] = {}
    names: dict[str, int] = {}
    for value in entering:
        base = value.name or "x"
        names[base] = names.get(base, -1) + 1
        copies[value] = graph.input(value.type, base if not names[base] else f"{base}_{names[base]}")
    for node in nodes:
        operands = [None if v is None else _copied(graph, copies, v) for v in node.inputs]
        copy = graph.add_node(
            node.op,
            operands,
            attributes(node),
            outputs=len(node.outputs),
            names=[v.name for v in node.outputs],
            origin=node.origin,
            subgraphs=node.subgraphs,
            types=[v.type for v in node.outputs],
        )
        for value, new in zip(node.outputs, copy.outputs, strict=True):
            copies.setdefault(value, new)
    graph.set_outputs([_copied(graph, copies, v) for v in results], [f"y{i}" for i in range(len(results))])
    return graph


def _copied(graph: Graph, copies: dict[Value, Value], value: Value) -> Value:
    if value.constant is not None and value not in copies:
        copies[value] = graph.constant(value.constant, value.name)
    return copies[value]


def random_inputs(values: Sequence[Value], seed: int) -> tuple[list[RuntimeValue], dict[str, int]]:
    """Random contents for values, and the sizes chosen for the symbols of their types."""
    rng = np.random.default_rng(seed)
    env: dict[str, int] = {}
    for value in values:
        needed = dict(type_symbols(value.type))
        if value.content is not None:
            needed.update({s: None for d in value.content.flat if isinstance(d, SymInt) for s in symbols_of(d)})
        _choose(needed, env)
    return [_random(value, rng, env) for value in values], env


def _choose(symbols: Iterable[Symbol], env: dict[str, int]) -> None:
    for symbol in symbols:
        size = max(symbol.lower, _SMALL[len(env) % len(_SMALL)])
        env.setdefault(symbol.name, size if symbol.upper is None else min(size, symbol.upper))


def _random(value: Value, rng: np.random.Generator, env: Mapping[str, int]) -> RuntimeValue:
    type_ = value.type
    if not isinstance(type_, TensorType):
        return []
    sizes: Sequence[Dim] = (2, 3) if type_.shape is None else type_.shape
    shape = tuple(max(0, int(evaluate(d, env))) for d in sizes)
    if value.content is not None:
        known = [evaluate(item, env) if isinstance(item, SymInt) else item for item in value.content.flat]
        return np.asarray(known, dtype=object).reshape(shape).astype(type_.dtype.numpy)
    return random_array(type_.dtype, shape, rng)


def random_array(dtype: DType, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Normal numbers for floats, 0 and 1 for integers (they may be indices), coins for booleans, short strings."""
    if dtype is DType.STRING:
        return np.full(shape, "a", dtype=object)
    if dtype is DType.BOOL or dtype.is_integer:
        return rng.integers(0, 2, shape).astype(dtype.numpy)
    if dtype.is_complex:
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype.numpy)
    return rng.standard_normal(shape).astype(np.float32).astype(dtype.numpy)
