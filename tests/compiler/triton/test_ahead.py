"""Models built ahead of time for GPUs: images in the executable and its artifact, and what runs where there is none."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import fusible
from fusible.compiler.backends.triton.backend import TritonBackend
from fusible.compiler.backends.triton.device_code import build_for, device_kernel, gpu_code
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.print_kernel import print_kernel
from fusible.gpu_selftest.models import matmul
from fusible.passes.exactness import Exactness
from fusible.runtime.devices.code import DeviceCode
from tests.compiler.triton.contractions import Model
from tests.compiler.triton.test_target import FLOAT, rows
from tests.runtime import models

TARGETS = {"cuda:sm_90": b"\x7fELF", "hip:gfx942": b"\x7fELF"}


@pytest.mark.parametrize("target", TARGETS)
def test_a_model_is_built_for_a_gpu_that_is_not_here(target: str, tmp_path: Path) -> None:
    model = models.make([helper.make_node("Softmax", ["x"], ["y"])], [models.value("x", FLOAT, [3, 24])], ["y"])
    exe = fusible.compile(model, target=target)
    assert exe.target == target and exe.device is not None
    image = exe.device.code.images[target]["k000_softmax"]
    assert image.symbol == "kernel" and image.data.startswith(TARGETS[target]) and image.threads % 32 == 0
    exe.save(tmp_path / "model.fusible")
    loaded = fusible.load(tmp_path / "model.fusible")
    assert loaded.device is not None and loaded.device.code == exe.device.code
    for each in (exe, loaded):
        with pytest.raises(fusible.DeviceError):
            each.run(rows(3))


def test_constants_of_some_size_are_known_to_kernels_whose_launches_overlap() -> None:
    model = matmul(16, 128, 96)  # 24 KiB of weights in fp16
    options = fusible.Options(precision="fp16")
    for target, fixed in (("cuda:sm_90", [{"x1": 24576}]), ("cuda:sm_80", [{}]), ("triton-cpu", [{}])):
        device = fusible.compile(model, target=target, options=options).device
        assert device is not None and [dict(kernel.fixed) for kernel in device.code.kernels] == fixed


@pytest.mark.parametrize(
    ("options", "serial"),
    [
        (fusible.Options(precision="fp16"), False),
        (fusible.Options(precision="tf32"), False),
        (fusible.Options(), False),
        (fusible.Options(exactness=Exactness.EXACT), True),
    ],
    ids=["fp16", "tf32", "fp32", "exact"],
)
def test_products_without_matrix_units_are_launched_one_after_the_other(options: fusible.Options, serial: bool) -> None:
    device = fusible.compile(matmul(64, 128, 96), target="cuda:sm_90", options=options).device
    assert device is not None
    (image,), (kernel,) = device.code.images["cuda:sm_90"].values(), device.code.kernels
    assert (image.overlaps, kernel.serial) == (not serial, serial)


def test_other_gpus_get_code_of_the_same_sources(tmp_path: Path) -> None:
    model = models.make([helper.make_node("Abs", ["x"], ["y"])], [models.value("x", FLOAT, [3, 24])], ["y"])
    exe = fusible.compile(model, target="triton-cpu", options=fusible.Options(cache_dir=tmp_path))
    assert exe.device is not None
    (kernel,) = exe.device.code.kernels
    code = replace(exe.device.code, kernels=(replace(kernel, name="k001_by_torch", source=""), kernel))
    for target in ("cuda:sm_86", "cuda:sm_100"):
        found = build_for(code, target, tmp_path)
        (image,) = found.images[target].values()
        assert found.kernels == code.kernels
        assert image.data.startswith(b"\x7fELF")
    with pytest.raises(fusible.DeviceError, match="cannot be built for cuda:sm_70: known are cuda:sm_100"):
        build_for(exe.device.code, "cuda:sm_70", tmp_path)
    assert np.array_equal(exe.run(rows(3))["y"], np.abs(rows(3)["x"]))


def test_a_gpu_with_less_shared_memory_gets_fewer_stages(tmp_path: Path) -> None:
    m = Model(np.float16)
    made = m.case(m("matmul", m.x(1024, 256), m.w(256, 4096)))
    kernel = device_kernel("k", print_kernel(made.region, gpu_target("h100"), made.constants))
    found = build_for(DeviceCode((kernel,)), "hip:gfx942", tmp_path)
    assert kernel.stages == 4 and found.kernels == (kernel,)
    assert found.images["hip:gfx942"]["k"].shared <= gpu_target("mi300x").shared_per_block


def test_an_operand_of_two_places_has_blocks_of_each_in_shared_memory() -> None:
    """Rows rolled by 25 before a product, as windows of attention are: both parts of a block are on their way."""
    nodes = [
        helper.make_node("Slice", ["x", "cut", "end"], ["last"]),
        helper.make_node("Slice", ["x", "zero", "cut"], ["first"]),
        helper.make_node("Concat", ["last", "first"], ["rolled"], axis=0),
        helper.make_node("MatMul", ["rolled", "w"], ["y"]),
    ]
    starts = {name: np.array([value], np.int64) for name, value in (("zero", 0), ("cut", 25), ("end", 784))}
    weights = np.random.default_rng(0).standard_normal((192, 576)).astype(np.float32)
    model = models.make(nodes, [models.value("x", FLOAT, [784, 192])], ["y"], {**starts, "w": weights})
    exe = fusible.compile(model, target="cuda:sm_80", options=fusible.Options(precision="tf32"))
    assert exe.device is not None and exe.report.notes == ()
    (image,) = exe.device.code.images["cuda:sm_80"].values()
    assert 0 < image.shared <= gpu_target("cuda:sm_80").shared_per_block
    assert re.search(r"v3 = tl.where\(", exe.device.code.kernels[0].source)


def test_a_kernel_that_finds_no_room_gets_fewer_stages_and_a_note(tmp_path: Path) -> None:
    m = Model(np.float16)
    made = m.case(m("matmul", m.x(1024, 256), m.w(256, 4096)))
    kernel = device_kernel("k", print_kernel(made.region, gpu_target("h100"), made.constants))
    gpu = gpu_target("h100")
    small = replace(gpu, sm=replace(gpu.sm, block_shared=100_000))
    with pytest.raises(fusible.KernelBuildError, match="bytes of shared memory, of which a H100 SXM5 has 100000"):
        gpu_code([kernel], small, tmp_path)
    code = gpu_code([kernel], small, tmp_path, fit={"k"})
    (fitted,), image = code.kernels, code.images["cuda:sm_90"]["k"]
    assert 0 < image.shared <= 100_000 and fitted.stages < kernel.stages
    backend = TritonBackend("cuda:sm_90", small)
    backend.kernels["k"] = kernel
    assert backend.by_model() == {"k"}
    backend.fitted(code.kernels)
    (note,) = backend.notes()
    assert note.startswith(f"k has {fitted.stages} stages for {kernel.stages}, to fit into the 100000 bytes")
