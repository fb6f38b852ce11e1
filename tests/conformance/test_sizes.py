"""A sample of conformance models run with sizes that do not fit, and the search: it finds what is not checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusible.passes.note_requirements import NoteRequirements
from tests.conformance.cases import load_cases
from tests.conformance.sizes import findings, main
from tests.fast_compiler import fast_compiler

SAMPLE = [
    "test_add_bcast", "test_batchnorm_example", "test_basic_conv_with_padding", "test_concat_2d_axis_0",
    "test_depthtospace_example", "test_gemm_all_attributes", "test_prelu_broadcast", "test_squeeze", "test_top_k",
    "test_where_example",
]  # fmt: skip


def test_a_sample_of_models_with_sizes_that_do_not_fit(tmp_path: Path) -> None:
    cases = [case for case in load_cases("node") if case.name in SAMPLE]
    assert len(cases) == len(SAMPLE)
    with fast_compiler(tmp_path, "-O0"):
        results = [findings(case, seed=1, shares=(0.7,)) for case in cases]
    assert [line for _, lines in results for line in lines] == []
    assert sum(tried for tried, _ in results) > 40


def test_what_is_not_checked_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(NoteRequirements, "run_one", lambda *_: 0)
    assert main(["test_concat_2d_axis_0", "--target", "cpu"]) == 1
    assert "numpy ExecutionError: concat at 'output'" in capsys.readouterr().out
