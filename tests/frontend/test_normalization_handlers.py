"""Reductions, softmax, normalisations and Dropout of every opset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import helper

from fusible.errors import InvalidModel, UnsupportedOp
from tests.frontend.imported import evaluated, expected, imported, model_of
from tests.kernels.kernel_calls import normal
from tests.tolerance import assert_close

X = normal(2, 6, 4, 3)


def outcomes(
    op: str,
    given: Sequence[np.ndarray],
    opset: int,
    *,
    outputs: int = 1,
    constants: Sequence[np.ndarray] = (),
    **attributes: Any,
) -> list[Any]:
    """The outputs of a model of one node; `constants` follow the inputs as initialisers."""
    inputs = {f"x{i}": x for i, x in enumerate(given)}
    known = {f"c{i}": x for i, x in enumerate(constants)}
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, [*inputs, *known], results, **attributes)
    return evaluated(model_of([node], inputs, results, known, opset=opset), inputs)


REDUCTIONS = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceL1": lambda x, **how: np.sum(np.abs(x), **how),
    "ReduceL2": lambda x, **how: np.sqrt(np.sum(x * x, **how)),
    "ReduceLogSum": lambda x, **how: np.log(np.sum(x, **how)),
    "ReduceLogSumExp": lambda x, **how: np.log(np.sum(np.exp(x), **how)),
    "ReduceSumSquare": lambda x, **how: np.sum(x * x, **how),
}
P = (1 + np.abs(normal(3, 4, 2, scale=0.1))).astype(np.float32)


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("opset", [1, 11, 13, 18, 21])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions_of_every_opset(op: str, opset: int, keepdims: int) -> None:
    by_input = opset >= (13 if op == "ReduceSum" else 18)
    for axes in ((1,), (-1, 0), None):
        how = {"axis": axes, "keepdims": bool(keepdims)}
        reference = REDUCTIONS[op](P.astype(np.float64), **how)
        if axes is None:
            found = [outcomes(op, [P], opset, keepdims=keepdims)]
        elif by_input:
            array = np.array(axes, np.int64)
            found = [
                outcomes(op, [P], opset, constants=[array], keepdims=keepdims),
                outcomes(op, [P, array], opset, keepdims=keepdims),  # known only at run time
            ]
        else:
            found = [outcomes(op, [P], opset, keepdims=keepdims, axes=list(axes))]
        for got in found:
            assert_close(got[0], reference, accumulation=24)


def test_no_axes_reduce_everything_or_nothing() -> None:
    none = np.empty(0, np.int64)
    for given, constants in (([P, none], []), ([P], [none]), ([P], [])):
        everything = outcomes("ReduceSumSquare", given, 18, constants=constants, keepdims=0)[0]
        assert_close(everything, np.sum(P.astype(np.float64) ** 2), accumulation=24)
        nothing = outcomes("ReduceSumSquare", given, 18, constants=constants, noop_with_empty_axes=1)[0]
        assert np.array_equal(nothing, P * P)


def test_axis_of_a_reduction_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidModel, match="axis 3"):
        outcomes("ReduceMax", [P], 11, axes=[3])


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("opset", [7, 11, 12, 13])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, 3, -1, -2])
def test_softmax_as_in_onnx_runtime(op: str, opset: int, axis: int | None) -> None:
    attributes = {} if axis is None else {"axis": axis}
    model = model_of([helper.make_node(op, ["x"], ["y"], **attributes)], {"x": X}, ["y"], opset=opset)
    assert_close(evaluated(model, {"x": X})[0], expected(model, {"x": X})[0], accumulation=144)


def test_flattened_softmax_needs_no_reshape_along_the_last_axis() -> None:
    model = model_of([helper.make_node("Softmax", ["x"], ["y"], axis=3)], {"x": X}, ["y"], opset=11)
    assert [n.op.name for n in imported(model)] == ["softmax"]
    with pytest.raises(InvalidModel, match="axis 5"):
        outcomes("Softmax", [X], 11, axis=5)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("opset", [7, 11, 12, 13])
def test_positions(op: str, opset: int) -> None:
    x = np.random.default_rng(3).integers(0, 3, (4, 5)).astype(np.float32)
    flags: list[dict[str, Any]] = [{}, {"axis": -1, "keepdims": 0}]
    if opset >= 12:
        flags.append({"axis": 1, "select_last_index": 1})
    for attributes in flags:
        model = model_of([helper.make_node(op, ["x"], ["y"], **attributes)], {"x": x}, ["y"], opset=opset)
        assert np.array_equal(evaluated(model, {"x": x})[0], expected(model, {"x": x})[0])


def test_running_sum_with_its_axis_known_or_not() -> None:
    x, axis = normal(3, 4), np.array(1, np.int64)
    for given, constants in (([x, axis], []), ([x], [axis])):
        got = outcomes("CumSum", given, 14, constants=constants, exclusive=1, reverse=1)[0]
        model = model_of(
            [helper.make_node("CumSum", ["x", "a"], ["y"], exclusive=1, reverse=1)], {"x": x, "a": axis}, ["y"]
        )
        assert_close(got, expected(model, {"x": x, "a": axis})[0], accumulation=4)


def parameters(*shape: int) -> list[np.ndarray]:
    """scale, bias, mean, variance."""
    rows = normal(4, *shape)
    rows[3] = np.abs(rows[3]) + np.float32(0.1)
    return list(rows)


def batch_reference(x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    s, b, m, v = (np.reshape(p, (p.shape + (1,) * (x.ndim - 1 - p.ndim))) for p in (scale, bias, mean, variance))
    return (x.astype(np.float64) - m) / np.sqrt(v.astype(np.float64) + 1e-3) * s + b


INFERENCE: list[tuple[int, dict[str, Any]]] = [
    (1, {"is_test": 1, "consumed_inputs": [0, 0, 0, 1, 1]}),
    (6, {"is_test": 1}),
    (7, {}),
    (9, {}),
    (14, {}),
    (15, {"training_mode": 0}),
]


@pytest.mark.parametrize(("opset", "attributes"), INFERENCE)
def test_batch_normalization_at_inference(opset: int, attributes: dict[str, Any]) -> None:
    given = parameters(6)
    got = outcomes("BatchNormalization", [X, *given], opset, epsilon=1e-3, **attributes)[0]
    assert_close(got, batch_reference(X, *given), accumulation=4)


@pytest.mark.parametrize("opset", [6, 7])
def test_batch_normalization_that_is_not_spatial(opset: int) -> None:
    given = parameters(6, 4, 3)
    attributes = {"is_test": 1} if opset == 6 else {}
    got = outcomes("BatchNormalization", [X, *given], opset, epsilon=1e-3, spatial=0, **attributes)[0]
    assert_close(got, batch_reference(X, *given), accumulation=4)


TRAINING: list[tuple[int, int, dict[str, Any]]] = [
    (6, 1, {}),
    (6, 3, {"is_test": 0}),
    (7, 3, {}),
    (9, 3, {}),
    (14, 3, {"training_mode": 1}),
    (15, 1, {"training_mode": 1}),
]


@pytest.mark.parametrize(("opset", "outputs", "attributes"), TRAINING)
def test_batch_normalization_in_training(opset: int, outputs: int, attributes: dict[str, Any]) -> None:
    given = parameters(6)
    found = outcomes(
        "BatchNormalization", [X, *given], opset, outputs=outputs, epsilon=1e-3, momentum=0.75, **attributes
    )
    wide = X.astype(np.float64)
    mean, variance = wide.mean((0, 2, 3)), wide.var((0, 2, 3))
    assert_close(found[0], batch_reference(X, *given[:2], mean, variance), accumulation=24)
    for got, old, new in zip(found[1:], given[2:], (mean, variance), strict=False):
        assert_close(got, old.astype(np.float64) * 0.75 + new * 0.25, accumulation=24)


def test_saved_statistics_of_old_training_are_unsupported() -> None:
    with pytest.raises(UnsupportedOp, match="output 3"):
        outcomes("BatchNormalization", [X, *parameters(6)], 7, outputs=5)


@pytest.mark.parametrize("opset", [1, 6, 22])
def test_instance_normalization(opset: int) -> None:
    scale, bias, _, _ = parameters(6)
    got = outcomes("InstanceNormalization", [X, scale, bias], opset, epsilon=1e-3)[0]
    wide = X.astype(np.float64)
    mean, variance = wide.mean((2, 3)), wide.var((2, 3))
    for n in range(2):
        assert_close(got[n], batch_reference(X[n : n + 1], scale, bias, mean[n], variance[n])[0], accumulation=24)


@pytest.mark.parametrize("opset", [18, 21])
def test_group_normalization_spreads_the_old_parameters(opset: int) -> None:
    scale, bias, _, _ = parameters(6)
    given = [scale[::3], bias[::3]] if opset == 18 else [scale, bias]
    got = outcomes("GroupNormalization", [X, *given], opset, num_groups=2, epsilon=1e-3)[0]
    rows = X.astype(np.float64).reshape(2, 2, -1)
    standard = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + 1e-3)
    s, b = (np.repeat(p[::3], 3) if opset == 18 else p for p in (scale, bias))
    assert_close(got, standard.reshape(X.shape) * s[:, None, None] + b[:, None, None], accumulation=36)
    with pytest.raises(InvalidModel, match="divide"):
        outcomes("GroupNormalization", [X, *given], opset, num_groups=4)


def test_layer_normalization_gives_statistics_only_when_asked() -> None:
    scale, bias = normal(3), normal(3, 1)[:, 0]
    for outputs in (1, 2, 3):
        names = [f"y{i}" for i in range(outputs)]
        inputs = {"x": X, "s": scale, "b": bias}
        model = model_of([helper.make_node("LayerNormalization", list(inputs), names)], inputs, names, opset=17)
        whole = "layer_normalization" if outputs == 1 else "layer_normalization_statistics"
        assert [n.op.name for n in imported(model)] == [whole]
        for got, reference in zip(evaluated(model, inputs), expected(model, inputs), strict=True):
            assert_close(got, reference, accumulation=8)


def test_stash_type_must_be_a_float() -> None:
    with pytest.raises(InvalidModel, match="stash_type"):
        outcomes("LayerNormalization", [X, normal(3)], 17, stash_type=7)


@pytest.mark.parametrize("opset", [7, 10])
def test_dropout_of_middle_opsets_is_inference(opset: int) -> None:
    y, mask = outcomes("Dropout", [X], opset, outputs=2)
    assert np.array_equal(y, X)
    assert mask.dtype == (np.float32 if opset < 10 else np.bool_)
    assert mask.shape == X.shape and mask.all()


@pytest.mark.parametrize("opset", [1, 6])
def test_dropout_of_old_opsets_says_whether_it_is_a_test(opset: int) -> None:
    assert np.array_equal(outcomes("Dropout", [X], opset, is_test=1)[0], X)
    y, mask = outcomes("Dropout", [np.ones((50, 50), np.float32)], opset, outputs=2, ratio=0.25)
    assert np.array_equal(y, mask / np.float32(0.75)) and 0.6 < mask.mean() < 0.9


def test_dropout_with_inputs() -> None:
    ratio = np.array(0.5, np.float32)
    for training in (np.array(False), None):
        constants = [ratio] if training is None else [ratio, training]
        assert np.array_equal(outcomes("Dropout", [X], 13, constants=constants)[0], X)
    for given, constants in (([X], [ratio, np.array(True)]), ([X, ratio, np.array(True)], [])):
        y, mask = outcomes("Dropout", given, 13, outputs=2, constants=constants, seed=3)
        assert np.array_equal(y, X * mask * 2) and not mask.all()
    run_time = outcomes("Dropout", [X, ratio, np.array(False)], 13, outputs=2)
    assert np.array_equal(run_time[0], X) and run_time[1].all()


@pytest.mark.parametrize("opset", [1, 13])
def test_lrn_and_lp_normalization(opset: int) -> None:
    model = model_of([helper.make_node("LRN", ["x"], ["y"], size=3)], {"x": X}, ["y"], opset=max(opset, 7))
    assert_close(evaluated(model, {"x": X})[0], expected(model, {"x": X})[0], accumulation=3)
    got = outcomes("LpNormalization", [X], opset, axis=1, p=1)[0]
    assert_close(got, X / np.abs(X.astype(np.float64)).sum(1, keepdims=True), accumulation=6)
    with pytest.raises(InvalidModel, match="1 or 2"):
        outcomes("LpNormalization", [X], opset, p=3)
