"""NonMaxSuppression, whole or as two ops: the rows with room for all there can be, and the first of them."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def non_max_suppression(
    boxes: Array,
    scores: Array,
    /,
    *,
    max_output_boxes_per_class: int = 0,
    iou_threshold: float = 0.0,
    score_threshold: float | None = None,
    center_point_box: bool = False,
) -> Array:
    """Greedy non-maximum suppression; rows (batch, class, box) as int64 [count, 3].

    boxes: float [batch, n, 4], two opposite corners y1, x1, y2, x2 in either order, or centre x, centre y, width,
    height if `center_point_box`; scores: float [batch, classes, n]. For each batch item and class boxes are taken by
    falling score (ties: lower index first) if the score exceeds `score_threshold` and the intersection over union
    with no box taken before exceeds `iou_threshold`, until there are `max_output_boxes_per_class`.
    """
    if boxes.ndim != 3 or boxes.shape[2] != 4 or scores.ndim != 3:
        raise ValueError(
            f"boxes [batch, n, 4] and scores [batch, classes, n] expected, got {boxes.shape}, {scores.shape}"
        )
    if boxes.shape[0] != scores.shape[0] or boxes.shape[1] != scores.shape[2]:
        raise ValueError(f"boxes {boxes.shape} and scores {scores.shape} must agree in batch and number of boxes")
    if not 0.0 <= iou_threshold <= 1.0:
        raise ValueError(f"iou_threshold must lie in [0, 1], got {iou_threshold}")
    found = [np.empty((0, 3), np.int64)]
    if max_output_boxes_per_class > 0:
        corners = _corners(boxes.astype(np.float32, copy=False), center_point_box)
        for batch, item in enumerate(corners):
            for class_, class_scores in enumerate(scores[batch]):
                order = _candidates(class_scores, score_threshold)
                kept = _suppress(item[:, order], max_output_boxes_per_class, np.float32(iou_threshold))
                rows = np.empty((kept.size, 3), np.int64)
                rows[:, 0], rows[:, 1], rows[:, 2] = batch, class_, order[kept]
                found.append(rows)
    return np.concatenate(found)


def non_max_suppression_dynamic(
    boxes: Array,
    scores: Array,
    max_output_boxes_per_class: Array | None = None,
    iou_threshold: Array | None = None,
    score_threshold: Array | None = None,
    /,
    *,
    center_point_box: bool = False,
) -> Array:
    """NonMaxSuppression with run-time thresholds (scalars or single elements)."""
    return non_max_suppression(
        boxes,
        scores,
        max_output_boxes_per_class=0 if max_output_boxes_per_class is None else int(max_output_boxes_per_class.item()),
        iou_threshold=0.0 if iou_threshold is None else float(iou_threshold.item()),
        score_threshold=None if score_threshold is None else float(score_threshold.item()),
        center_point_box=center_point_box,
    )


def suppressed_rows(
    boxes: Array,
    scores: Array,
    /,
    *,
    max_output_boxes_per_class: int = 0,
    **limits: Any,
) -> tuple[Array, Array]:
    """The rows of `non_max_suppression`, which has the other limits, in room for all there can be, and their number.

    int64 [batch * classes * min(max_output_boxes_per_class, n), 3], zeros behind them, and int64 [1].
    """
    found = non_max_suppression(boxes, scores, max_output_boxes_per_class=max_output_boxes_per_class, **limits)
    batch, classes, n = scores.shape
    rows = np.zeros((batch * classes * min(max(max_output_boxes_per_class, 0), n), 3), np.int64)
    rows[: found.shape[0]] = found
    return rows, np.array([found.shape[0]])


def first_rows(rows: Array, count: Array, /) -> Array:
    """The first `count` (int64 [1]) rows of an array [n, ...], as an array of their own."""
    return rows[: int(count[0])].copy()


def _corners(boxes: Array, center_point_box: bool) -> Array:
    """(low 0, low 1, high 0, high 1) of each box as [batch, 4, n]."""
    a, b, c, d = np.moveaxis(boxes, 2, 0)
    if center_point_box:
        x, y, half_width, half_height = a, b, c / 2, d / 2
        return np.stack([y - half_height, x - half_width, y + half_height, x + half_width], axis=1)
    return np.stack([np.minimum(a, c), np.minimum(b, d), np.maximum(a, c), np.maximum(b, d)], axis=1)


def _candidates(scores: Array, threshold: float | None) -> Array:
    """Boxes above the threshold by falling score, equal scores by index."""
    chosen = np.arange(scores.size) if threshold is None else np.flatnonzero(scores > np.float32(threshold))
    return chosen[np.argsort(-scores[chosen].astype(np.float32), kind="stable")]


def _suppress(corners: Array, most: int, iou_threshold: np.float32) -> Array:
    """Positions of the boxes kept, of candidates [4, n] in order: one vector step for each box kept."""
    alive = np.arange(corners.shape[1])
    kept: list[int] = []
    while alive.size and len(kept) < most:
        best, alive = int(alive[0]), alive[1:]
        kept.append(best)
        alive = alive[~_overlaps(corners[:, best], corners[:, alive], iou_threshold)]
    return np.array(kept, dtype=np.int64)


def _overlaps(one: Array, others: Array, iou_threshold: np.float32) -> Array:
    """Whether the intersection over union with each of `others` [4, n] exceeds the threshold; never for empty boxes."""
    with np.errstate(all="ignore"):
        height = np.minimum(one[2], others[2]) - np.maximum(one[0], others[0])
        width = np.minimum(one[3], others[3]) - np.maximum(one[1], others[1])
        shared = np.maximum(height, 0) * np.maximum(width, 0)
        area = (one[2] - one[0]) * (one[3] - one[1])
        areas = (others[2] - others[0]) * (others[3] - others[1])
        union = area + areas - shared
        return np.asarray((shared > 0) & (area > 0) & (areas > 0) & (union > 0) & (shared / union > iou_threshold))
