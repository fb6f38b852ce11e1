"""Predicted latencies: what is predicted for a small model, and that what stands beside it names its source."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import ModelProto
from onnx.parser import parse_model

from fusible.benchmarks import predictions
from fusible.benchmarks.kernel_findings import findings
from fusible.benchmarks.predictions import Predicted, main, markdown, predicted, published, recorded
from fusible.benchmarks.public_gemm import errors, public_rows
from fusible.benchmarks.public_gemm import main as print_errors
from fusible.benchmarks.public_gemm import markdown as error_table
from fusible.benchmarks.zoo.catalog import names
from fusible.compiler.api import import_graph
from fusible.compiler.backends.triton.gpu_targets import GPUS, gpu_target
from fusible.compiler.options import Options
from fusible.compiler.pipeline import pipeline
from fusible.compiler.run_passes import run_passes
from fusible.errors import UsageError

MODEL = parse_model("""
    <ir_version: 10, opset_import: ["": 18]>
    model (float16[batch, 4096] x, float16[4096, 4096] w) => (float16[batch, 4096] y, int64[2, found] where)
    {
        product = MatMul(x, w)
        y = Relu(product)
        where = NonZero(y)
    }
""")


ATTENTION = parse_model("""
    <ir_version: 10, opset_import: ["": 18]>
    model (float16[batch, 12, 128, 64] q, float16[batch, 12, 64, 128] k, float16[batch, 12, 128, 64] v)
        => (float16[batch, 12, 128, 64] y)
    {
        scores = MatMul(q, k)
        weights = Softmax(scores)
        y = MatMul(weights, v)
    }
""")
RECURRENT = parse_model("""
    <ir_version: 10, opset_import: ["": 18]>
    model (float[50, batch, 64] x, float[1, 512, 64] w, float[1, 512, 128] r) => (float[50, 1, batch, 128] y)
    {
        y = LSTM<hidden_size = 128>(x, w, r)
    }
""")


def of(gpu: str, batch: int, model: ModelProto = MODEL) -> Predicted:
    options, target = Options(), gpu_target(gpu)
    graph = import_graph(model.SerializeToString(), shapes={"batch": batch}, options=options)
    run_passes(pipeline(target.target, plugins=False), graph, options, target.target)
    return predicted(graph, target, options, "small", batch)


def test_a_model_is_the_sum_of_its_launches() -> None:
    one, many = of("a100", 16), of("a100", 4096)
    assert (one.kernels, one.host, one.gpu, one.batch) == (1, 1, "A100 80GB SXM", 16)
    assert one.roofline_ms == pytest.approx(1e3 * 2 * (4096 * 4096 + 2 * 16 * 4096) / 2.039e12, rel=0.01)  # memory
    assert many.roofline_ms == pytest.approx(1e3 * 2 * 4096**3 / 312e12, rel=0.01)  # matrix units
    for row in (one, many):
        assert row.roofline_ms < row.graph_ms < row.launches_ms + 0.006
    assert 0.5 < many.roofline_ms / many.graph_ms < 0.8  # as Triton's tutorial: 220 of 312 TFLOPS


def test_a_faster_gpu_is_predicted_to_be_faster() -> None:
    assert of("h100", 4096).graph_ms < of("a100", 4096).graph_ms < of("l4", 4096).graph_ms


def test_attention_is_one_launch_bound_by_what_it_does() -> None:
    one, many = of("a100", 1, ATTENTION), of("a100", 256, ATTENTION)
    assert one.kernels == many.kernels == 1 and one.host == 0
    assert one.bound == "latency" and many.bound != "latency"
    assert many.roofline_ms == pytest.approx(1e3 * 256 * 12 * 4 * 128 * 64 * 2 / 2.039e12, rel=0.01)


def test_a_recurrent_layer_takes_its_steps_one_after_the_other() -> None:
    row = of("a100", 1, RECURRENT)
    assert row.kernels == 1 and row.graph_ms > 50 * 2e-3 > 10 * row.roofline_ms


def test_what_is_published_names_its_source() -> None:
    for row in published():
        assert row.source.startswith("https://") and row.date and row.ms > 0
        assert row.model in names() and row.gpu in GPUS and row.precision in ("fp16", "int8")
    for gemm in public_rows():
        assert gemm.source.startswith("https://") and gemm.date.startswith("20") and gemm.gpu in GPUS


def test_the_command_says_that_it_predicts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fixed(name: str, batch: int, gpus: object, options: object) -> list[Predicted]:
        if batch > 1:
            raise UsageError(f"{name} has a fixed batch; it cannot be {batch}")
        return [Predicted(name, "A100 40GB SXM", batch, "fp16", 57, 0, 0.5, 0.6, 0.06, "latency")]

    monkeypatch.setattr(predictions, "predictions", fixed)
    assert main(["resnet-50", "--gpu", "a100-40gb", "--csv", str(tmp_path / "rows.csv")]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("PREDICTED") and "AITemplate fp16 0.58" in shown and "has a fixed batch" in shown
    assert (tmp_path / "rows.csv").read_text().splitlines()[1].startswith("resnet-50,A100 40GB SXM,1,fp16,57,0,0.5")


def test_the_errors_are_printed_for_each_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_errors(["--rows"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("unseen") == 9 and shown.count("fitted") == 3 and "PREDICTED" in shown
    assert len(shown.splitlines()) == len(public_rows()) + 13


def test_the_document_has_the_tables_that_the_commands_make() -> None:
    text = (Path(__file__).parents[2] / "docs" / "gpu_predictions.md").read_text(encoding="utf-8")
    assert "\n".join(error_table(errors(public_rows()))) in text
    assert "\n".join(markdown(recorded(), published())) in text
    assert {row.batch for row in recorded()} == {1, 32} and {row.precision for row in recorded()} == {"fp16"}


def test_findings_are_listed_once_for_a_kernel() -> None:
    row = {"kernel": "k0", "findings": [{"kind": "spills", "what": "8 bytes of a thread", "reason": ""}]}
    (found,) = findings("small", {"target": "cuda:sm_90", "kernels": [row, row]}, "fp16")
    assert (found.kernel, found.kind, found.reason) == ("k0", "spills", "")


def test_what_lies_in_a_concatenation_needs_no_launch_for_it() -> None:
    joined = parse_model("""
        <ir_version: 10, opset_import: ["": 18]>
        model (float16[batch, 64] x, float16[64, 64] w, float16[64, 64] v, float16[128, 64] u) => (float16[batch, 64] y)
        {
            a = MatMul(x, w)
            b = MatMul(x, v)
            both = Concat<axis = 1>(a, b)
            y = MatMul(both, u)
        }
    """)
    assert of("h100", 8, joined).kernels == 3
