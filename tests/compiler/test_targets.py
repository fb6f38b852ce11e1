"""`auto` is cpu where a C compiler works, else numpy, and the report says so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import fusible
from fusible.compiler.targets import TARGETS, check_target, resolve_target
from tests.runtime import models
from tests.runtime.native.conftest import script

ROOT = Path(__file__).parents[2]
UNKNOWN = {
    "gpu": "",
    "cuda": "",
    "cuda:sm_75": ": kernels need a GPU of compute capability 8.0 or newer",
    "h100": ": name its architecture, cuda:sm_90",
}


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide every C compiler, that of the ziglang wheel included."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def test_with_a_compiler_auto_is_cpu() -> None:
    assert resolve_target("auto") == ("cpu", "")
    exe = fusible.compile(models.conv_relu_add())
    assert exe.target == "cpu" and exe.report.notes == ()
    assert set(exe.sources) > {"kernels.py"}


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_auto_is_numpy_and_says_so() -> None:
    exe = fusible.compile(models.conv_relu_add())
    assert exe.target == "numpy" and set(exe.sources) == {"kernels.py"}
    (note,) = exe.report.notes
    assert note.startswith("auto: NumPy runs the model") and "no C compiler" in note and "fusible[cc]" in note
    x = np.ones((1, 3, 4, 5), np.float32)
    assert exe(x)[0].shape == (1, 5, 4, 5)


def test_a_compiler_that_cc_names_and_that_does_not_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", str(script(tmp_path / "broken", "exit 1")))
    (note,) = fusible.compile(models.cache_step()).report.notes
    assert "that CC names" in note
    with pytest.raises(fusible.DeviceError, match="that CC names"):
        fusible.compile(models.cache_step(), target="cpu")


@pytest.mark.usefixtures("no_compiler")
def test_cpu_without_a_compiler_is_an_error_before_anything_is_done() -> None:
    with pytest.raises(fusible.DeviceError, match=r"pip install 'fusible\[cc\]'"):
        fusible.compile(b"no model", target="cpu")
    with pytest.raises(fusible.DeviceError):
        check_target("cpu")
    check_target("numpy")
    assert fusible.pipeline("auto", plugins=False).names == fusible.pipeline("numpy", plugins=False).names


def test_the_extras_that_errors_name_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {n: [r.split(">")[0] for r in rs] for n, rs in project["optional-dependencies"].items()}
    assert extras["cc"] == ["ziglang"] and "triton" in extras["gpu"]


def test_unknown_targets() -> None:
    gpus = ("cuda:sm_80", "cuda:sm_89", "cuda:sm_90", "cuda:sm_100", "cuda:sm_120", "hip:gfx942")
    assert list(TARGETS) == ["auto", "numpy", "cpu", "triton-cpu", *gpus]
    for target, hint in UNKNOWN.items():
        expected = re.escape(f"unknown target {target!r}{hint}; this release has auto, numpy, cpu, triton-cpu, cuda:")
        with pytest.raises(fusible.UsageError, match=expected):
            fusible.compile(models.cache_step(), target=target)
        with pytest.raises(fusible.UsageError, match=expected):
            fusible.pipeline(target)


@pytest.mark.parametrize("target", ["triton-cpu", "cuda:sm_90", "hip:gfx942"])
def test_without_triton_its_targets_are_an_error_before_anything_is_done(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_target(target)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(fusible.DeviceError, match=rf"the target {target} .*pip install 'fusible\[gpu\]'"):
        fusible.compile(b"no model", target=target)
