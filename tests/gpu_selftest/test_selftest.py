"""The self-test on the device triton-cpu: its rows, what it says where there is no GPU, errors that it must find."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

import fusible
from fusible.gpu_selftest import __main__ as program
from fusible.gpu_selftest import sessions
from fusible.gpu_selftest.kernels import KERNELS, _error
from fusible.gpu_selftest.layer import layer_rows
from fusible.gpu_selftest.models import CASES, doubled
from fusible.gpu_selftest.rows import Result
from fusible.runtime.devices.device import Memory
from fusible.runtime.devices.triton_cpu import CpuStream
from fusible.runtime.executable import Executable

COMPILE = partial(program._compiled, "triton-cpu")


def test_every_function_of_the_layer() -> None:
    rows = list(layer_rows(COMPILE))
    assert {row.result for row in rows} == {Result.OK}, rows
    assert len(rows) == 13 and rows[-1].section == "speed" and "us in a graph of" in rows[-1].detail


def test_a_layer_that_copies_to_the_wrong_place_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = CpuStream.copy

    def wrong(self: CpuStream, target: Memory, at: int, source: Memory, start: int, nbytes: int) -> None:
        right(self, target, max(0, at - 1), source, start, nbytes)

    monkeypatch.setattr(CpuStream, "copy", wrong)
    failed = [row.what for row in layer_rows(COMPILE) if row.result is Result.FAILED]
    assert failed == ["copies within the device, filling"]


def test_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "CASES", CASES[:1])
    monkeypatch.setattr(sessions, "_TOLERANCE", {"fp32": 1e-4})
    rows = list(sessions.session_rows(COMPILE, partial(program._compiled, "numpy")))
    whats = ["x * sigmoid(x) + b, fp32", "threads", "sums that programs share, the same bits"]
    assert [row.what for row in rows] == [*whats, "a cache that grows, by buckets", "arrays stay on the device"]
    assert {row.result for row in rows} == {Result.OK}, rows


def test_wrong_numbers_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "CASES", CASES[:1])
    monkeypatch.setattr(sessions, "_TOLERANCE", {"fp32": 1e-4})
    scaled = onnx.ModelProto()
    scaled.CopyFrom(CASES[0].model)
    (bias,) = scaled.graph.initializer
    bias.raw_data = (1.05 * np.frombuffer(bias.raw_data, np.float32)).astype(np.float32).tobytes()

    def another(model: onnx.ModelProto, precision: str = "fp32", shapes: object = None) -> Executable:
        return COMPILE(scaled if model is CASES[0].model else model, precision, shapes)

    first, *_ = sessions.session_rows(another, partial(program._compiled, "numpy"))
    assert first.result is Result.FAILED and first.detail.startswith("CheckFailed: error ")


def test_models_of_every_case_run() -> None:
    for case in CASES:
        for run in range(len(case.runs)):
            assert fusible.compile(case.model, target="numpy").run(case.inputs(run))


def test_no_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert program.main([]) == 1
    out = capsys.readouterr().out
    assert "need torch: pip install 'fusible[gpu]'" in out and "--device triton-cpu" in out


def test_the_exit_status_counts_failures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def rows(target: str, quick: bool, models: tuple[str, ...]) -> list[object]:
        return list(layer_rows(lambda model: fusible.compile(doubled(1000), target="numpy")))

    monkeypatch.setattr(program, "_rows", lambda *given: program._guarded("layer", lambda: rows(*given)))
    assert program.main(["--device", "triton-cpu"]) == 1
    assert "CheckFailed: the model y = x + x has no kernel on this device" in capsys.readouterr().out


@pytest.mark.parametrize("number", [7, 12, 17])
def test_kernels_and_torch_compute_the_same(number: int) -> None:
    torch = pytest.importorskip("torch")
    kernel = KERNELS[number]()
    executable = fusible.compile(kernel.model, target="cpu")
    given = np.random.default_rng(0)
    inputs = {s.name: given.standard_normal(tuple(map(int, s.shape or ())), np.float32) for s in executable.inputs}
    inputs = {name: array.astype(np.float16) for name, array in inputs.items()}
    known = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in kernel.model.graph.initializer}
    tensors = [torch.tensor(a) for a in (*inputs.values(), *(known[name] for name in kernel.constants))]
    theirs = kernel.torch_function(torch, torch.nn.functional, *tensors).float().numpy()
    assert _error(executable.run(inputs)["y"], theirs) < 1e-2
    assert _error(executable.run(inputs)["y"] * np.float16(1.1), theirs) > 2e-2
