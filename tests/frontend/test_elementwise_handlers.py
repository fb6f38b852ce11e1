"""Element-wise operators, activations and casts of every opset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from fusible.errors import InvalidModel
from tests.frontend.imported import evaluated, expected, imported, model_of
from tests.kernels.kernel_calls import normal
from tests.tolerance import assert_close


def outcome(op: str, given: list[np.ndarray | None], opset: int, **attributes: Any) -> np.ndarray:
    """The first output of a model of one node whose operands are all inputs."""
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(given)]
    inputs = {name: x for name, x in zip(names, given, strict=True) if x is not None}
    model = model_of([helper.make_node(op, names, ["y"], **attributes)], inputs, ["y"], opset=opset)
    found = evaluated(model, inputs)[0]
    assert isinstance(found, np.ndarray)
    return found


A = normal(2, 3, 4, 5)


@pytest.mark.parametrize("opset", [1, 6])
@pytest.mark.parametrize(
    ("shape", "axis", "aligned"),
    [
        ((3, 4), 1, (3, 4, 1)),
        ((2,), 0, (2, 1, 1, 1)),
        ((4,), -2, (4, 1)),
        ((4, 5), None, (4, 5)),
        ((4, 5), 2, (4, 5)),
        ((), None, ()),
        ((1, 1), None, (1, 1)),
    ],
)
def test_second_operand_is_placed_by_axis(
    opset: int, shape: tuple[int, ...], axis: int | None, aligned: tuple[int, ...]
) -> None:
    b = np.abs(normal(*shape)).astype(np.float32) + np.float32(0.5)
    attributes = {"broadcast": 1} if axis is None else {"broadcast": 1, "axis": axis}
    for op, function in (("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply), ("Div", np.divide)):
        assert_close(outcome(op, [A, b], opset, **attributes), function(A, b.reshape(aligned)))
    assert_close(outcome("Pow", [np.abs(A), b], opset, **attributes), np.power(np.abs(A), b.reshape(aligned)))
    assert np.array_equal(outcome("Greater", [A, b], opset, **attributes), b.reshape(aligned) < A)
    got = outcome("And", [A > 0, b > 1], opset, **attributes)
    assert np.array_equal(got, (A > 0) & (b.reshape(aligned) > 1))


def test_axis_that_does_not_fit_is_refused() -> None:
    for axis in (3, -5):
        with pytest.raises(InvalidModel, match="axis"):
            outcome("Add", [A, normal(3, 4)], 6, broadcast=1, axis=axis)


@pytest.mark.parametrize("op", ["Sum", "Mean", "Max", "Min"])
@pytest.mark.parametrize("opset", [1, 6, 8, 13])
def test_lists_of_tensors(op: str, opset: int) -> None:
    given = [normal(2, 3), normal(3, 2).T.copy(), normal(2, 3, 1)[..., 0]]
    function = {"Sum": np.sum, "Mean": np.mean, "Max": np.max, "Min": np.min}[op]
    assert_close(outcome(op, list(given), opset), function(np.stack(given).astype(np.float64), axis=0), accumulation=3)


@pytest.mark.parametrize("op", ["Sum", "Mean", "Max", "Min"])
@pytest.mark.parametrize("count", [32, 33, 300])
def test_long_lists_of_tensors(op: str, count: int) -> None:
    """Folds of many operands are folds of folds: their definitions stay shallow."""
    arrays = normal(count, 2, 3)
    inputs = {f"x{n}": array for n, array in enumerate(arrays)}
    model = model_of([helper.make_node(op, list(inputs), ["y"])], inputs, ["y"])
    assert all(len(node.inputs) <= 32 for node in imported(model))
    (got,) = evaluated(model, inputs)
    assert_close(got, getattr(np, op.lower())(arrays.astype(np.float64), axis=0), accumulation=count)


@pytest.mark.parametrize("opset", [1, 6, 10, 11, 12, 13])
def test_clip_of_every_opset(opset: int) -> None:
    x = normal(3, 4, scale=3)
    low, high = np.asarray(-1, np.float32), np.asarray(2, np.float32)
    for use_low, use_high in ((True, True), (True, False), (False, True), (False, False)):
        reference = np.minimum(np.maximum(x, low if use_low else -np.inf), high if use_high else np.inf)
        if opset < 11:
            attributes = ({"min": -1.0} if use_low else {}) | ({"max": 2.0} if use_high else {})
            got = outcome("Clip", [x], opset, **attributes)
        else:
            got = outcome("Clip", [x, low if use_low else None, high if use_high else None], opset)
        assert np.array_equal(got, reference.astype(np.float32))


def test_clip_takes_a_bound_of_one_element() -> None:
    x = normal(4)
    got = outcome("Clip", [x, np.array([0], np.float32)], 13)
    assert np.array_equal(got, np.maximum(x, 0))
    with pytest.raises(InvalidModel, match="one number"):
        outcome("Clip", [x, normal(2)], 13)


@pytest.mark.parametrize("opset", [1, 6, 7, 9, 16])
def test_prelu_of_every_opset(opset: int) -> None:
    x = normal(2, 3, 4)
    slopes: list[np.ndarray] = [np.array([0.5], np.float32)]
    if opset < 7:
        slopes.append(np.array([1, 2, 3], np.float32))
    else:
        slopes += [np.array([[1], [2], [3]], np.float32), np.arange(4, dtype=np.float32)]
    for slope in slopes:
        factor = slope[:, None] if opset < 7 and slope.size == 3 else slope
        assert np.array_equal(outcome("PRelu", [x, slope], opset), np.where(x < 0, x * factor, x))


ACTIVATIONS: list[tuple[str, int, dict[str, Any]]] = [
    ("Relu", 6, {}),
    ("LeakyRelu", 6, {}),
    ("LeakyRelu", 16, {"alpha": 0.2}),
    ("ThresholdedRelu", 10, {}),
    ("Elu", 6, {}),
    ("Selu", 6, {}),
    ("Celu", 12, {"alpha": 0.7}),
    ("HardSigmoid", 6, {}),
    ("HardSwish", 14, {}),
    ("Sigmoid", 6, {}),
    ("Softplus", 1, {}),
    ("Softsign", 1, {}),
    ("Mish", 18, {}),
    ("Gelu", 20, {}),
    ("Gelu", 20, {"approximate": "tanh"}),
    ("Shrink", 9, {"lambd": 0.3}),
    ("Erf", 9, {}),
    ("IsInf", 10, {"detect_negative": 0}),
    ("Round", 11, {}),
    ("Not", 1, {}),
]


@pytest.mark.parametrize(("op", "opset", "attributes"), ACTIVATIONS, ids=[f"{a[0]}-{a[1]}" for a in ACTIVATIONS])
def test_as_in_onnx_runtime(op: str, opset: int, attributes: dict[str, Any]) -> None:
    x = normal(3, 7, scale=2)
    inputs = {"x": x > 0} if op == "Not" else {"x": x}
    model = model_of([helper.make_node(op, ["x"], ["y"], **attributes)], inputs, ["y"], opset=max(opset, 7))
    assert_close(evaluated(model, inputs)[0], expected(model, inputs)[0])


def test_selu_of_opset_1_has_shorter_constants() -> None:
    x = normal(5)
    reference = np.where(x > 0, 1.0507 * x, 1.0507 * 1.6732 * np.expm1(np.minimum(x, 0)))
    assert_close(outcome("Selu", [x], 1), reference.astype(np.float64))


@pytest.mark.parametrize(("name", "dtype"), [("INT32", np.int32), ("DOUBLE", np.float64), ("BOOL", np.bool_)])
def test_cast_names_its_type_until_opset_5(name: str, dtype: Any) -> None:
    x = normal(3, 4, scale=3)
    got = outcome("Cast", [x], 1, to=name)
    assert got.dtype == dtype and np.array_equal(got, x.astype(dtype))


def test_cast_to_an_unknown_type_is_refused() -> None:
    with pytest.raises(InvalidModel, match="no element type"):
        outcome("Cast", [A], 1, to="FLOAT99")
    with pytest.raises(InvalidModel):
        outcome("Cast", [A], 13, to=99)


def test_cast_like_takes_the_type_alone() -> None:
    got = outcome("CastLike", [A, np.zeros(7, np.int16)], 19)
    assert got.dtype == np.int16 and np.array_equal(got, A.astype(np.int16))
    saturated = outcome("Cast", [np.array([1e6], np.float32)], 19, to=TensorProto.FLOAT8E4M3FN, saturate=0)
    assert np.isnan(saturated.astype(np.float32)).all()


def test_bit_shift_by_a_wrong_direction_is_refused() -> None:
    with pytest.raises(InvalidModel, match="direction"):
        outcome("BitShift", [np.ones(2, np.uint8), np.ones(2, np.uint8)], 11, direction="UP")


def test_activations_stay_whole() -> None:
    """Gelu, Mish, HardSwish and their like are ops, not the nodes of their function bodies."""
    ops = ["Gelu", "Mish", "HardSwish", "Celu", "Selu", "Softplus", "Clip"]
    nodes = [helper.make_node(op, [f"v{i}"], [f"v{i + 1}"]) for i, op in enumerate(ops)]
    graph = imported(model_of(nodes, {"v0": normal(3)}, [f"v{len(ops)}"], opset=21))
    assert [n.op.name for n in graph] == ["gelu", "mish", "hard_swish", "celu", "selu", "softplus", "clip"]
