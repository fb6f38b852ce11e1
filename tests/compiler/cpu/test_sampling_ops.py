"""GridSample and RoiAlign on the target cpu, against the target numpy: native in every layout, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import fusible
from tests.tolerance import assert_outputs_close

_ATTRIBUTES = ({"mode": "linear"}, {"mode": "cubic", "padding_mode": "border"},
               {"mode": "nearest", "padding_mode": "reflection", "align_corners": 1})  # fmt: skip
_REGIONS = ({"mode": "avg", "sampling_ratio": 2},
            {"mode": "max", "coordinate_transformation_mode": "output_half_pixel"})  # fmt: skip
_POOLED = {"output_height": 3, "output_width": 5}
BOXES = np.asarray([[1, 2, 8, 9], [-3, -2, 5, 5.5], [4.2, 3.1, 20, 18], [5, 5, 4, 4], [0, 0, 14, 11]], np.float32)


def _model(
    node: NodeProto, inputs: Mapping[str, tuple[int, list[Any]]], *, before: int = 0, after: int = 0, grid: str = ""
) -> ModelProto:
    """y = node(x, ...), with 1x1 convolutions from `before` channels to 6, from `after` to 9; grid: what makes it."""
    nodes, constants, random = [node], {}, np.random.default_rng(3)
    if before:
        constants["w"] = random.standard_normal((6, before, 1, 1)).astype(np.float32)
        nodes.insert(0, helper.make_node("Conv", ["x", "w"], ["a"]))
        node.input[0] = "a"
    if grid:
        nodes.insert(0, helper.make_node(grid, ["grid"], ["g"]))
        node.input[1] = "g"
    if after:
        constants["v"] = random.standard_normal((9, after, 1, 1)).astype(np.float32)
        nodes.append(helper.make_node("Conv", ["b", "v"], ["y"]))
        node.output[0] = "b"
    graph = helper.make_graph(
        nodes, "sampling", [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
        [helper.make_tensor_value_info("y", inputs["x"][0], None)],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def _sample(
    x: list[Any], grid: list[Any], *, made_by: str = "", before: int = 0, after: int = 0, **attributes: Any
) -> ModelProto:
    node = helper.make_node("GridSample", ["x", "grid"], ["y"], **attributes)
    inputs = {"x": (TensorProto.FLOAT, x), "grid": (TensorProto.FLOAT, grid)}
    return _model(node, inputs, before=before, after=after, grid=made_by)


def _align(x: list[Any], regions: int | str, *, before: int = 0, after: int = 0, **attributes: Any) -> ModelProto:
    node = helper.make_node("RoiAlign", ["x", "rois", "images"], ["y"], **{**_POOLED, **attributes})
    inputs = {"x": (TensorProto.FLOAT, x), "rois": (TensorProto.FLOAT, [regions, 4])}
    return _model(node, {**inputs, "images": (TensorProto.INT64, [regions])}, before=before, after=after)


def _image(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def _grid(*shape: int) -> np.ndarray:
    return (np.random.default_rng(2).random(shape) * 2.6 - 1.3).astype(np.float32)


def _check(model: ModelProto, *given: dict[str, np.ndarray]) -> fusible.Executable:
    """Compare for some inputs, with one thread and three; every step is native."""
    oracle = fusible.compile(model, target="numpy")
    for threads in (1, 3):
        exe = fusible.compile(model, target="cpu", options=fusible.Options(threads=threads))
        assert exe.report.host == ()
        assert all(getattr(step, "kernel", "").startswith("k") for step in exe.plan.steps)
        for inputs in given:
            assert_outputs_close(exe.run(inputs), oracle.run(inputs))
    return exe


@pytest.mark.parametrize("attributes", _ATTRIBUTES, ids=lambda a: a["mode"])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (5, 0), (0, 5), (5, 6)])
def test_places_in_every_layout(before: int, after: int, attributes: dict[str, Any]) -> None:
    model = _sample([2, 5, 17, 14], [2, 40, 33, 2], before=before, after=after, **attributes)
    _check(model, {"x": _image(2, 5, 17, 14), "grid": _grid(2, 40, 33, 2)})


def test_places_that_are_computed_and_stored_as_images_are() -> None:
    model = _sample([2, 5, 17, 14], [2, 9, 8, 2], before=5, after=6, made_by="Tanh")
    exe = _check(model, {"x": _image(2, 5, 17, 14), "grid": _grid(2, 9, 8, 2)})
    assert any(".grid_row = 1," in source for source in exe.sources.values())


@pytest.mark.parametrize("attributes", _ATTRIBUTES, ids=lambda a: a["mode"])
def test_places_of_sizes_known_at_the_call(attributes: dict[str, Any]) -> None:
    model = _sample(["n", 5, "h", "w"], ["n", "oh", "ow", 2], before=5, **attributes)
    shapes = (((2, 5, 9, 7), (2, 6, 11, 2)), ((1, 5, 1, 1), (1, 1, 1, 2)), ((3, 5, 1, 8), (3, 0, 4, 2)))
    empty = ((0, 5, 4, 4), (0, 3, 3, 2))
    _check(model, *({"x": _image(*x), "grid": _grid(*grid)} for x, grid in (*shapes, empty)))


def test_images_without_pixels_and_grids_that_do_not_fit() -> None:
    exe = _check(
        _sample(["n", 3, "h", "w"], ["m", "oh", "ow", "k"]),
        {"x": _image(1, 3, 0, 4), "grid": _grid(1, 2, 5, 2)}, {"x": _image(1, 3, 4, 4), "grid": _grid(1, 2, 5, 2)},
    )  # fmt: skip
    for grid, wrong in (((2, 2, 5, 2), "m = 2 must be n = 1"), ((1, 2, 5, 1), "k = 1 must be 2")):
        with pytest.raises(fusible.FusibleError, match=wrong):
            exe.run({"x": _image(1, 3, 4, 4), "grid": _grid(*grid)})
    exe = _check(_sample([1, 3, "h", 4], [1, 2, 5, 2], padding_mode="border"))
    with pytest.raises(fusible.FusibleError, match="out of range"):
        exe.run({"x": _image(1, 3, 0, 4), "grid": _grid(1, 2, 5, 2)})


@pytest.mark.parametrize("attributes", _REGIONS, ids=lambda a: a["mode"])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (5, 0), (0, 5), (5, 6)])
def test_regions_in_every_layout(before: int, after: int, attributes: dict[str, Any]) -> None:
    model = _align([2, 5, 12, 15], 5, before=before, after=after, spatial_scale=0.8, **attributes)
    _check(model, {"x": _image(2, 5, 12, 15), "rois": BOXES, "images": np.asarray([0, 1, 1, 0, 1])})


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_regions_of_sizes_known_at_the_call(mode: str) -> None:
    model = _align(["n", "c", "h", "w"], "r", mode=mode)
    given = [
        {"x": _image(*shape), "rois": BOXES[:regions], "images": np.zeros(regions, np.int64)}
        for shape, regions in (((1, 3, 12, 15), 5), ((2, 1, 1, 1), 1), ((1, 20, 3, 40), 0), ((1, 0, 8, 8), 2))
    ]
    _check(model, *given)


def test_regions_of_images_that_are_none_or_that_have_no_size() -> None:
    x = _image(2, 5, 12, 15)
    for before in (0, 5):
        exe = _check(_align([2, 5, 12, 15], "r", before=before))
        for number in (-1, 2, 2**40):
            with pytest.raises(fusible.FusibleError, match="out of range"):
                exe.run({"x": x, "rois": BOXES[:2], "images": np.asarray([0, number])})
        with pytest.raises(fusible.FusibleError, match="out of range"):
            exe.run({"x": x, "rois": BOXES[:1] * np.float32(np.nan), "images": np.zeros(1, np.int64)})
        exe.run({"x": x, "rois": BOXES[:2], "images": np.asarray([0, 1])})


@pytest.mark.parametrize(
    ("kind", "shape", "reason"),
    [
        (TensorProto.FLOAT, (1, 2, 3, 4, 5), "its images have 3 dimensions"),
        (TensorProto.DOUBLE, (1, 2, 4, 5), "it has an operand of f64"),
        (TensorProto.FLOAT16, (1, 2, 4, 5), "it has an operand of f16"),
    ],
)
def test_other_images_call_numpy_and_say_why(kind: int, shape: tuple[int, ...], reason: str) -> None:
    grid = (1, *(3,) * (len(shape) - 2), len(shape) - 2)
    node = helper.make_node("GridSample", ["x", "grid"], ["y"])
    model = _model(node, {"x": (kind, list(shape)), "grid": (TensorProto.FLOAT, list(grid))})
    exe = fusible.compile(model, target="cpu")
    assert [row["reason"] for row in exe.report.host] == [reason]
    given = {"x": _image(*shape).astype(helper.tensor_dtype_to_np_dtype(kind)), "grid": _grid(*grid)}
    oracle = fusible.compile(model, target="numpy").run(given)
    assert np.array_equal(exe.run(given)["y"], oracle["y"])
