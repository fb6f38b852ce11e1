"""The tables of the terminal: what they say, at both widths, and that no name can steer the terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fusible.benchmarks.records import Results
from fusible.benchmarks.report.compare import compare
from fusible.benchmarks.report.terminal import changes_text, print_changes, print_results, results_text
from tests.benchmarks.report.made_up import HOSTILE, MODELS, interval, kernel_row, large, latency, model_row, results

WIDTHS = pytest.mark.parametrize("width", [100, 200])


def run() -> Results:
    """A run with rows of every status, and kernels."""
    rows = [
        model_row(peer="torch", plain=interval(1.07), ratio=interval(0.7)),
        model_row(),
        model_row(peer="onnxruntime"),
        model_row(peer="openvino", status="wrong", reason="output 0 differs", ratio=None, max_error=0.31),
        model_row("gpt2"),
        model_row("gpt2", "torch", status="failed", reason="no kernel\nfor GridSample", latency=None, ratio=None),
        model_row("gpt2", "openvino", status="absent", reason="not installed", latency=None, ratio=None),
    ]
    kernels = [
        kernel_row(),
        kernel_row("softmax", flops=1e6, bytes=4e6, latency=latency(1e-3)),
        kernel_row("gather", flops=None),
        kernel_row("erf", flops=None, bytes=None),
        kernel_row("lstm", status="failed", reason="no such op", latency=None, baseline_latency=None, ratio=None),
        kernel_row("conv", baseline="torch", threads=2),
    ]
    return results(rows, kernels)


@WIDTHS
def test_the_table_says_all(width: int) -> None:
    text = results_text(run(), width)
    for said in (
        *("AMD EPYC 7B13, 2 cores, 8.00 GiB", "onnxruntime 1.32.0", "92.4 GFLOP/s, 11.8 GB/s", "note: turbo is on"),
        *("1.02 times its best at p50", "mobilenet_v2 fp32, batch 1, 1 thread", "time of fusible"),
        *("12.4 ms", "12.0–12.8", "1.20", "1.19–1.21", "48.4", "52 %", "21 %", "80.6", "840 ms", "1.31 s", "143 MiB"),
        *("54", "2.4e-06", "3.1e-07", "1.07", "plain"),
        *("wrong: output 0 differs", "failed: no kernel for GridSample", "absent: not installed", "failed: no such op"),
        *("against onnxruntime, cpu, 1 thread", "against torch, cpu, 2 threads", "3.10 ms", "3.80 ms", "1.22", "81 %"),
        *("74.5 GFLOP/s", "4.00 GB/s", "strides", "conv_blocked", "f32[1, 64,"),
        "All models: fusible against each peer",
    ):
        assert said in text, said
    assert max(map(len, text.splitlines())) <= width
    assert not any(line != line.rstrip() for line in text.splitlines())


@WIDTHS
def test_the_subject_comes_first_and_groups_stay_together(width: int) -> None:
    lines = results_text(run(), width).splitlines()
    starts = [line.split()[0] for line in lines if line.startswith(("fusible ", "torch ", "onnxruntime ", "openvino "))]
    assert starts[1:6] == ["fusible", "torch", "onnxruntime", "openvino", "openvino"]  # after the line of the command


@WIDTHS
def test_there_is_no_plain_column_without_plain_loops(width: int) -> None:
    assert "plain" not in results_text(results([model_row()]), width)


def test_rows_line_up_over_groups() -> None:
    rows = [model_row(), model_row("long_latency", latency=latency(123.0)), model_row("c", latency=latency(1.0))]
    lines = [line for line in results_text(results(rows), 200).splitlines() if line.startswith("fusible   ")]
    assert len(lines) == 3
    assert len({len(line) for line in lines}) == 1


def test_a_wide_table_has_one_line_a_row() -> None:
    wide, narrow = (results_text(large(MODELS[:3]), width) for width in (200, 100))
    assert sum(line.startswith("fusible ") for line in wide.splitlines()) == 6 + 1
    assert len(narrow.splitlines()) > len(wide.splitlines()) + 20


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_names_cannot_steer_the_terminal_or_break_the_width(width: int) -> None:
    rows = [model_row(HOSTILE, HOSTILE), model_row(HOSTILE, "x" + HOSTILE, status=HOSTILE, reason=HOSTILE)]
    kernels = [kernel_row(HOSTILE, signature=HOSTILE, baseline=HOSTILE, device=HOSTILE)]
    made = results(rows, kernels, command=HOSTILE, notes=(HOSTILE,), versions={HOSTILE: HOSTILE})
    text = results_text(made, width)
    assert "\x1b" not in text
    assert "[red]" in results_text(results([model_row("[red]")]), width)  # no markup of rich


def test_colour_says_who_is_faster() -> None:
    made = results([model_row(peer="torch"), model_row(peer="slow", ratio=interval(0.5)), model_row()])
    text = results_text(made, 200, colour=True)
    assert "\x1b[32m" in text
    assert "\x1b[31m" in text
    assert "\x1b" not in results_text(made, 200)


def test_what_is_missing_leaves_out_its_part() -> None:
    empty = results_text(results(), 100)
    assert "Models" not in empty
    assert "Kernels" not in empty
    assert "noise: not measured" in empty
    assert "interrupted" not in empty
    assert "interrupted: rows are missing" in results_text(results(complete=False), 100)
    assert "All models" not in results_text(results([model_row()]), 100)
    absent = model_row(peer="torch", status="absent", reason="", latency=None, ratio=None)
    assert "torch       absent\n" in results_text(results([absent]), 100)
    nothing = kernel_row(baseline="", status="failed", reason="no such op", latency=None)
    assert "against nothing, cpu, 1 thread" in results_text(results((), [nothing]), 100)


def test_what_there_is_to_say_about_a_good_row_is_said() -> None:
    text = results_text(results([model_row(reason="plain loop: not installed")]), 100)
    assert "fusible     ok: plain loop: not installed\n" in text


def test_off_a_terminal_lines_are_as_long_as_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "because " * 60
    row = model_row(peer="torch", status="failed", reason=reason, latency=None, ratio=None)
    print_results(results([model_row(), row]))
    assert reason.strip() in capsys.readouterr().out


def test_a_comparison_names_the_worst_first(capsys: pytest.CaptureFixture[str]) -> None:
    old = results(
        [
            model_row(),
            model_row(peer="onnxruntime", ratio=interval(1.2)),
            model_row(peer="torch", ratio=interval(1.2)),
            model_row(peer="openvino", ratio=interval(1.2)),
            model_row("gone"),
            model_row("broken"),
        ]
    )
    new = results(
        [
            model_row(),
            model_row(peer="onnxruntime", ratio=interval(1.0)),
            model_row(peer="torch", ratio=interval(1.5)),
            model_row(peer="openvino", ratio=interval(1.2)),
            model_row("new"),
            model_row("broken", status="failed", reason=HOSTILE, latency=None),
        ]
    )
    changes = compare(old, new)
    text = changes_text(changes, 100)
    titles = [line for line in text.splitlines() if line.endswith(")") and line[0].isalpha() and "(" in line]
    assert [title.split(" (")[0] for title in titles] == ["slower", "broken", "faster", "vanished", "new"]
    for said in ("1.20", "1.18–1.22", "0.80", "failed:", "<script>", "3 comparisons, 1 within noise"):
        assert said in text, said
    assert "\x1b" not in text
    assert "\x1b[1;31m" in changes_text(changes, 100, colour=True)
    print_changes(changes)
    assert "3 comparisons, 1 within noise\n" in capsys.readouterr().out


def test_a_comparison_of_nothing_says_so() -> None:
    assert changes_text((), 100) == "no row could be compared\n"
    only_new = compare(results(), replace(results(), models=(model_row(),)))
    assert changes_text(only_new, 100).endswith("no row could be compared\n")
