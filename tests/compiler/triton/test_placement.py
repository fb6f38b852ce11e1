"""Strict placement, and artifacts for one GPU that are loaded on another."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

import fusible
from fusible.compiler.backends.triton.device_code import build_for
from fusible.runtime.devices.program import images_for
from tests.runtime import models


def test_a_gpu_refuses_what_the_host_would_compute() -> None:
    with pytest.raises(fusible.LoweringError) as caught:
        fusible.compile(models.nonzero_chain(), target="cuda:sm_90")
    text = str(caught.value)
    assert "the host would compute non_zero at 'nonzero' (" in text and "allow_host=True" in text
    assert "dims" not in text  # an extent as a number moves nothing


def test_options_allow_it(tmp_path: Path) -> None:
    exe = fusible.compile(
        models.nonzero_chain(), target="cuda:sm_90", options=fusible.Options(allow_host=True, cache_dir=tmp_path)
    )
    assert [row["op"] for row in exe.report.host] == ["non_zero", "dims"]
    with pytest.raises(fusible.LoweringError, match="a model that runs on triton-cpu alone"):
        fusible.compile(models.nonzero_chain(), target="triton-cpu", options=fusible.Options(allow_host=False))


def test_kernels_are_built_anew_for_another_gpu(tmp_path: Path) -> None:
    add = models.make(
        [helper.make_node("Add", ["x", "x"], ["y"], name="add")], [models.value("x", models.FLOAT, [64])], ["y"]
    )
    fusible.compile(add, target="cuda:sm_80").save(tmp_path / "m.fusible")
    loaded = fusible.load(tmp_path / "m.fusible").device
    assert loaded is not None
    assert images_for(loaded.code, "A10", 86, tmp_path) == loaded.code.images["cuda:sm_80"]
    (image,) = images_for(loaded.code, "H100", 90, tmp_path).values()
    assert image.data.startswith(b"\x7fELF") and image != next(iter(loaded.code.images["cuda:sm_80"].values()))
    with pytest.raises(fusible.DeviceError, match="kernels cannot be built for cuda:sm_70: known are cuda:sm_100"):
        build_for(loaded.code, "cuda:sm_70", tmp_path)
