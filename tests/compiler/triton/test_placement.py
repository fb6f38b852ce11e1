"""Strict placement, and artifacts for one GPU that are loaded on another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import fusible
from fusible.compiler.backends.triton.device_code import build_for, gpu_code
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.runtime.devices.program import images_for
from tests.runtime import models


def _doubled() -> onnx.ModelProto:
    return models.make(
        [helper.make_node("Add", ["x", "x"], ["y"], name="add")], [models.value("x", models.FLOAT, [64])], ["y"]
    )


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
    fusible.compile(_doubled(), target="cuda:sm_80").save(tmp_path / "m.fusible")
    loaded = fusible.load(tmp_path / "m.fusible").device
    assert loaded is not None
    assert images_for(loaded.code, "A10", 86, tmp_path) == loaded.code.images["cuda:sm_80"]
    (image,) = images_for(loaded.code, "H100", 90, tmp_path).values()
    assert image.data.startswith(b"\x7fELF") and image != next(iter(loaded.code.images["cuda:sm_80"].values()))
    with pytest.raises(fusible.DeviceError, match="kernels cannot be built for cuda:sm_70: known are cuda:sm_100"):
        build_for(loaded.code, "cuda:sm_70", tmp_path)


def test_several_targets_in_one_artifact(tmp_path: Path) -> None:
    options = fusible.Options(also=("cuda:sm_80", "triton-cpu"))
    path, x = tmp_path / "m.fusible", np.arange(64, dtype=np.float32)
    fusible.compile(_doubled(), target="cuda:sm_90", options=options).save(path)
    loaded = fusible.load(path)
    assert loaded.target == "cuda:sm_90" and loaded.device is not None
    assert sorted(loaded.device.code.images) == ["cuda:sm_80", "cuda:sm_90"]
    assert np.array_equal(fusible.load(path, target="triton-cpu")(x)[0], 2 * x)
    assert fusible.load(path, target="cuda:sm_80").target == "cuda:sm_80"
    with pytest.raises(fusible.UsageError, match="compiled for cuda:sm_90, cuda:sm_80, triton-cpu, not for cpu"):
        fusible.load(path, target="cpu")
    for target, also in (("cpu", ("cuda:sm_80",)), ("cuda:sm_90", ("cpu",))):
        with pytest.raises(fusible.UsageError, match="must be targets with Triton kernels"):
            fusible.compile(_doubled(), target=target, options=fusible.Options(also=also))


def test_a_schedule_that_is_too_large_for_another_gpu(tmp_path: Path) -> None:
    kernel = next(iter(fusible.compile(_doubled(), target="cuda:sm_90").device.code.kernels))  # type: ignore[union-attr]
    gpu = gpu_target("cuda:sm_90")
    small = replace(gpu, sm=replace(gpu.sm, block_shared=-1))
    with pytest.raises(
        fusible.KernelBuildError, match="it needs 0 bytes of shared memory, of which a H100 SXM5 has -1"
    ):
        gpu_code([kernel], small, tmp_path)
