"""Conformance in CI: every ninth node case and all small models; `-m slow` runs every node case."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from tests.conformance import run
from tests.conformance.__main__ import main
from tests.conformance.cases import Case, load_cases, plain
from tests.conformance.run import Outcome, difference, run_case, totals
from tests.fast_compiler import fast_compiler

# Cases that fail in another way than by a named, unsupported operator: each with its reason.
KNOWN_WRONG = {
    "test_attention_4d_causal_fp16_expanded": "the softmax is re-composed and no longer rounds to fp16 at each step"
}


def _unexpected(outcomes: list[Outcome]) -> list[str]:
    failed = [outcome for outcome in outcomes if not outcome.passed and outcome.name not in KNOWN_WRONG]
    return [f"{o.name}: {o.reason}" for o in failed if not o.reason.startswith("UnsupportedOp")]


def _share(outcomes: list[Outcome]) -> float:
    return sum(outcome.passed for outcome in outcomes) / len(outcomes)


def test_a_sample_of_the_node_cases():
    outcomes = [run_case(case) for case in load_cases("node")[::9]]
    assert _unexpected(outcomes) == []
    assert _share(outcomes) >= 0.95


def test_a_smaller_sample_of_the_node_cases_on_cpu(tmp_path):
    with fast_compiler(tmp_path, "-O1"):
        outcomes = [run_case(case, target="cpu") for case in load_cases("node")[4::30]]
    assert _unexpected(outcomes) == []
    assert _share(outcomes) >= 0.95


@pytest.mark.slow
def test_all_node_cases():
    outcomes = [run_case(case, verify=True) for case in load_cases("node")]
    assert len(outcomes) == 1884
    assert _unexpected(outcomes) == []
    assert _share(outcomes) >= 0.98


@pytest.mark.parametrize("kind", ["simple", "pytorch-converted", "pytorch-operator"])
def test_small_models(kind):
    outcomes = [run_case(case, verify=True) for case in load_cases(kind)]
    assert _unexpected(outcomes) == []
    assert _share(outcomes) >= 0.9


def test_the_command_prints_a_table_and_writes_json(tmp_path, capsys):
    file = tmp_path / "result.json"
    assert main(["--kind", "simple", "--filter", "sequence_model", "--json", str(file), "--fail-under", "50"]) == 0
    printed = capsys.readouterr().out
    assert "operator" in printed and "cases pass (100.0 %)" in printed
    written = json.loads(file.read_text())
    assert written["total"] == written["passed"] == len(written["cases"]) == 8
    assert sum(row["total"] for row in written["ops"].values()) == 8


def test_the_command_names_failures_and_exits_with_1(capsys):
    arguments = ["--kind", "simple", "--filter", "gradient|expand_shape", "--fail-under", "90"]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert "test_gradient_of_add (Add): UnsupportedOp:" in printed.out
    assert "fewer than 90 % pass" in printed.err
    assert main([*arguments[:-1], "10"]) == 0


def test_wrong_usage_exits_with_2(capsys):
    assert main(["--kind", "simple", "--op", "NoSuchOp"]) == 2
    with pytest.raises(SystemExit) as stopped:
        main(["--kind", "no-such-kind"])
    assert stopped.value.code == 2
    capsys.readouterr()


def _small_case() -> Case:
    return next(case for case in load_cases("pytorch-operator") if case.name == "test_operator_exp")


def test_wrong_expectations_are_noticed():
    case = _small_case()
    assert run_case(case).passed
    ((inputs, outputs),) = case.data_sets
    for wrong in (
        outputs[0] * np.float32(1.05),
        outputs[0].astype(np.float64),
        outputs[0][..., :1],
        [outputs[0]],
        None,
    ):
        outcome = run_case(replace(case, data_sets=((inputs, (wrong,)),)))
        assert outcome.reason.startswith("WrongResult: output"), wrong
    assert run_case(replace(case, data_sets=((inputs, (*outputs, *outputs)),))).reason.startswith(
        "WrongResult: 2 outputs"
    )
    assert run_case(replace(case, data_sets=(((inputs[0].astype(np.int8),), outputs),))).reason.startswith(
        "SignatureError"
    )


def test_crashes_and_endless_cases_are_outcomes(monkeypatch):
    def crash(*_):
        raise KeyError("lost")

    def hang(*_):
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(run, "_check", crash)
    assert run_case(_small_case()).reason.startswith("Crash: KeyError: 'lost' (test_sample.py:")
    monkeypatch.setattr(run, "_check", hang)
    outcome = run_case(_small_case(), seconds=0.1)
    assert outcome.reason == "Timeout: took more than 0.1 s" and outcome.seconds < 5


def test_differences():
    def differ(wanted, got):
        return bool(difference(wanted, got, 1e-3, 1e-7))

    x = np.float32([1, np.nan, np.inf])
    assert not differ(x, x * np.float32(1.0005))
    assert differ(x, np.float32([1, 0, np.inf])) and differ(x, np.float32([1.002, np.nan, np.inf]))
    assert differ(np.int64([10000]), np.int64([10001])), "integers are exact"
    assert differ(np.array(["a"], object), np.array(["b"], object))
    half = np.array([1.0], ml_dtypes.bfloat16)
    assert not differ(half, half + half * np.array(0.0078125, ml_dtypes.bfloat16))
    assert differ(half, half * np.array(1.05, ml_dtypes.bfloat16))
    assert not differ([x, None], [x, None]) and differ([x, None], [x, x]) and differ([x], [x, x])
    assert difference(x, -x, 0, 0, numbers=False) == ""
    assert differ(plain([b"a"])[0], plain(np.array(["b"]))[0])


def test_totals_count_by_operator():
    outcomes = [Outcome("a", "node", "Add", "", 0.1), Outcome("b", "node", "Add", "why", 0.1)]
    assert totals(outcomes) == {"Add": {"passed": 1, "failed": 1, "total": 2}}
    assert Counter(outcome.passed for outcome in outcomes) == {True: 1, False: 1}
