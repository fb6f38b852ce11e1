"""The backend interface of the onnx package, and the official suite through it."""

from __future__ import annotations

import functools
import unittest
import warnings
from collections.abc import Iterable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fusible
import fusible.onnx_backend as backend
from tests.conformance.test_sample import KNOWN_WRONG

# Numbers drawn at random cannot be what the suite expects; it has no way to say so.
RANDOM = ("test_bernoulli", "test_training_dropout", "test_RandomUniform")
# The suite asks for the length of the scalars in this sequence.
SUITE_FAILS = ("test_loop16_seq_none",)


@functools.cache
def _official() -> dict[str, type[unittest.TestCase]]:
    with warnings.catch_warnings():  # onnx computes infinities on purpose
        warnings.simplefilter("ignore")
        from onnx.backend.test import BackendTest

        suite = BackendTest(fusible.onnx_backend, __name__)
    return suite.exclude("|".join([*RANDOM, *SUITE_FAILS, *KNOWN_WRONG])).test_cases


def _run(tests: Iterable[unittest.TestCase]) -> tuple[int, list[str], int]:
    """How many ran, what went wrong other than by an unsupported operator, and how many were not supported."""
    result = unittest.TestResult()
    for test in tests:
        test.run(result)
    bad = [(test.id(), text.strip().splitlines()[-1]) for test, text in [*result.failures, *result.errors]]
    unsupported = sum("UnsupportedOp" in reason for _, reason in bad) + sum(
        "ompatible" in why for _, why in result.skipped
    )
    wrong = [f"{name}: {reason}" for name, reason in bad if "UnsupportedOp" not in reason]
    return result.testsRun, wrong, unsupported


def _tests(category: str, step: int) -> list[unittest.TestCase]:
    case = _official()[f"OnnxBackend{category}ModelTest"]
    return [case(name) for name in sorted(vars(case)) if name.endswith("_cpu")][::step]


@pytest.mark.parametrize(
    ("category", "step"), [("Node", 19), ("Simple", 2), ("PyTorchConverted", 5), ("PyTorchOperator", 3)]
)
def test_a_sample_of_the_official_suite(category, step):
    ran, wrong, unsupported = _run(_tests(category, step))
    assert wrong == []
    assert unsupported <= ran / 10


@pytest.mark.slow
@pytest.mark.parametrize("category", ["Node", "Simple", "PyTorchConverted", "PyTorchOperator", "Real"])
def test_the_official_suite(category, tmp_path, monkeypatch):
    monkeypatch.setenv("ONNX_HOME", str(tmp_path))
    ran, wrong, unsupported = _run(_tests(category, 1))
    assert ran >= {"Node": 1884, "Simple": 23, "PyTorchConverted": 82, "PyTorchOperator": 35, "Real": 9}[category]
    assert wrong == []
    assert unsupported <= ran / 10


def _model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "ab"]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])])
    return helper.make_model(graph)


A, B = np.float32([1, 2, 3]), np.float32([4, 5, 6])


def test_a_model_runs_by_order_and_by_name():
    model = _model(helper.make_node("Sub", ["a", "b"], ["y"]))
    for inputs in ([A, B], (A, B), {"b": B, "a": A}):
        (y,) = backend.run_model(model, inputs)
        np.testing.assert_array_equal(y, A - B)
    representation = backend.prepare(model, "CPU:0", shapes={"n": 3})
    assert isinstance(representation.executable, fusible.Executable)
    assert representation.executable.inputs[0].shape == (3,)
    with pytest.raises(fusible.SignatureError, match="2 inputs"):
        representation.run([A])
    with pytest.raises(fusible.UsageError, match="unknown arguments: colour"):
        representation.run([A, B], colour="red")


def test_a_node_runs_with_inferred_and_with_stated_outputs():
    node = helper.make_node("Sub", ["a", "b"], ["y"])
    for info in (None, [(np.dtype(np.float32), (3,))]):
        (y,) = backend.run_node(node, [A, B], outputs_info=info)
        np.testing.assert_array_equal(y, A - B)
    (y,) = backend.run_node(node, {"a": A, "b": B}, opset_version=13)
    np.testing.assert_array_equal(y, A - B)
    (doubled,) = backend.run_node(helper.make_node("Add", ["a", "a"], ["y"]), A)
    np.testing.assert_array_equal(doubled, 2 * A)
    with pytest.raises(fusible.InvalidModel, match="1 arrays were given"):
        backend.run_node(node, [A])


def test_strings_may_be_bytes():
    node = helper.make_node("StringConcat", ["a", "b"], ["y"])
    (y,) = backend.run_node(node, [np.array([b"x", b"y"], object), np.array(["1", "2"], object)])
    assert y.tolist() == ["x1", "y2"]


def test_devices_and_compatibility():
    model = _model(helper.make_node("Sub", ["a", "b"], ["y"]))
    unknown = _model(
        helper.make_node("Sub", ["a", "b"], ["c"]), helper.make_node("NoSuchOp", ["c"], ["y"], domain="me")
    )
    unknown.opset_import.append(helper.make_opsetid("me", 1))
    assert backend.supports_device("CPU") and backend.supports_device("CPU:0") and not backend.supports_device("TPU")
    assert backend.is_compatible(model) and not backend.is_compatible(unknown)
    with pytest.raises(fusible.UsageError, match="device must be one of CPU"):
        backend.prepare(model, "TPU")
    with pytest.raises(fusible.UsageError, match="unknown arguments: colour"):
        backend.prepare(model, colour="red")
