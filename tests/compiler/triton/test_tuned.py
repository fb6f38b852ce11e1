"""Lockfiles decide how kernels are built: keys, the same bytes, what does not fit; tuning on triton-cpu."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import onnx
import pytest
from onnx import TensorProto, helper

import fusible
from fusible.compiler.backends.triton import device_code, tune_kernels
from fusible.compiler.backends.triton.device_code import device_kernel
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.print_kernel import print_kernel
from fusible.compiler.backends.triton.trial import Trial
from fusible.compiler.backends.triton.tuned import kernel_key
from fusible.compiler.backends.triton.workbench import workbench
from fusible.compiler.ir.symbols import Symbol
from fusible.compiler.region.parse import parse_region
from fusible.compiler.tune import tune
from fusible.compiler.tuning import Choice, Source, TuningLock
from fusible.errors import DeviceError, KernelBuildError, UsageError
from fusible.runtime.devices.code import DeviceKernel
from fusible.runtime.native.cache import default_cache_dir
from tests.cli.conftest import Command, command
from tests.runtime import models

__all__ = ["command"]

H100 = gpu_target("h100")
REGION = """region [i0=n, i1=128]
  in x0: f32[n, 128]
  out y0: f32[n, 128]
  v0: f32 = load x0[i0, i1]
  v1: f32 = {op}(v0, v0)
  store y0[i0, i1] = v1"""


GOLDEN = "cuda:sm_90 region ieee 2015e7304561cf2856e8be0d"


def small(name: str = "n", width: int = 40) -> onnx.ModelProto:
    """y = x + x."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"], name="double")]
    return models.make(nodes, [models.value("x", TensorProto.FLOAT, [name, width])], ["y"])


def compiled(model: onnx.ModelProto, lock: Path | None = None, target: str = "triton-cpu") -> fusible.Executable:
    return fusible.compile(model, target, options=fusible.Options(tuning=lock))


def row(exe: fusible.Executable) -> dict[str, Any]:
    (found,) = exe.report.kernels
    return dict(found)


def locked(path: Path, exe: fusible.Executable, **config: int | str) -> Path:
    """A lockfile with one entry: that of an executable's kernel, with other numbers."""
    facts = row(exe)
    lock = TuningLock({facts["key"]: Choice({**facts["configuration"], **config}, Source.MEASURED, 1e-6, 3)})
    lock.write(path)
    return path


def key(text: str, constants: tuple[int, ...] = (), precision: str = "ieee", target: str = "cuda:sm_90") -> str:
    symbols = {name: Symbol(name, 1, None) for name in ("n", "rows")} | {"m": Symbol("m", 1, 64)}
    return kernel_key("region", parse_region(text, symbols), constants, precision, target)


# Keys


def test_a_key_is_the_same_everywhere() -> None:
    assert key(REGION.format(op="add")) == GOLDEN
    assert key(REGION.format(op="add").replace("=n", "=rows").replace("[n", "[rows")) == GOLDEN


def test_a_key_says_what_decides() -> None:
    text = REGION.format(op="add")
    others = [
        key(text, (0,)),
        key(text, precision="tf32"),
        key(text, target="cuda:sm_80"),
        key(REGION.format(op="mul")),
    ]
    others += [key(text.replace("f32", "f16")), key(text.replace("128", "64"))]
    others += [key(text.replace("=n", "=m").replace("[n", "[m"))]  # it has an upper bound
    assert len({GOLDEN, *others}) == 8


# Compiling with a lockfile


def test_the_lockfile_decides(tmp_path: Path) -> None:
    static = compiled(small())
    facts = row(static)
    assert facts["chosen"] == "static" and facts["configuration"]["form"] == "points"
    lock = locked(tmp_path / "lock.json", static, rows=1024, warps=8)
    tuned = [compiled(small(name), lock) for name in ("n", "other")]  # symbols have other names, keys do not
    for exe in tuned:
        assert row(exe)["chosen"] == "measured" and row(exe)["configuration"]["rows"] == 1024
        (kernel,) = exe.device.code.kernels if exe.device else ()
        assert kernel.constants == {"ROWS": 1024} and kernel.warps == 8
    assert row(compiled(small(width=41), lock))["chosen"] == "static"  # a key that the lockfile lacks


def test_the_same_lockfile_gives_the_same_bytes(tmp_path: Path) -> None:
    lock = locked(tmp_path / "lock.json", compiled(small()), rows=64)
    texts = []
    for name in ("one", "two"):
        compiled(small(), lock).save(tmp_path / name)
        texts.append((tmp_path / name).read_bytes())
    compiled(small()).save(tmp_path / "three")
    assert texts[0] == texts[1] != (tmp_path / "three").read_bytes()


