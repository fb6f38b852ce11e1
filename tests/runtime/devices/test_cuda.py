"""The CUDA layer over a stand-in for the driver and for torch: how it calls them. Whether they do it needs a GPU."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusible
from fusible.compiler.backends.triton.kernel import TILE_HEADER
from fusible.runtime.devices import cuda
from fusible.runtime.devices.code import DeviceImage, DeviceKernel, TensorBlock, TensorMap
from fusible.runtime.devices.cuda import CudaDevice, CudaStream, Gpu, find_gpu
from fusible.runtime.devices.cuda_driver import CudaDriver
from fusible.runtime.devices.device import Span
from fusible.runtime.devices.program import DeviceProgram, open_device_program
from fusible.runtime.devices.triton_cpu import TritonCpu
from fusible.runtime.native.cache import default_cache_dir
from fusible.runtime.native.compiler import find_compiler
from fusible.runtime.native.library import build_library
from tests.runtime.devices import plans
from tests.runtime.devices.build import device_code, program
from tests.runtime.devices.fake_torch import Tensor, fake_torch
from tests.runtime.devices.sized_kernels import sized_program
from tests.runtime.devices.test_session import numbers, session_of

STUB = Path(__file__).with_name("fake_cuda.c")


@pytest.fixture(scope="module")
def library() -> str:
    """The stand-in for libcuda.so.1."""
    sources = {"fake_cuda.c": STUB.read_text(), "tile.h": TILE_HEADER.read_text()}
    return str(build_library(sources, find_compiler(os.environ), cache_dir=default_cache_dir(os.environ)))


def images(scratch: tuple[int, int] = (0, 0), known: DeviceProgram | None = None) -> dict[str, DeviceImage]:
    """What the stand-in takes for cubins: the kernels lowered to C."""
    known = known or program(checked=False)
    device = known.device
    assert isinstance(device, TritonCpu)
    found = {}
    for kernel in known.code.kernels:
        address = ctypes.cast(getattr(device.library, kernel.name), ctypes.c_void_p).value
        types = "".join("p" if type_.startswith("*") else "i" for _, type_ in kernel.arguments)
        data = f"{address:x} {kernel.scratch_bytes} {types}\0".encode()
        found[kernel.name] = DeviceImage(kernel.entry, data, 128, 60_000, scratch)
    return found


@pytest.fixture
def gpu(library: str) -> CudaDevice:
    torch = fake_torch(ctypes.CDLL(library), limit=100_000)
    return CudaDevice(Gpu(0, "Fake GPU", 90), images(), torch, CudaDriver(library))


def on(gpu: CudaDevice) -> DeviceProgram:
    return DeviceProgram(device_code(checked=False), "cuda:sm_90", lambda: gpu)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("chain", (77,)),
        ("with_host_step", (77,)),
        ("with_views", (6, 35)),
        ("with_order", (5, 7)),
        ("late_sizes", (70,)),
        ("with_weights", (33, 20)),
        ("shared_sums", (9, 77)),
    ],
)
def test_plans_give_what_they_give_on_the_cpu(gpu: CudaDevice, name: str, shapes: tuple[int, ...]) -> None:
    made = getattr(plans, name)
    exe, x = made(on(gpu)), numbers(*shapes)
    wanted, *_ = made()(x)
    session = session_of(exe)
    for _ in range(4):  # launched, captured, replayed
        got = session.run({"x": x})["y"]
        assert np.allclose(got, wanted, rtol=1e-5, atol=1e-5)  # other flags of the C compiler
    assert session.captures and all(row["seconds"] >= 0 for row in session.profile({"x": x}))


def test_graphs_of_buckets_read_the_sizes_of_each_run(library: str) -> None:
    known = sized_program(checked=False)
    torch = fake_torch(ctypes.CDLL(library), limit=100_000)
    device = CudaDevice(Gpu(0, "Fake GPU", 90), images(known=known), torch, CudaDriver(library))
    made = DeviceProgram(known.code, "cuda:sm_90", lambda: device)
    session = session_of(plans.chain(made))
    for n in (64, 40, 33, 64, 50, 0, 1000, 999, 600):
        x = numbers(n, seed=n)
        assert np.array_equal(session.run({"x": x})["y"], 3 * x)
    assert [dict(c.bucket or {}) for c in session.captures] == [{"n": (33, 64)}, {"n": (513, 1000)}]
    session = session_of(plans.shared_sums(made))
    for r, c in ((9, 77), (16, 65), (10, 80), (9, 66)):
        x = numbers(r, c)
        assert np.allclose(session.run({"x": x})["y"], 2 * x.sum(1), atol=1e-4)
    assert len(session.captures) == 1


@pytest.mark.parametrize("overlaps", [True, False])
def test_kernels_that_wait_themselves_may_begin_before_others_end(library: str, overlaps: bool) -> None:
    stub = ctypes.CDLL(library)
    marked = {name: replace(image, overlaps=overlaps) for name, image in images().items()}
    device = CudaDevice(Gpu(0, "Fake GPU", 90), marked, fake_torch(stub, limit=100_000), CudaDriver(library))
    session, before = session_of(plans.chain(on(device))), (stub.fake_launches(), stub.fake_overlapping())
    session.run({"x": numbers(77)})
    launched, overlapping = stub.fake_launches() - before[0], stub.fake_overlapping() - before[1]
    assert launched > 0 and overlapping == (launched if overlaps else 0)


def test_tensors_are_described_for_each_launch(library: str) -> None:
    """What the stand-in gets of a map must fit the sizes and strides behind it, and the address in this launch."""
    stub = ctypes.CDLL(library)
    found = {}
    for kernel in device_code(checked=False).kernels:
        tensor = TensorBlock("d0", kernel.arguments[0][0], 0, (0, 3, 4), (12, 4, 1), (1, 2, 4))
        image = images()[kernel.name]
        data = image.data.replace(b"\0", b"t\0")
        found[kernel.name] = replace(image, data=data, maps=(TensorMap(tensor, (1, 2, 4), 7, 3, 4),))
    device = CudaDevice(Gpu(0, "Fake GPU", 90), found, fake_torch(stub, limit=100_000), CudaDriver(library))
    session, x = session_of(plans.chain(on(device))), numbers(77)
    for _ in range(3):
        assert np.array_equal(session.run({"x": x})["y"], 3 * x)
    odd = {n: replace(i, maps=(replace(i.maps[0], box=(1, 2, 512)),)) for n, i in found.items()}
    device = CudaDevice(Gpu(0, "Fake GPU", 90), odd, fake_torch(stub, limit=100_000), CudaDriver(library))
    with pytest.raises(fusible.DeviceError, match="refuses cuTensorMapEncodeTiled"):
        session_of(plans.chain(on(device))).run({"x": x})


def test_branches_state_and_poison(gpu: CudaDevice) -> None:
    inputs = {"x": numbers(50), "flag": np.asarray(True), "count": np.asarray(3)}
    got, wanted = plans.branches(on(gpu)).run(inputs), plans.branches().run(inputs)
    assert all(np.array_equal(got[name], wanted[name]) for name in wanted)
    session = session_of(plans.cache_step(on(gpu)))
    session._poison = True
    session.bind(inputs={"past": np.zeros(40, np.float32)}, state={"present": "past"})
    for k in range(1, 5):
        assert (session.run({"x": np.ones(40, np.float32)})["present"] == k).all()


def test_tensors_go_in_and_out_without_copies(gpu: CudaDevice) -> None:
    session, x = session_of(plans.chain(on(gpu))), numbers(96)
    given = Tensor(x, gpu.torch.float32).clone()
    result = session.run_on_device({"x": given})["y"]
    assert result.__dlpack_device__() == (2, 0)
    tensor = result.__dlpack__()
    assert str(tensor.dtype) == "torch.float32" and np.array_equal(tensor.array, 3 * x)
    assert tensor.data_ptr() == result.memory.address
    out = Tensor(np.zeros(96, np.float32), gpu.torch.float32).clone()
    session.bind(outputs={"y": out})
    for _ in range(3):
        assert session.run({"x": given})["y"] is out and np.array_equal(out.array, 3 * x)
    default = gpu.torch.cuda.current_stream(0)
    assert default.asked == 5 and default.waited == 3  # four runs and a binding; it was at work each second time
    unaligned = Tensor(x[1:33], gpu.torch.float32)
    assert np.array_equal(session_of(plans.chain(on(gpu))).run({"x": unaligned})["y"], 3 * x[1:33])


def test_threads_have_the_context_while_they_run(gpu: CudaDevice) -> None:
    exe, x = plans.with_host_step(on(gpu)), numbers(60)
    wrong: list[object] = []

    def work() -> None:
        try:
            for _ in range(5):
                if not np.array_equal(exe(x)[0], -6 * x):
                    wrong.append("numbers")
        except fusible.FusibleError as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_another_context_is_given_back(gpu: CudaDevice) -> None:
    gpu.driver.set_context(0x5500)
    try:
        with gpu.active():
            assert gpu.driver.current_context() == gpu.driver.primary_context(0)
        assert gpu.driver.current_context() == 0x5500
    finally:
        gpu.driver.set_context(0)


def test_streams_are_shared_only_one_after_the_other(gpu: CudaDevice) -> None:
    with gpu.active():
        streams = [gpu.stream() for _ in range(40)]  # torch's own pool has 32
        numbers_of = [s.number for s in streams if isinstance(s, CudaStream)]
        assert len(set(numbers_of)) == 40
        del streams
        gc.collect()
        again = gpu.stream()
        assert isinstance(again, CudaStream) and again.number in numbers_of


def test_errors(gpu: CudaDevice, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        fusible.ExecutionError, match=r"memory of cuda:0 \(Fake GPU\): asked for \d+ bytes and 100000 of"
    ):
        plans.with_weights(on(gpu))(numbers(10_000, 20))
    kernel = DeviceKernel("k", "k", "", (("x", "*fp32"), ("a", "fp32")))
    with gpu.active():
        stream = gpu.stream()
        with pytest.raises(fusible.DeviceError, match=r"cuModuleLoadData: CUDA_ERROR_NO_BINARY_FOR_GPU \(209\): what"):
            gpu.driver.function(b"no image", "k", 0)
        loaded = replace(gpu.load(device_code(checked=False).kernels[0]), kernel=kernel)
        with pytest.raises(fusible.ExecutionError, match="numbers of type fp32 cannot be passed"):
            stream.prepare(loaded, 1, [Span(64, 4, 4)], [1], "here")
        with pytest.raises(fusible.ExecutionError, match="here: 2147483648 programs, more than"):
            stream.prepare(loaded, 1 << 31, [], [], "here")
    with pytest.raises(fusible.DeviceError, match=r"driver cannot be loaded: .*; install NVIDIA's driver"):
        CudaDriver("libno-such-cuda.so.1")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(fusible.DeviceError, match="forked child"):
        plans.chain(on(gpu))(numbers(3))


def test_a_gpu_is_found_or_said_to_be_missing(monkeypatch: pytest.MonkeyPatch, library: str, tmp_path: Path) -> None:
    torch: Any = fake_torch(ctypes.CDLL(library), (8, 9))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(cuda, "CudaDriver", lambda: CudaDriver(library))
    assert find_gpu() == Gpu(0, "Fake GPU", 89)
    code = replace(device_code(checked=False), images={"cuda:sm_80": images()}, host=None)
    opened = open_device_program(code, "cuda:sm_80", cache_dir=tmp_path)
    assert np.array_equal(plans.chain(opened)(numbers(40))[0], 3 * numbers(40))
    torch.cuda.is_available = lambda: False
    with pytest.raises(fusible.DeviceError, match=r"torch 2.11 \(built for CUDA 12.8\) finds none; check that"):
        find_gpu()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(fusible.DeviceError, match="sessions on a GPU need torch: pip install"):
        find_gpu()
