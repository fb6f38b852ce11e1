"""Options: nonsense is refused, and what this release cannot do is said, not ignored."""

from __future__ import annotations

import pytest

import fusible
from tests.runtime import models


@pytest.mark.parametrize("wrong", [{"precision": "bf16"}, {"precision": "fp16"}, {"standalone": True}])
def test_what_the_target_cannot_do_is_an_error(wrong: dict) -> None:
    with pytest.raises(fusible.UsageError, match="numpy"):
        fusible.compile(models.cache_step(), options=fusible.Options(**wrong), target="numpy")


def test_standalone_refuses_steps_that_call_numpy() -> None:
    options = fusible.Options(standalone=True)
    exe = fusible.compile(models.conv_relu_add(), target="cpu", options=options)
    assert exe.report.host == ()
    with pytest.raises(fusible.LoweringError, match=r"a standalone model.*if at 'if'.*loop at 'loop'"):
        fusible.compile(models.branches(), target="cpu", options=options)


def test_threads_are_noted() -> None:
    report = fusible.compile(models.cache_step(), options=fusible.Options(threads=2), target="numpy").report
    assert any("threads=2 has no effect" in note for note in report.notes)


@pytest.mark.parametrize(
    "wrong", [{"threads": 0}, {"precision": "fp8"}, {"verify": "maybe"}, {"exactness": 1.5}, {"exactness": "EXACT"}]
)
def test_nonsense_is_refused(wrong: dict) -> None:
    with pytest.raises(fusible.UsageError):
        fusible.Options(**wrong)


def test_limits_are_positive() -> None:
    with pytest.raises(fusible.UsageError, match="nodes"):
        fusible.Limits(nodes=0)


def test_exactness_bounds_what_runs() -> None:
    exact = fusible.Options(exactness=fusible.Exactness.EXACT)
    strict = fusible.compile(models.conv_relu_add(), target="numpy", options=exact)
    assert all(row["kind"] != "fired" or row["pass"] != "fold-batch-norm" for row in strict.report.fusions)