def test_what_cannot_be_is_an_error_that_says_where(tmp_path: Path) -> None:
    exe = compiled(small())
    for config, told in (({"rows": 48}, "rows is 48, no power of two"), ({"form": "looped"}, "is for looped")):
        lock = locked(tmp_path / "lock.json", exe, **config)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=f"lock.json' has a configuration for 'double' that cannot be: .*{told}"):
            compiled(small(), lock)
    with pytest.raises(UsageError, match=r"there is no tuning lockfile .*; `fusible tune` writes one"):
        compiled(small(), tmp_path / "none.json")
    with pytest.raises(UsageError, match="is for targets with Triton kernels, and cpu is none"):
        compiled(small(), lock, "cpu")


def test_what_triton_refuses_names_the_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = locked(tmp_path / "lock.json", compiled(small()), rows=256)

    def refuse(kernels: Sequence[DeviceKernel], *_: object, **__: object) -> NoReturn:
        raise KernelBuildError(kernels[0].source, ["triton"], "too large")

    monkeypatch.setattr(device_code, "host_code", refuse)
    with pytest.raises(UsageError, match=r"for the kernel k000_add that cannot be: (?s:.*)too large"):
        compiled(small(), lock)
    with pytest.raises(KernelBuildError):
        compiled(small())


# Tuning


def test_tuning_on_triton_cpu(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_kernels, "_BUILT", 3)
    model, lock = tmp_path / "model.onnx", tmp_path / "lock.json"
    onnx.save(small(), model)
    words = ("tune", model, "--target", "triton-cpu", "-o", lock, "--shape", "n=50", "--json", "--also", "cuda:sm_80")
    found = command(*words).json
    (kernel,) = found["kernels"]
    assert kernel["launches"] == 1 and kernel["timed"] == 3 and kernel["rejected"] == [] and kernel["why"] == ""
    assert 0 < kernel["chosen_us"] <= kernel["static_us"] and found["device"] == "triton-cpu"
    ((entry, facts),) = json.loads(lock.read_text())["entries"].items()
    assert entry == kernel["key"] and facts["config"] == kernel["chosen"] and facts["device"] == "triton-cpu"
    again = command(*words).json
    assert again["known"] == 1 and again["kernels"] == []  # measured already
    refused = command(*words[:-1], "cpu")
    assert refused.code and "must be targets with Triton kernels" in refused.err
    artifact = ("compile", model, "-o", tmp_path / "out", "--target", "triton-cpu", "--shape", "n=50")
    assert "1 measured" in command(*artifact, "--tuning", lock).out
    assert "1 static" in command(*artifact).out
    assert "symbols" not in command("tune", model, "--target", "triton-cpu", "-o", lock, "--shape", "n=50").out


def test_without_time_nothing_is_chosen(tmp_path: Path) -> None:
    report = tune(small(), "triton-cpu", tmp_path / "lock.json", budget=1e-9)
    (outcome,) = report.outcomes
    assert outcome.choice is None and outcome.why == "the time was over" and report.unbounded == ("n",)
    assert TuningLock.read(tmp_path / "lock.json").entries == {}


def test_another_result_is_rejected() -> None:
    """Planted: the candidate multiplies where the static choice adds."""
    regions = [parse_region(REGION.format(op=op), {"n": Symbol("n", 7, 7)}) for op in ("add", "mul")]
    kernels = [print_kernel(region, H100) for region in regions]
    with workbench("triton-cpu", H100, default_cache_dir(os.environ)) as bench:
        right, wrong = (bench.build(device_kernel("candidate", kernel)).result() for kernel in kernels)
        trial = Trial(regions[0], kernels[0], right, 1 << 16, "ieee")
        assert isinstance(trial.seconds(right, kernels[0], None), float)
        told = trial.seconds(wrong, kernels[1], None)
        assert isinstance(told, str) and "its result y0 differs from the static choice's" in told
        broken = replace(device_kernel("candidate", kernels[0]), source="def kernel(:")
        with pytest.raises(KernelBuildError):
            bench.build(broken).result()
        assert bench.build(device_kernel("candidate", kernels[0])).result()  # the others go on


def test_devices_that_are_not_here(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no Triton kernels to tune for the target 'cpu'"):
        tune(small(), "cpu", tmp_path / "lock.json")
    with pytest.raises(DeviceError, match="cannot be timed: this release runs cuda and triton-cpu"):
        tune(small(), "hip:gfx942", tmp_path / "lock.json")
