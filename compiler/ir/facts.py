"""Plain facts about a node, and which registered kernel they select."""

from __future__ import annotations

from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.ops import kernel_arguments
from fusible.compiler.ir.types import TensorType
from fusible.kernels.registry import KERNELS, Kernel, NodeFacts, TensorFacts

__all__ = ["node_facts", "replacement_kernel"]


def replacement_kernel(node: Node, target: str) -> Kernel | None:
    """The registered kernel that takes the place of the op's own on this target, if there is one."""
    if not KERNELS.for_op(node.op.name):
        return None
    return KERNELS.best(node.op.name, target, node_facts(node))


def node_facts(node: Node) -> NodeFacts:
    """What a registered kernel's `legal` and `cost` may look at: plain data."""
    return NodeFacts(
        node.op.name,
        tuple(_tensor_facts(None if v is None else v.type) for v in node.inputs),
        tuple(_tensor_facts(v.type) for v in node.outputs),
        kernel_arguments(node.attrs),
    )


def _tensor_facts(type_: object) -> TensorFacts | None:
    if not isinstance(type_, TensorType):
        return None
    shape = None if type_.shape is None else tuple(d if isinstance(d, int) else str(d) for d in type_.shape)
    return TensorFacts(type_.dtype.numpy, shape)
