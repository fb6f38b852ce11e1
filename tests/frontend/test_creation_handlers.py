"""Range, random tensors and NonMaxSuppression as imported: limits known at import or only at run time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from fusible.compiler.frontend.handlers import HANDLERS
from fusible.errors import InvalidModel
from tests.frontend.imported import evaluated, expected, imported, model_of


def scalar(value: float, dtype: Any = np.int64) -> np.ndarray:
    return np.array(value, dtype)


@pytest.mark.parametrize(
    ("bounds", "dtype"),
    [((0, 7, 2), np.int64), ((5, -5, -3), np.int32), ((3, 1, 1), np.int64), ((0, 2, 0.5), np.float32)],
)
def test_range(bounds: tuple[float, ...], dtype: Any) -> None:
    feeds = {f"x{i}": scalar(b, dtype) for i, b in enumerate(bounds)}
    node = helper.make_node("Range", list(feeds), ["y"])
    known, open_ = model_of([node], {}, ["y"], feeds), model_of([node], feeds, ["y"])
    (reference,) = expected(open_, feeds)
    for got in (evaluated(known, {})[0], evaluated(open_, feeds)[0]):
        assert got.dtype == reference.dtype
        assert np.array_equal(got, reference)
    assert imported(known).outputs[0].type.static_shape == reference.shape  # type: ignore[union-attr]


def test_a_range_without_end_is_refused_at_import() -> None:
    node = helper.make_node("Range", ["a", "b", "c"], ["y"])
    constants = {"a": scalar(0), "b": scalar(9), "c": scalar(0)}
    with pytest.raises(InvalidModel, match="delta"):
        imported(model_of([node], {}, ["y"], constants))


RANDOM: list[tuple[str, list[str], dict[str, Any]]] = [
    ("RandomNormal", [], {"shape": [40, 50], "mean": 3.0, "scale": 0.5}),
    ("RandomUniform", [], {"shape": [40, 50], "low": 2.0, "high": 4.0}),
    ("RandomNormalLike", ["x"], {"mean": 3.0, "scale": 0.5}),
    ("RandomUniformLike", ["x"], {"low": 2.0, "high": 4.0, "dtype": TensorProto.DOUBLE}),
]
X = np.full((40, 50), 0.25, np.float32)


@pytest.mark.parametrize(("op", "operands", "attributes"), RANDOM)
def test_random_tensors(op: str, operands: list[str], attributes: dict[str, Any]) -> None:
    seeded, free = ({**attributes, "seed": 7.0}, attributes)
    feeds = {"x": X} if operands else {}
    models = [model_of([helper.make_node(op, operands, ["y"], **a)], feeds, ["y"]) for a in (seeded, free)]
    first, again = (evaluated(models[0], feeds)[0] for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(*(evaluated(models[1], feeds)[0] for _ in range(2)))
    assert first.shape == (40, 50)
    assert first.dtype == (np.float64 if "dtype" in attributes else np.float32)
    assert abs(first.mean() - 3) < 0.05
    assert (reference := expected(models[0], feeds)[0]).dtype == first.dtype
    assert abs(reference.std() - first.std()) < 0.05


def test_bernoulli_and_multinomial() -> None:
    bernoulli = helper.make_node("Bernoulli", ["x"], ["y"], dtype=TensorProto.INT32, seed=1.0)
    draws = evaluated(model_of([bernoulli], {"x": X}, ["y"]), {"x": X})[0]
    assert draws.dtype == np.int32
    assert abs(draws.mean() - 0.25) < 0.05
    logits = np.log(np.array([[0.1, 0.6, 0.3]], np.float32))
    multinomial = helper.make_node("Multinomial", ["x"], ["y"], sample_size=4000, seed=1.0)
    classes = evaluated(model_of([multinomial], {"x": logits}, ["y"]), {"x": logits})[0]
    assert classes.dtype == np.int32
    assert np.abs(np.bincount(classes[0]) / 4000 - np.exp(logits[0])).max() < 0.05


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("given", [1, 2, 3])
def test_non_max_suppression(given: int, constant: bool) -> None:
    generator = np.random.default_rng(0)
    feeds = {"boxes": generator.random((1, 30, 4), np.float32), "scores": generator.random((1, 2, 30), np.float32)}
    limits = {"most": scalar(5), "overlap": scalar(0.4, np.float32), "least": scalar(0.3, np.float32)}
    limits = dict(list(limits.items())[:given])
    node = helper.make_node("NonMaxSuppression", [*feeds, *limits], ["y"])
    open_ = model_of([node], feeds | limits, ["y"])
    (reference,) = expected(open_, feeds | limits)
    model = model_of([node], feeds, ["y"], limits) if constant else open_
    got = evaluated(model, feeds if constant else feeds | limits)[0]
    assert got.dtype == np.int64
    assert np.array_equal(got, reference)


def test_every_version_of_these_operators_has_a_handler() -> None:
    names = (
        "Reshape Flatten Squeeze Unsqueeze Transpose Expand Tile Concat Split Slice Pad Identity Trilu ReverseSequence"
    )
    names += (
        " Gather GatherElements GatherND Scatter ScatterElements ScatterND OneHot TopK NonZero Unique Compress Range"
    )
    names += " ConstantOfShape EyeLike RandomNormal RandomUniform Bernoulli Multinomial NonMaxSuppression TensorScatter"
    for name in names.split():
        assert HANDLERS.find("", name, 1) is not None, name
