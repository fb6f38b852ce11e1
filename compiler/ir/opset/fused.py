"""`fused`: a group of nodes that one kernel computes. The nodes stand in its subgraph, so it can always be undone."""

from __future__ import annotations

from fusible.compiler.ir.definition import Composite
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.ops import OPS, Infer, NoAttrs, Op
from fusible.compiler.ir.types import Type


def _infer(ctx: Infer) -> list[Type]:
    inner = ctx.subgraphs[0]
    if len(inner.inputs) != len(ctx.inputs):
        ctx.fail(f"the group takes {len(inner.inputs)} operands, got {len(ctx.inputs)}")
    return [v.type for v in inner.outputs]


def _definition(node: Node) -> Composite:
    return Composite(lambda n: n.subgraphs[0])


OPS.register(Op("fused", _infer, _definition, None, NoAttrs, inputs=(0, None), outputs=None))
