"""Recurrent layers as Triton kernels: a sample in checking mode; all of them: tests.compiler.triton.templates."""

from __future__ import annotations

import numpy as np
import pytest

import fusible
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.aot import build as built
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.printer import PrintedKernel
from tests.compiler.cpu.test_recurrent_layers import inputs, layer
from tests.compiler.triton.recurrent_layers import LAYERS, Layer
from tests.tolerance import assert_outputs_close

SAMPLE = ("lstm_with_everything", "rnn_symbolic")


@pytest.mark.parametrize("name", SAMPLE)
def test_a_layer_computes_what_its_op_means(name: str) -> None:
    Layer(**LAYERS[name]).check()


def test_arguments_are_the_operands_that_are_there_then_results_then_sizes() -> None:
    rule = Layer(**LAYERS["rnn_symbolic"]).printed().rule
    assert [a.name for a in rule.arguments] == ["x0", "x1", "x2", "x3", "x4", "y0", "y1", "steps", "rows"]
    assert rule.programs({"steps": 3, "rows": 33}) == 2 * 3


PLANTED = (("backward=direction == 1", "backward=direction == 0"),)


@pytest.mark.parametrize(("old", "new"), PLANTED)
def test_wrong_kernels_are_noticed(old: str, new: str) -> None:
    layer = Layer(**LAYERS["lstm_with_everything"])
    kernel = layer.printed()
    assert old in kernel.source
    with pytest.raises(AssertionError, match=r"exceeds|NaN out of place"):
        layer.check(PrintedKernel(kernel.source.replace(old, new), kernel.rule))


def test_operands_that_the_kernel_does_not_take_are_refused() -> None:
    with pytest.raises(NotPrintable, match="it has an operand of f64"):
        Layer("lstm", dtype=np.float64).printed()


def test_a_layer_builds_without_spills() -> None:
    found = built(Layer("gru", "bias lengths h").printed(), gpu_target("h100"))
    assert found.report.spilled == 0


def test_a_layer_of_a_model_is_a_kernel() -> None:
    model = layer("GRU", direction="bidirectional", lengths=True, rows="n")
    given = {**inputs(), "lengths": np.asarray([9, 0, 4], np.int32)}
    exe = fusible.compile(model, target="triton-cpu")
    assert exe.report.host == ()
    assert_outputs_close(exe.run(given), fusible.compile(model, target="numpy").run(given))
