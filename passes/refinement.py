"""Types across a rewrite: may the new value stand for the old one, and what follows if it is known more precisely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.reinfer import bare_symbol
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import TensorType, substitute_type

__all__ = ["TypeChange", "erase_dead", "is_removable", "is_used", "type_change"]


@dataclass(frozen=True, slots=True)
class TypeChange:
    """How a replacement's type differs: wrong (it cannot be), reason (it may be, but nothing shows it), refines (it is
    more precise); known: symbols that the old nodes defined and the dimensions now in their place.
    """

    wrong: bool = False
    reason: str = ""
    refines: bool = False
    known: Mapping[str, Dim] = field(default_factory=dict)


def type_change(
    old: Value, new: Value, replaced: Sequence[Node], learned: Mapping[str, Dim] | None = None
) -> TypeChange:
    """Compare the type of a value with that of its replacement; `learned`: symbols that this pass knows by now."""
    if old.type == new.type:
        return TypeChange()
    before, after = substitute_type(old.type, learned or {}), substitute_type(new.type, learned or {})
    if before == after:
        return TypeChange(refines=True)
    if not isinstance(before, TensorType) or not isinstance(after, TensorType) or before.dtype is not after.dtype:
        return TypeChange(wrong=True)
    if before.shape is None:
        return TypeChange(refines=True)
    if after.shape is None:
        return TypeChange(reason=f"the replacement's rank is not known, the value is {before}")
    if len(before.shape) != len(after.shape):
        return TypeChange(wrong=True)
    own = {symbol.name for node in replaced for symbol in node.defines}
    known: dict[str, Dim] = {}
    for was, now in zip(before.shape, after.shape, strict=True):
        if was == now:
            continue
        if isinstance(was, int) and isinstance(now, int):
            return TypeChange(wrong=True)
        symbol = bare_symbol(was)
        if symbol is not None and symbol.name in own:
            if known.setdefault(symbol.name, now) == now:
                continue
        return TypeChange(reason=f"nothing shows that the replacement's type {after} is {before}")
    return TypeChange(refines=True, known=known)


def is_used(graph: Graph, value: Value) -> bool:
    """True if a node uses a value or it is a result of the graph."""
    return bool(value.uses) or any(value is result for result in graph.outputs)


def is_removable(node: Node) -> bool:
    """True if nothing but its results would be missed: nearly every op of ours, and pure ones of other domains."""
    return node.op.pure or not (node.op.domain or node.op.name == "require")


def erase_dead(graph: Graph, node: Node) -> int:
    """Erase a node that nothing uses, then what it alone used; return how many went."""
    count, work = 0, [node]
    while work:
        node = work.pop()
        if node.graph is not graph or not is_removable(node) or any(is_used(graph, v) for v in node.outputs):
            continue
        if node.defines:
            continue  # types elsewhere may mention its symbols; the pass dead-code looks
        graph.erase(node)
        count += 1
        work += [v.producer for v in node.inputs if v is not None and v.producer is not None]
    return count
