"""The figures of GPUs agree with each other, and occupancy with NVIDIA's own calculation of it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest

from fusible.compiler.backends.triton.gpu_targets import GPUS, GpuTarget, MatrixType, gpu_target
from fusible.compiler.backends.triton.occupancy import occupancy
from fusible.runtime.native.compiler import find_compiler

CUDA = [name for name, gpu in GPUS.items() if gpu.backend == "cuda"]
WRAPPER = """
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cuda_occupancy.h>
int blocks(int major, int minor, int warps, size_t sm_shared, size_t block_shared, int threads, int registers,
           size_t shared) {
    cudaOccDeviceProp device;
    cudaOccFuncAttributes kernel;
    cudaOccDeviceState state;
    cudaOccResult result;
    memset(&device, 0, sizeof device);
    memset(&kernel, 0, sizeof kernel);
    memset(&state, 0, sizeof state);
    device.computeMajor = major;
    device.computeMinor = minor;
    device.maxThreadsPerBlock = 1024;
    device.maxThreadsPerMultiprocessor = 32 * warps;
    device.regsPerBlock = device.regsPerMultiprocessor = 65536;
    device.warpSize = 32;
    device.sharedMemPerBlock = 49152;
    device.sharedMemPerMultiprocessor = sm_shared;
    device.numSms = 1;
    device.sharedMemPerBlockOptin = block_shared;
    device.reservedSharedMemPerBlock = 1024;
    kernel.maxThreadsPerBlock = 1024;
    kernel.numRegs = registers;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    kernel.maxDynamicSharedSizeBytes = shared;
    kernel.numBlockBarriers = 1;
    state.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, shared)) return -1;
    return result.activeBlocksPerMultiprocessor;
}
"""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """NVIDIA's header, which needs neither a device nor a driver, as a library."""
    folder = tmp_path_factory.mktemp("occupancy")
    (folder / "blocks.c").write_text(WRAPPER)
    spec = find_spec("triton")
    assert spec is not None and spec.origin is not None
    include = Path(spec.origin).parent / "backends" / "nvidia" / "include"
    out = folder / "blocks.so"
    compiler = find_compiler(os.environ)
    command = [*compiler.command, "-shared", "-fPIC", "-w", f"-I{include}", str(folder / "blocks.c"), "-o", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    library = ctypes.CDLL(str(out))
    library.blocks.argtypes = [ctypes.c_int] * 3 + [ctypes.c_size_t] * 2 + [ctypes.c_int] * 2 + [ctypes.c_size_t]
    return library


@pytest.mark.parametrize("name", CUDA)
def test_occupancy_is_nvidias(name: str, theirs: ctypes.CDLL) -> None:
    gpu = GPUS[name]
    assert isinstance(gpu.architecture, int)
    device = (*divmod(gpu.architecture, 10), gpu.sm.threads // 32, gpu.sm.shared, gpu.sm.block_shared)
    threads, registers = (32, 64, 96, 128, 256, 512, 1024), (1, 24, 32, 33, 40, 64, 80, 96, 128, 168, 255)
    shared = (0, 1, 1000, 1024, 4096, 16384, 49152, 66560, 98304, gpu.sm.block_shared)
    for block in product(threads, registers, shared):
        assert occupancy(gpu.sm, *block).blocks == theirs.blocks(*device, *block), block


def test_what_limits_is_named() -> None:
    sm = gpu_target("h100").sm
    assert occupancy(sm, 128, 24, 0).limits == ("threads",)
    assert occupancy(sm, 32, 16, 0).limits == ("blocks",)
    assert occupancy(sm, 256, 128, 0).limits == ("registers",)
    assert occupancy(sm, 128, 32, 100_000).limits == ("shared memory",)
    assert occupancy(sm, 128, 256, 0).blocks == occupancy(sm, 128, 32, 300_000).blocks == 0
    full = occupancy(sm, 128, 32, 0)
    assert (full.blocks, full.warps, full.share) == (16, 64, 1.0)


def test_wavefronts_take_registers_by_eight() -> None:
    """512 registers a lane and SIMD: 128 of them let four wavefronts in, one more only three."""
    sm = gpu_target("mi300x").sm
    assert [occupancy(sm, 256, n, 0).blocks for n in (64, 65, 128, 129, 512)] == [8, 7, 4, 3, 1]
    assert occupancy(sm, 256, 32, 33_000).limits == ("shared memory",)
    assert occupancy(sm, 64, 16, 0).limits == ("blocks",)


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_peaks_are_what_the_clock_gives(gpu: GpuTarget) -> None:
    """Operations of the matrix units in a clock of a multiprocessor are a power of two, so a wrong digit shows."""
    for kind in MatrixType:
        peak = gpu.matrix_peak(kind)
        if peak is None:
            assert kind is MatrixType.FP8 and gpu.target == "cuda:sm_80"
            continue
        instructions = 3 if kind is MatrixType.TF32X3 else 1  # of tf32, for each product
        per_clock = instructions * peak / gpu.clock / gpu.multiprocessors
        nearest = 1 << round(per_clock).bit_length() - 1
        nearest = min(nearest, 2 * nearest, key=lambda power: abs(power - per_clock))
        assert abs(per_clock / nearest - 1) < 0.03, (kind, per_clock)


def test_bf16_is_as_fast_as_fp16() -> None:
    assert gpu_target("h100").matrix_peak(MatrixType.BF16) == gpu_target("h100").matrix_peak(MatrixType.FP16)
    assert gpu_target("a100").target == gpu_target("a100-40gb").target
    assert gpu_target("cuda:sm_80") is GPUS["a100"]
