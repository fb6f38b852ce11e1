"""What bf16 does to a model whatever computes it: the same ONNX model with the operands of its products rounded."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

__all__ = ["with_rounded_products"]

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_CASTS_SINCE = 13  # the first opset whose Cast knows bfloat16


def with_rounded_products(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy in which both operands of each product of the main graph are cast to bfloat16 and back.

    Depthwise convolutions stay, for they are not computed in bf16. None where the opset is older than 13. Run by a
    runtime that computes fp32, with optimisations disabled, it shows how far rounding alone moves the outputs.
    """
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if version < _CASTS_SINCE:
        return None
    result = onnx.ModelProto()
    result.CopyFrom(model)
    rounded: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in result.graph.node:
        if node.op_type in _PRODUCTS and node.domain in ("", "ai.onnx") and not _has_groups(node):
            for place in (0, 1):
                nodes += _casts(node.input[place], rounded)
                node.input[place] = rounded[node.input[place]]
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del result.graph.node[:]
    result.graph.node.extend(kept)
    return result


def _has_groups(node: onnx.NodeProto) -> bool:
    return any(a.name == "group" and a.i != 1 for a in node.attribute)


def _casts(name: str, rounded: dict[str, str]) -> list[onnx.NodeProto]:
    """The two casts of a value, the first time that it is met."""
    if name in rounded:
        return []
    narrow, rounded[name] = f"{name}/bf16", f"{name}/rounded"
    return [
        helper.make_node("Cast", [name], [narrow], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", [narrow], [rounded[name]], to=TensorProto.FLOAT),
    ]
