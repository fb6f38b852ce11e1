"""Commands with targets whose kernels are Triton: compile, run, verify, explain; what belongs to compiling alone."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Command


def test_on_the_cpu(command: Command, model: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "model.fusible"
    facts = command("compile", model, "-o", artifact, "--target", "triton-cpu", "--json").json
    assert facts["target"] == "triton-cpu" and facts["report"]["host"] == []
    assert {row["language"] for row in facts["report"]["kernels"]} == {"triton"}
    assert command("run", artifact, "--json").json["outputs"][0]["shape"][0] == 1
    assert command("run", artifact, "--precision", "fp16").code == 2
    kernel = facts["report"]["kernels"][0]["kernel"]
    text = command("explain", artifact, "--kernel", kernel).out
    assert "@triton.jit" in text and "def kernel(" in text
    assert "Triton kernels, 0 calls of NumPy)" in command("explain", artifact).out


def test_verified_in_half_precision(command: Command, model: Path) -> None:
    facts = command("verify", model, "--target", "triton-cpu", "--precision", "fp16", "--json").json
    assert facts["agrees"] and facts["outputs"][0]["max_error"] > 1e-5
    refused = command("verify", model, "--target", "numpy", "--precision", "fp16")
    assert refused.code == 2 and "for targets with Triton kernels" in refused.err
    assert command("verify", model, "--precision", "fp8").code == 2


def test_ahead_of_time(command: Command, model: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "model.fusible"
    assert command("compile", model, "-o", artifact, "--target", "hip:gfx942").code == 0
    done = command("run", artifact)
    assert done.code == 1 and done.err.startswith("fusible: DeviceError: ")
    unknown = command("compile", model, "-o", artifact, "--target", "cuda:sm_70")
    assert unknown.code == 2 and "compute capability 8.0" in unknown.err
