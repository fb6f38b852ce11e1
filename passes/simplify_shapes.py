"""Arithmetic on shapes becomes what it means.

A small integer or boolean value whose elements are all known becomes a constant, or a `dims` node if symbols are among
them; `reshape_dynamic`, `expand_dynamic`, `squeeze_dynamic`, `unsqueeze_dynamic`, `tile_dynamic`, `slice_dynamic` and
`reduce_dynamic` become static where their operands are known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import Dim, SymInt, bounds_of, exact_div, product
from fusible.compiler.ir.types import TensorType
from fusible.errors import InvalidModel
from fusible.passes.base import PassContext
from fusible.passes.ledger import Kind
from fusible.passes.refinement import is_used, type_change
from fusible.passes.refining_pass import RefiningPass

__all__ = ["SimplifyShapes"]


class SimplifyShapes(RefiningPass):
    """The pass `simplify-shapes`."""

    name = "simplify-shapes"

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """One walk in order."""
        changes = 0
        for node in graph:
            if len(node.outputs) != 1 or not is_used(graph, node.output) or context.exhausted:
                continue
            with graph.inserting_before(node, node.origin):
                try:
                    made = _known_value(graph, node) if node.op.name != "dims" else None
                    made = made if made is not None else _static(graph, node)
                except InvalidModel as error:
                    self.note(context, Kind.DECLINED, node.origin, f"the static form does not fit: {error}", node)
                    continue
            if made is not None and self._replace(graph, node, made):
                context.take()
                changes += 1
        return changes

    def _replace(self, graph: Graph, node: Node, made: Value) -> bool:
        change = type_change(node.output, made, [node], self._known)
        if change.wrong or change.reason:
            if made.producer is not None and made.producer is not node and not made.uses:
                graph.erase(made.producer)
            return False
        self.learn(change)
        made.name = made.name or node.output.name
        graph.redirect(node.output, made)
        self.retire(graph, node)
        return True


def _known_value(graph: Graph, node: Node) -> Value | None:
    """A constant or `dims` for an output whose elements are known."""
    content, type_ = node.output.content, node.output.type
    if content is None or not isinstance(type_, TensorType) or not node.op.pure or node.subgraphs:
        return None
    dtype = type_.dtype
    if not any(isinstance(item, SymInt) for item in content.flat):
        integral = dtype.is_integer or dtype.value == "bool"
        return graph.constant(content.astype(dtype.numpy)) if integral else None
    if not dtype.is_integer or dtype.numpy.itemsize < 4:
        return None
    shape = tuple(int(d) for d in content.shape)
    values = tuple(item if isinstance(item, SymInt) else int(item) for item in content.flat)
    return graph.add("dims", values=values, shape=shape, dtype=dtype)


def _static(graph: Graph, node: Node) -> Value | None:
    build = _STATIC.get(node.op.name)
    return None if build is None else build(graph, node)


def _dims(node: Node, index: int) -> tuple[Dim, ...] | None:
    """The known elements of an operand as flat dims."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or value.content is None:
        return None
    return tuple(item if isinstance(item, SymInt) else int(item) for item in value.content.flat)


def _ints(node: Node, index: int) -> tuple[int, ...] | None:
    dims = _dims(node, index)
    found = tuple(d for d in dims or () if isinstance(d, int))
    return None if dims is None or len(found) != len(dims) else found


def _reshape(graph: Graph, node: Node) -> Value | None:
    x, target = node.inputs[0], _dims(node, 1)
    assert x is not None
    old = x.type.shape if isinstance(x.type, TensorType) else None
    if target is None or old is None:
        return None
    zeros = not node.attrs.allowzero
    if zeros and any(d == 0 for d in target[len(old) :]):
        return None
    sizes = [old[i] if zeros and isinstance(d, int) and d == 0 else d for i, d in enumerate(target)]
    if any(isinstance(d, SymInt) and (bounds_of(d)[0] or 0) < (1 if zeros else 0) for d in target):
        return None  # it may be 0, which copies, or -1
    if sizes.count(-1) == 1:
        rest = exact_div(product(old), product(d for d in sizes if d != -1))
        if rest is None:
            return None
        sizes = [rest if d == -1 else d for d in sizes]
    if any(isinstance(d, int) and d < 0 for d in sizes):
        return None
    return graph.add("reshape", x, shape=tuple(sizes))


def _expand(graph: Graph, node: Node) -> Value | None:
    target = _dims(node, 1)
    if target is None or any(isinstance(d, int) and d < 0 for d in target):
        return None
    return graph.add("expand", node.inputs[0], shape=target)


def _axes(name: str) -> Callable[[Graph, Node], Value | None]:
    def build(graph: Graph, node: Node) -> Value | None:
        axes = _ints(node, 1)
        return None if axes is None else graph.add(name, node.inputs[0], axes=axes)

    return build


def _tile(graph: Graph, node: Node) -> Value | None:
    repeats = _dims(node, 1)
    return None if repeats is None else graph.add("tile", node.inputs[0], repeats=repeats)


def _slice(graph: Graph, node: Node) -> Value | None:
    starts, ends = _ints(node, 1), _ints(node, 2)
    if starts is None or ends is None:
        return None
    absent = [index >= len(node.inputs) or node.inputs[index] is None for index in (3, 4)]
    axes = tuple(range(len(starts))) if absent[0] else _ints(node, 3)
    steps = (1,) * len(starts) if absent[1] else _ints(node, 4)
    if axes is None or steps is None:
        return None
    return graph.add("slice", node.inputs[0], starts=starts, ends=ends, axes=axes, steps=steps)


def _reduce(graph: Graph, node: Node) -> Value | None:
    axes: Any = _ints(node, 1)
    if axes is None:
        return None
    if not axes and not node.attrs.noop_with_empty_axes:
        axes = None
    return graph.add(node.attrs.reduction, node.inputs[0], axes=axes, keepdims=node.attrs.keepdims)


_STATIC: dict[str, Callable[[Graph, Node], Value | None]] = {
    "reshape_dynamic": _reshape,
    "expand_dynamic": _expand,
    "squeeze_dynamic": _axes("squeeze"),
    "unsqueeze_dynamic": _axes("unsqueeze"),
    "tile_dynamic": _tile,
    "slice_dynamic": _slice,
    "reduce_dynamic": _reduce,
}
