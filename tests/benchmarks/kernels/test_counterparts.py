"""Every counterpart computes what our kernel computes; what has none says why, and nothing is left out."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fusible.benchmarks.kernels.agreement import agree
from fusible.benchmarks.kernels.cases import BUILT_IN, Case, load_cases, parse_case
from fusible.benchmarks.kernels.counterparts.numpy_baseline import FORMS
from fusible.benchmarks.kernels.counterparts.onnxruntime_baseline import one_node_model
from fusible.benchmarks.kernels.counterparts.protocol import (
    BaselineError,
    Counterpart,
    NoCounterpart,
    find_baseline,
)
from fusible.benchmarks.kernels.coverage import NOWHERE, reasons
from fusible.benchmarks.kernels.subjects import Subject, subjects_of
from fusible.benchmarks.kernels.values import operand_values
from fusible.benchmarks.kernels.written import written_cases
from fusible.compiler.ir.ops import OPS
from fusible.errors import UsageError

CASES = load_cases(BUILT_IN)
NOT_IN_ONNXRUNTIME = {"swiglu"}  # of opset 26, whose function body needs a Swish that it has no kernel for
SMALL = 300_000
PLAIN = [case for case in written_cases() if case.op in FORMS]


def _small(case: Case) -> bool:
    sizes = [getattr(operand.type, "elements", None) or 0 for operand in case.operands if operand is not None]
    return all(size <= SMALL for size in sizes)


def _agrees(case: Case, baseline: str) -> None:
    values = operand_values(case, 0)
    subject = subjects_of(case, values)[0]
    assert isinstance(subject, Subject)
    counterpart = find_baseline(baseline).build(case, values, 1)
    with counterpart.around(), np.errstate(all="ignore"):
        counterpart.call()
        reference = counterpart.results()
        verdict = agree(case.node(values), reference, subject.results())
    assert verdict, f"{case.text}: {verdict.reason}"


@pytest.mark.parametrize("case", [c for c in CASES if _small(c)][::6], ids=lambda case: case.text[:80])
def test_a_sample_agrees_with_onnxruntime(case: Case) -> None:
    _agrees_unless_lacking(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.text[:80])
def test_all_cases_agree_with_onnxruntime(case: Case) -> None:
    _agrees_unless_lacking(case)


def _agrees_unless_lacking(case: Case) -> None:
    if case.op in NOT_IN_ONNXRUNTIME:
        with pytest.raises(NoCounterpart):
            _agrees(case, "onnxruntime")
    else:
        _agrees(case, "onnxruntime")


@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.text[:80])
def test_numpy_expressions_agree(case: Case) -> None:
    try:
        _agrees(case, "numpy")
    except NoCounterpart as error:
        assert any(words in str(error) for words in ("no plain expression", "no plain NumPy"))


@pytest.mark.bench
@pytest.mark.parametrize("case", [*written_cases(), *CASES[::5]], ids=lambda case: case.text[:80])
def test_torch_functions_agree(case: Case) -> None:
    try:
        _agrees(case, "torch")
    except NoCounterpart as error:
        assert str(error)


def test_every_op_has_a_counterpart_or_a_reason() -> None:
    ops = {op.name for op in OPS if not op.domain}
    written = {case.op for case in written_cases()}
    assert ops - written == set(NOWHERE)


def test_every_op_with_a_counterpart_is_in_the_built_in_list() -> None:
    assert {case.op for case in written_cases()} <= {case.op for case in CASES}


@pytest.mark.slow
def test_how_many_ops_have_a_counterpart() -> None:
    """Numbers that the documentation states: a lost counterpart shows."""
    for baseline, least in (("numpy", 165), ("onnxruntime", 228)):
        found = reasons(find_baseline(baseline), written_cases())
        assert sum(reason == "" for reason in found.values()) >= least
        assert all(reason for op, reason in found.items() if reason != "")


def test_onnxruntime_gets_a_model_of_one_node_with_its_constants() -> None:
    case = parse_case("conv(f32[1, 3, 9, 9], const f32[4, 3, 3, 3], none)")
    model = one_node_model(case, operand_values(case, 0))
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    assert [len(model.graph.input), len(model.graph.initializer)] == [1, 1]


def test_what_onnx_cannot_say_has_no_counterpart() -> None:
    case = parse_case('resize(f32[1, 1, 4, 4]) {scales=(1.0, 1.0, 2.0, 2.0), nearest_mode="simple"}')
    with pytest.raises(NoCounterpart, match="opset 10"):
        one_node_model(case, operand_values(case, 0))


def test_tables_must_be_constants() -> None:
    case = parse_case("scaler(f32[4, 2], f32[2], const f32[2])")
    with pytest.raises(NoCounterpart, match="must be const"):
        one_node_model(case, operand_values(case, 0))


def test_a_failing_expression_is_a_failure_not_an_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(use: object) -> object:
        raise ValueError("planted")

    from fusible.benchmarks.kernels.counterparts import numpy_baseline

    monkeypatch.setattr(numpy_baseline, "FORMS", {"abs": broken})
    with pytest.raises(BaselineError, match="planted"):
        find_baseline("numpy").build(parse_case("abs(f32[3])"), [np.ones(3, np.float32)], 1)


def test_unknown_and_missing_baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="numpy, torch, onnxruntime"):
        find_baseline("tensorflow")
    for name in ("torch", "fusible.benchmarks.kernels.counterparts.torch_baseline"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NoCounterpart, match="pip install torch"):
        find_baseline("torch")


def test_a_counterpart_has_nothing_around_it_by_default() -> None:
    with Counterpart(lambda: None, list).around():
        pass


def test_the_list_is_part_of_the_package() -> None:
    assert BUILT_IN.parent == Path(sys.modules["fusible.benchmarks.kernels.cases"].__file__ or "").parent
