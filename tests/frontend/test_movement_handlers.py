"""Old and new forms of the ops that move elements, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fusible.errors import InvalidModel
from tests.frontend.imported import evaluated, expected, imported, model_of

I64 = np.int64


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=I64)


def numbered(*shape: int) -> np.ndarray:
    return np.arange(int(np.prod(shape))).reshape(shape).astype(np.float32)


X = numbered(2, 3, 4)
# Operator, opset, parameter operands, attributes, number of outputs, operand.
Form = tuple[str, int, list[np.ndarray | None], dict[str, Any], int, np.ndarray]


def form(
    op: str, opset: int, *parameters: np.ndarray | None, x: np.ndarray = X, outputs: int = 1, **attributes: Any
) -> Form:
    return op, opset, list(parameters), attributes, outputs, x


ONE = numbered(1, 3, 1)
FORMS = [
    form("Reshape", 7, ints(0, -1)),
    form("Reshape", 14, ints(4, 6), allowzero=1),
    form("Reshape", 14, ints(0, 3, 2, -1), allowzero=0),
    form("Flatten", 9, axis=2),
    form("Flatten", 11, axis=-1),
    form("Flatten", 13, axis=3),
    form("Squeeze", 7, x=ONE),
    form("Squeeze", 7, x=ONE, axes=[2]),
    form("Squeeze", 11, x=ONE, axes=[-1]),
    form("Squeeze", 13, ints(0, -1), x=ONE),
    form("Squeeze", 13, x=ONE),
    form("Unsqueeze", 7, axes=[0, 2]),
    form("Unsqueeze", 11, axes=[-1]),
    form("Unsqueeze", 13, ints(-1, 0)),
    form("Transpose", 7),
    form("Transpose", 13, perm=[0, 1, 2]),
    form("Transpose", 13, perm=[1, 2, 0]),
    form("Expand", 8, ints(5, 1, 1, 1)),
    form("Expand", 13, ints(1, 1)),
    form("Expand", 13, ints(2, 3, 5), x=numbered(3, 1)),
    form("Tile", 7, ints(1, 2, 3)),
    form("Tile", 13, ints(1, 1, 1)),
    form("Slice", 7, starts=[0, -3], ends=[1, 99], axes=[1, 2]),
    form("Slice", 7, starts=[1], ends=[2]),
    form("Slice", 10, ints(-1), ints(-99), ints(2), ints(-2)),
    form("Slice", 13, ints(0, 1), ints(2, 3), None, ints(1, 2)),
    form("Slice", 13, ints(0), ints(2**63 - 1)),
    form("Pad", 7, pads=[0, 1, 0, 0, 0, 2], value=1.5),
    form("Pad", 7, pads=[0, 1, 0, 0, 0, 2], mode="reflect"),
    form("Pad", 7, pads=[0, -1, 0, 0, 0, 2], mode="edge"),
    form("Pad", 11, ints(0, 1, 0, 0, 0, 2), np.array(7, np.float32)),
    form("Pad", 13, ints(0, 0, 0, 0, 0, 0)),
    form("Pad", 18, ints(1, 2), None, ints(-1)),
    form("Pad", 19, ints(1, 1, 2, 2), None, ints(2, 0), mode="wrap"),
    form("Split", 7, axis=2, outputs=2),
    form("Split", 7, axis=1, split=[1, 2], outputs=2),
    form("Split", 11, axis=-1, split=[1, 3], outputs=2),
    form("Split", 13, ints(1, 2), axis=1, outputs=2),
    form("Split", 13, axis=2, outputs=4),
    form("Split", 18, axis=2, num_outputs=3, outputs=3),
    form("Split", 18, axis=2, num_outputs=2, outputs=2),
    form("Trilu", 14, np.array(1, I64), upper=0),
    form("Trilu", 14),
    form("ReverseSequence", 10, ints(1, 4), x=numbered(4, 2, 3)),
    form("Identity", 13),
    form("Gather", 7, ints(1, 0, 1), axis=1),
    form("Gather", 13, np.array(-1, np.int32), axis=-1),
    form("Compress", 9, np.array([False, True, True]), axis=1),
    form("Compress", 11, np.array([False, True, True])),
    form("TopK", 7, k=2, outputs=2),
    form("TopK", 10, ints(2), axis=1, outputs=2),
    form("TopK", 11, ints(3), axis=0, largest=0, outputs=2, x=numbered(5, 2)),
    form("EyeLike", 9, x=numbered(3, 4), k=1),
    form("EyeLike", 9, x=numbered(3, 4), dtype=TensorProto.INT64),
    form("OneHot", 9, ints(3), numbered(2), x=ints(0, 2, 5)),
    form("ConstantOfShape", 9, x=ints(2, 3)),
    form("ConstantOfShape", 20, x=ints(2), value=numpy_helper.from_array(ints(7))),
    form("Unique", 11, outputs=4, sorted=0),
    form("Unique", 11, outputs=1, axis=1),
    form("NonZero", 13),
    form("Shape", 13),
    form("Shape", 15, start=-2, end=3),
    form("Size", 13),
    form("ScatterElements", 11, np.zeros((1, 3, 4), I64), -numbered(1, 3, 4)),
    form("ScatterElements", 18, np.zeros((1, 3, 4), I64), numbered(1, 3, 4), reduction="max"),
    form("ScatterND", 16, np.array([[1, 0]]), numbered(1, 4), reduction="mul"),
    form("GatherND", 11, np.array([[1, 0], [0, -1]])),
    form("GatherND", 12, np.array([[1], [0]]), batch_dims=1),
    form("GatherElements", 11, np.array([[[1, 0, -1, 2]]]), axis=1),
]


def model_and_feeds(case: Form, *, constant: bool) -> tuple[Any, dict[str, np.ndarray]]:
    """The model with its parameters as constants or as run-time inputs."""
    op, opset, parameters, attributes, outputs, x = case
    names = ["" if p is None else f"p{i}" for i, p in enumerate(parameters)]
    given = {f"p{i}": p for i, p in enumerate(parameters) if p is not None}
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, ["x", *names], results, **attributes)
    feeds = {"x": x} if constant else {"x": x, **given}
    return model_of([node], feeds, results, given if constant else None, opset=opset), feeds


def title(case: Form) -> str:
    return f"{case[0]}-{case[1]}-{'-'.join(case[3])}"


def assert_agrees(model: Any, feeds: dict[str, np.ndarray]) -> None:
    for got, reference in zip(evaluated(model, feeds), expected(model, feeds), strict=True):
        assert got.dtype == reference.dtype
        assert got.shape == reference.shape
        assert np.array_equal(got, reference)


@pytest.mark.parametrize("case", FORMS, ids=title)
def test_parameters_known_at_import(case: Form) -> None:
    model, feeds = model_and_feeds(case, constant=True)
    assert_agrees(model, feeds)
    for output in imported(model).outputs:
        assert output.type.shape is not None  # type: ignore[union-attr]


@pytest.mark.parametrize("case", [f for f in FORMS if f[2]], ids=title)
def test_parameters_known_only_at_run_time(case: Form) -> None:
    assert_agrees(*model_and_feeds(case, constant=False))


def test_forms_that_the_runtime_no_longer_runs() -> None:
    """Opset 1 had Reshape, Pad and Tile in forms of their own, opset 9 Scatter."""

    def result(op: str, opset: int, operands: dict[str, np.ndarray], **attributes: Any) -> np.ndarray:
        node = helper.make_node(op, ["x", *operands], ["y"], **attributes)
        model = model_of([node], {"x": X}, ["y"], operands, opset=opset)
        return np.asarray(evaluated(model, {"x": X})[0])

    assert np.array_equal(result("Reshape", 1, {}, shape=[0, -1]), X.reshape(2, 12))
    assert np.array_equal(result("Pad", 1, {}, paddings=[0, 0, 1, 0, 0, 0]), np.pad(X, ((0, 0), (0, 0), (1, 0))))
    tiles = {"tiles": np.array(2, np.float32), "axis": np.array(1, np.float32)}
    assert np.array_equal(result("Tile", 1, tiles), np.tile(X, (1, 2, 1)))
    scattered = result("Scatter", 9, {"i": np.zeros((1, 1, 1), I64), "u": np.full((1, 1, 1), 9, np.float32)})
    assert scattered[0, 0, 0] == 9
    assert np.array_equal(scattered.ravel()[1:], X.ravel()[1:])
    assert np.array_equal(result("Concat", 1, {}), X)


@pytest.mark.parametrize(
    ("op", "opset", "parameters", "attributes"),
    [
        ("Reshape", 13, [ints(5, 5)], {}),
        ("Reshape", 13, [ints(-1, -1)], {}),
        ("Reshape", 13, [ints(0, 0, 0, 0)], {}),
        ("Reshape", 14, [ints(0, -1)], {"allowzero": 1}),
        ("Squeeze", 13, [ints(0)], {}),
        ("Squeeze", 13, [ints(7)], {}),
        ("Unsqueeze", 13, [ints(0, 0)], {}),
        ("Flatten", 13, [], {"axis": 4}),
        ("Expand", 13, [ints(-1, 4)], {}),
        ("Expand", 13, [ints(7)], {}),
        ("Tile", 13, [ints(2)], {}),
        ("Tile", 13, [ints(1, 1, -1)], {}),
        ("Split", 13, [ints(1, 1)], {"axis": 1}),
        ("Split", 13, [], {"axis": 9}),
        ("Slice", 13, [ints(0), ints(1), ints(3)], {}),
        ("Slice", 13, [ints(0, 0), ints(1, 1), ints(1, 1)], {}),
        ("Slice", 13, [ints(0), ints(1), ints(0), ints(0)], {}),
        ("Slice", 13, [ints(0, 0), ints(1)], {}),
        ("Pad", 13, [ints(0, 1)], {}),
        ("Pad", 13, [ints(0, 0, -9, 0, 0, 0)], {}),
        ("Transpose", 13, [], {"perm": [0, 1]}),
        ("Concat", 13, [numbered(2, 2, 4)], {"axis": 0}),
        ("Concat", 13, [numbered(2, 2, 4)], {"axis": 5}),
        ("Gather", 13, [ints(0)], {"axis": 3}),
        ("Gather", 13, [numbered(2)], {}),
        ("TopK", 11, [ints(5)], {"axis": 1}),
        ("TopK", 11, [ints(1, 2)], {}),
        ("Compress", 11, [np.ones(9, bool)], {"axis": 0}),
        ("Trilu", 14, [ints(1, 2)], {}),
    ],
)
def test_nodes_that_contradict_themselves(
    op: str, opset: int, parameters: list[np.ndarray], attributes: dict[str, Any]
) -> None:
    constants = {f"p{i}": p for i, p in enumerate(parameters)}
    node = helper.make_node(op, ["x", *constants], ["y", "z"] if op in ("Split", "TopK") else ["y"], **attributes)
    with pytest.raises(InvalidModel, match=f"(?i){op[:3]}") as caught:
        imported(model_of([node], {"x": X}, ["y"], constants, opset=opset))
    assert "'y'" in str(caught.value)
