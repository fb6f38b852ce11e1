"""`auto` is a GPU where one can be used, cpu where a C compiler works, else numpy, and the report says so."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import fusible
from fusible.compiler import targets
from fusible.compiler.targets import TARGETS, check_target, resolve_target
from fusible.runtime.devices.cuda import Gpu
from tests.runtime import models
from tests.runtime.native.conftest import script

ROOT = Path(__file__).parents[2]
UNKNOWN = {
    "gpu": "",
    "cuda": "",
    "cuda:sm_75": ": kernels need a GPU of compute capability 8.0 or newer",
    "h100": ": name its architecture, cuda:sm_90",
}


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file by which NVIDIA's driver is known, which is not there."""
    monkeypatch.setattr(targets, "_DRIVER", tmp_path / "nvidiactl")
    return tmp_path / "nvidiactl"


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


@pytest.mark.parametrize(
    ("capability", "chosen"), [(80, "cuda:sm_80"), (86, "cuda:sm_80"), (89, "cuda:sm_89"), (90, "cuda:sm_90")]
)
def test_a_gpu_that_can_be_used_is_taken(
    driver: Path, monkeypatch: pytest.MonkeyPatch, capability: int, chosen: str
) -> None:
    driver.touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(targets, "find_gpu", lambda: Gpu(0, "Some GPU", capability))
    assert resolve_target("auto") == (chosen, "")


def test_a_gpu_that_is_not_used_is_told(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.touch()
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("torch", "triton") else found(name))
    chosen, note = resolve_target("auto")
    assert chosen == "cpu" and "torch and triton must be installed" in note and "fusible[gpu]" in note
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(targets, "find_gpu", lambda: Gpu(0, "Old GPU", 75))
    assert resolve_target("auto") == ("cpu", "auto: kernels cannot be built for the Old GPU (compute capability 7.5)")

    def broken() -> Gpu:
        raise fusible.DeviceError("no GPU can be used: its driver is too old")

    monkeypatch.setattr(targets, "find_gpu", broken)
    assert resolve_target("auto") == ("cpu", "auto: there is a GPU, but no GPU can be used: its driver is too old")


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


def test_targets_that_are_no_text() -> None:
    with pytest.raises(fusible.UsageError, match="unknown target None; this release has auto"):
        fusible.compile(models.cache_step(), target=None)  # type: ignore[arg-type]
    with pytest.raises(fusible.UsageError, match=r"a tuple of targets, got .triton-cpu.: write \(.triton-cpu.,\)"):
        fusible.Options(also="triton-cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["triton-cpu", "cuda:sm_90", "hip:gfx942"])
def test_without_triton_its_targets_are_an_error_before_anything_is_done(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_target(target)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(fusible.DeviceError, match=rf"the target {target} .*pip install 'fusible\[gpu\]'"):
        fusible.compile(b"no model", target=target)
