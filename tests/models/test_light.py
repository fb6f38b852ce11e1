"""The nine light models of the onnx package, with random weights: two pictures each through one executable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

import fusible
from tests.models.checks import (
    Inputs,
    assert_agrees,
    assert_runs_bare,
    assert_same_artifact_twice,
    compile_checked,
)
from tests.models.light import HEAVY, NAMES, light_model

PARAMETERS = [pytest.param(name, marks=pytest.mark.slow) if name in HEAVY else name for name in NAMES]


@pytest.fixture(scope="module", params=PARAMETERS)
def light(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, tuple[Inputs, ...], fusible.Executable]:
    """Model, inputs and executable; it is verified and printed after every pass."""
    model, sets = light_model(request.param)
    return model, sets, compile_checked(model)


def test_agrees_with_onnx_runtime(light):
    model, sets, executable = light
    assert_agrees(executable, model, sets)


@pytest.mark.parametrize("name", ["squeezenet"])
def test_agrees_on_cpu(name):
    model, sets = light_model(name)
    assert_agrees(compile_checked(model, target="cpu"), model, sets)


def test_outputs_are_no_constants(light):
    _, sets, executable = light
    one, other = (next(iter(executable.run(inputs).values()))[0] for inputs in sets)
    assert one.std() > 2 * abs(one.mean()) > 0
    assert np.abs(one - other).max() > one.std() / 20


def test_artifact_is_deterministic_and_runs_bare(light, tmp_path):
    model, sets, executable = light
    artifact = assert_same_artifact_twice(executable, model, tmp_path)
    assert_runs_bare(executable, artifact, sets[-1])
    for leftover in tmp_path.iterdir():  # up to 1.6 GB
        leftover.unlink()


def test_the_weights_are_the_same_at_every_call():
    one, other = (light_model("squeezenet")[0].SerializeToString(deterministic=True) for _ in range(2))
    assert one == other


@pytest.mark.parametrize("spoil", [lambda w: w * np.float32(1.05), lambda w: np.roll(w, 1, axis=0), np.zeros_like])
def test_a_spoilt_weight_is_noticed(spoil):
    model, sets = light_model("squeezenet")
    executable = fusible.compile(model, target="numpy")
    place = max(range(len(executable.constants)), key=lambda n: executable.constants[n].size)
    constants = [spoil(w) if n == place else w for n, w in enumerate(executable.constants)]
    with pytest.raises(AssertionError, match="exceeds"):
        assert_agrees(replace(executable, constants=tuple(constants)), model, sets[:1])
