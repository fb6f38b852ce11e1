"""Non-maximum suppression by the kernel: the boxes that NumPy selects, in its order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

import fusible
from tests.fast_compiler import fast_compiler

HEADER = '<ir_version: 10, opset_import: ["": 21]>\n'


@pytest.fixture(scope="module", autouse=True)
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Kernels built with -O1, in a cache of their own."""
    folder = tmp_path_factory.mktemp("suppression")
    with fast_compiler(folder, "-O1"):
        yield folder / "cache"


def model(most: int, iou: float, least: float | None, centred: bool) -> onnx.ModelProto:
    """Boxes [b, n, 4] and scores [b, c, n]; what is selected, and the scores of that plus 1."""
    limits = f"<int64 most = {{{most}}}, float iou = {{{iou}}}, float least = {{{least or 0.0}}}>"
    return onnx.parser.parse_model(
        f"""{HEADER}g (float[b, n, 4] boxes, float[b, c, n] scores) => (int64[k, 3] rows, float[k] plus) {limits} {{
            rows = NonMaxSuppression<center_point_box = {int(centred)}>(
                boxes, scores, most, iou{"" if least is None else ", least"})
            taken = GatherND(scores, rows)
            one = Constant<value_float = 1.0>()
            plus = Add(taken, one)
        }}"""
    )


def boxes_and_scores(seed: int, batch: int, classes: int, n: int) -> dict[str, np.ndarray]:
    """Boxes that overlap each other much, some empty; scores with ties, NaN and infinities."""
    random = np.random.default_rng(seed)
    boxes = np.round(random.uniform(0, 8, (batch, n, 4)), 1 + seed % 2).astype(np.float32)
    boxes[..., 2] = np.where(random.random((batch, n)) < 0.1, boxes[..., 0], boxes[..., 2])
    scores = np.round(random.normal(size=(batch, classes, n)), 1).astype(np.float32)
    rare = random.random(scores.shape)
    scores[rare < 0.03], scores[rare > 0.97] = np.nan, np.inf
    return {"boxes": boxes, "scores": scores}


LIMITS = [(5, 0.5, None), (1000, 0.3, 0.0), (3, 0.0, 0.5), (40, 1.0, None), (2**63 - 1, 0.6, -0.25), (0, 0.5, None)]


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("most", "iou", "least"), LIMITS)
def test_the_boxes_that_numpy_selects(
    most: int, iou: float, least: float | None, centred: bool, compiler: Path
) -> None:
    proto = model(most, iou, least, centred)
    exe = fusible.compile(proto, target="cpu", options=fusible.Options(threads=2, cache_dir=compiler))
    assert [row["op"] for row in exe.report.host] == ["first_rows"]
    session, reference = exe.session(), fusible.compile(proto, target="numpy")
    session._poison = True
    for seed, sizes in enumerate([(1, 1, 1), (2, 3, 40), (1, 5, 300), (3, 1, 17), (1, 2, 0), (0, 2, 5), (1, 0, 5)]):
        feeds = boxes_and_scores(seed, *sizes)
        got, expected = session.run(feeds), reference.run(feeds)
        np.testing.assert_array_equal(got["rows"], expected["rows"])
        np.testing.assert_array_equal(got["plus"], expected["plus"])


def test_boxes_and_scores_must_agree(compiler: Path) -> None:
    text = """g (float[b, n, 4] boxes, float[d, c, m] scores) => (int64[k, 3] rows)
        <int64 most = {9}, float iou = {0.5}> {
        rows = NonMaxSuppression(boxes, scores, most, iou) }"""
    exe = fusible.compile(
        onnx.parser.parse_model(HEADER + text), target="cpu", options=fusible.Options(cache_dir=compiler)
    )
    feeds = boxes_and_scores(1, 2, 2, 6)
    exe.run(feeds)
    with pytest.raises(fusible.ExecutionError):
        exe.run(feeds | {"boxes": feeds["boxes"][:, :5]})
    with pytest.raises(fusible.ExecutionError):
        exe.run(feeds | {"boxes": feeds["boxes"][:1]})


def test_room_for_too_many_boxes_is_not_made() -> None:
    text = """g (float[1, 900000, 4] boxes, float[1, 3, 900000] scores) => (int64[k, 3] rows)
        <int64 most = {900000}, float iou = {0.5}> { rows = NonMaxSuppression(boxes, scores, most, iou) }"""
    exe = fusible.compile(onnx.parser.parse_model(HEADER + text), target="cpu")
    assert [row["op"] for row in exe.report.host] == ["non_max_suppression"]
