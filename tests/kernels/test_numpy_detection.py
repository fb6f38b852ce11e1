"""Non-maximum suppression against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.kernels.numpy.detection import non_max_suppression, non_max_suppression_dynamic
from tests.kernels.single_node import run_node


def scene(batch: int, classes: int, boxes: int, *, centred: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    corners = generator.random((batch, boxes, 4))
    if centred:
        corners[..., 2:] *= 0.5
    # Few distinct scores, so that ties occur.
    scores = generator.integers(0, 20, (batch, classes, boxes)) / 20
    return corners.astype(np.float32), scores.astype(np.float32)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("iou", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("threshold", [None, 0.5, 2.0])
@pytest.mark.parametrize("most", [0, 3, 1000])
def test_agrees_with_the_runtime(centred: bool, iou: float, threshold: float | None, most: int) -> None:
    boxes, scores = scene(2, 3, 61, centred=centred)
    settings = [
        np.array([most]),
        np.array([iou], np.float32),
        None if threshold is None else np.array([threshold], np.float32),
    ]
    expected = run_node("NonMaxSuppression", [boxes, scores, *settings], center_point_box=int(centred))[0]
    got = non_max_suppression_dynamic(boxes, scores, *settings, center_point_box=centred)
    assert got.dtype == np.int64
    assert np.array_equal(got, expected)


def test_a_box_at_the_threshold_stays() -> None:
    boxes = np.array([[[0, 0, 1, 1], [0, 0, 1, 0.5]]], np.float32)
    scores = np.array([[[0.9, 0.8]]], np.float32)
    kept = non_max_suppression(boxes, scores, max_output_boxes_per_class=9, iou_threshold=0.5)
    assert kept[:, 2].tolist() == [0, 1]
    kept = non_max_suppression(boxes, scores, max_output_boxes_per_class=9, iou_threshold=0.499)
    assert kept[:, 2].tolist() == [0]


def test_no_boxes_and_no_settings() -> None:
    boxes, scores = scene(1, 2, 0, centred=False)
    assert non_max_suppression(boxes, scores, max_output_boxes_per_class=5).shape == (0, 3)
    assert non_max_suppression_dynamic(*scene(1, 2, 5, centred=False)).shape == (0, 3)


def test_shapes_are_checked() -> None:
    boxes, scores = scene(1, 2, 5, centred=False)
    with pytest.raises(ValueError, match="agree"):
        non_max_suppression(boxes, scores[:, :, :3])
    with pytest.raises(ValueError, match="expected"):
        non_max_suppression(boxes[0], scores)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        non_max_suppression(boxes, scores, iou_threshold=1.5)
