"""A graph that only fails: what stands for a branch that contradicts the types it reads."""

from __future__ import annotations

from fusible.compiler.ir.graph import Graph, Node
from fusible.compiler.ir.types import OptionalType, SequenceType, TensorType, Type

__all__ = ["failing_graph", "failure_of"]


def failing_graph(like: Graph, message: str, origin: tuple[str, ...]) -> Graph:
    """A graph without inputs that stops the run with `message`; its results would be of the kinds of `like`'s."""
    graph = Graph("fails", like.symbols)
    results = tuple(_without_shape(v.type) for v in like.outputs)
    with graph.inserting_before(None, origin):
        node = graph.add_node("fail", [], {"message": message, "results": results}, outputs=len(results))
    graph.set_outputs(node.outputs, like.output_names)
    return graph


def failure_of(branch: Graph) -> Node | None:
    """The node `fail` that gives every result of a branch; None for a branch that can run."""
    producers = {value.producer for value in branch.outputs}
    producer = producers.pop() if len(producers) == 1 else None
    return producer if producer is not None and producer.op.name == "fail" else None


def _without_shape(type_: Type) -> Type:
    match type_:
        case TensorType(dtype=dtype):
            return TensorType(dtype, None)
        case SequenceType(element=element):
            return SequenceType(None if element is None else _without_shape(element))
        case OptionalType(element=element):
            return OptionalType(None if element is None else _without_shape(element))
