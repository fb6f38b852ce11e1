"""TopK, NonZero, Unique, NonMaxSuppression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.symbols import Dim


@onnx_op("TopK")
def top_k_1(c: NodeContext) -> Sequence[Value]:
    """TopK with k as an attribute."""
    return _top_k(c, c.attr_int("k"))


@onnx_op("TopK", since=10)
def top_k(c: NodeContext) -> Sequence[Value]:
    """TopK with k as an operand (largest and sorted since opset 11)."""
    known = c.dims(1)
    if known is None:
        return c.add_node("top_k_dynamic", c.required(0), c.required(1), **_order(c)).outputs
    if len(known) != 1:
        c.invalid(f"k must be one number, got {list(known)}")
    return _top_k(c, known[0])


def _top_k(c: NodeContext, k: Dim) -> Sequence[Value]:
    return c.add_node("top_k", c.required(0), outputs=2, k=k, **_order(c)).outputs


def _order(c: NodeContext) -> dict[str, int | bool]:
    largest, in_order = bool(c.attr_int("largest", 1)), bool(c.attr_int("sorted", 1))
    return {"axis": c.attr_int("axis", -1), "largest": largest, "sorted": in_order}


@onnx_op("NonZero")
def non_zero(c: NodeContext) -> Value:
    """NonZero."""
    return c.add("non_zero", c.required(0))


@onnx_op("Unique")
def unique(c: NodeContext) -> Sequence[Value]:
    """Unique: all four outputs."""
    axis = c.attr_int("axis") if c.has_attr("axis") else None
    return c.add_node("unique", c.required(0), outputs=4, axis=axis, sorted=bool(c.attr_int("sorted", 1))).outputs


@onnx_op("NonMaxSuppression")
def non_max_suppression(c: NodeContext) -> Value:
    """NonMaxSuppression: thresholds are attributes where they are known."""
    centred = bool(c.attr_int("center_point_box", 0))
    limits = [c.static(i) if c.optional(i) is not None else np.zeros(0) for i in (2, 3, 4)]
    if any(limit is None for limit in limits):
        return c.add("non_max_suppression_dynamic", *(c.optional(i) for i in range(5)), center_point_box=centred)
    most, overlap, score = (_one(c, limit) for limit in limits if limit is not None)
    return c.add(
        "non_max_suppression",
        c.required(0),
        c.required(1),
        max_output_boxes_per_class=0 if most is None else int(most),
        iou_threshold=0.0 if overlap is None else float(overlap),
        score_threshold=None if score is None else float(score),
        center_point_box=centred,
    )


def _one(c: NodeContext, limit: np.ndarray) -> np.generic | None:
    """The only element of a limit, None for one that is not given."""
    if limit.size > 1:
        c.invalid(f"a limit must be one number, got shape {list(limit.shape)}")
    return limit.ravel()[0] if limit.size else None
