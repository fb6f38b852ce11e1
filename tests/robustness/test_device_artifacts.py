"""Damaged artifacts with kernels for devices: an error of Fusible's, or a run in which each access is within bounds."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest

import fusible
from tests.fast_compiler import fast_compiler
from tests.robustness.test_artifacts import WRONG, _places, _write
from tests.runtime.damaged import header_of, sections_of

MODEL = """<ir_version: 9, opset_import: ["": 20]>
m (float[n, 8, 9] x, bool c) => (float[n, 8] y, float[n, 8] z, int64[d, k] w)
{
  p = Relu(x)
  a = Constant<value_ints = [2]>()
  y = ReduceSum<keepdims = 0>(p, a)
  z = If(c) <
    then_branch = yes () => (float[n, 8] t) {t = Sigmoid(y)},
    else_branch = no () => (float[n, 8] e) {e = Tanh(y)}
  >
  w = NonZero(y)
}"""
RUN = ("plan", "inputs", "outputs", "limits")
OTHER = ("a", "n", "floordiv(n, 0)", "arena", "input", "constant", "output", "late", "f16", "i64", "string", 1, 2, 3, 7)


@pytest.fixture(scope="module", autouse=True)
def _fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with fast_compiler(tmp_path_factory.mktemp("cc"), "-O0", lowered=True):
        yield


def damaged(header: dict[str, Any], parts: tuple[str, ...], rng: random.Random) -> dict[str, Any]:
    """A header of which one field is another."""
    changed: Any = copy.deepcopy(header)
    place = rng.choice([place for place in _places(header) if place[0] in parts])
    at = changed
    for key in place[:-1]:
        at = at[key]
    old = at[place[-1]]
    if isinstance(old, list) and old and rng.random() < 0.5:
        at[place[-1]] = rng.choice([old[::-1], old[:-1], old + old[:1]])
    else:
        at[place[-1]] = rng.choice(WRONG + OTHER)
    return dict(changed)


@pytest.mark.parametrize("bounds", [{}, {"n": (1, 64)}])
def test_plans(bounds: dict[str, tuple[int, int]], tmp_path: Path) -> None:
    """In checking mode, so that what kernels would read or write outside is an error."""
    options = fusible.Options(verify="kernels")
    fusible.compile(onnx.parser.parse_model(MODEL), "triton-cpu", options=options, shapes=bounds).save(
        tmp_path / "whole"
    )
    header, rest = header_of(tmp_path / "whole"), sections_of(tmp_path / "whole")
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 8, 9)).astype(np.float32), "c": np.array(True)}
    refused = 0
    for seed in range(120):
        _write(tmp_path / "damaged", damaged(header, RUN, random.Random(seed)), rest)
        try:
            session = fusible.load(tmp_path / "damaged").session()
            for _ in range(2):
                session.run(feeds)
        except fusible.FusibleError:
            refused += 1
    assert 60 < refused < 120


def test_kernels_built_ahead(tmp_path: Path) -> None:
    options = fusible.Options(allow_host=True)
    fusible.compile(onnx.parser.parse_model(MODEL), "cuda:sm_90", options=options).save(tmp_path / "whole")
    header, rest = header_of(tmp_path / "whole"), sections_of(tmp_path / "whole")
    refused = 0
    for seed in range(120):
        _write(tmp_path / "damaged", damaged(header, ("device", "sections"), random.Random(seed)), rest)
        try:
            fusible.load(tmp_path / "damaged")
        except fusible.FusibleError:
            refused += 1
    assert 60 < refused < 120
