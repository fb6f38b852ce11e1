"""What is known of GPUs: frozen figures that schedules, reports and predictions start from. No device is asked.

Peaks are the makers' figures at the boost clock, dense (without sparsity), accumulated in fp32 (int8: in int32). Where
each was checked stands beside it, with the sources' short names:

- [occ] NVIDIA's `cuda_occupancy.h` of CUDA 13, which Triton's wheel contains: limits of blocks, granularities, and the
  test of `occupancy.py` runs its functions. [cccl] NVIDIA/cccl, `cudax/.../arch_traits.cuh`: shared memory of a
  multiprocessor and of a block, what the driver reserves, warps, registers of a thread.
- [gk] glennklockwood.com/garden/processors/A100, H100, B200, which quote NVIDIA's whitepapers and data sheets.
- [hpc] archive-lib.hpctech.co.jp/gpuproduct/nvidia-h100.html, the data sheet's table. [hmc] hmc-tech.com/gpus.
- [dq] Output of NVIDIA's deviceQuery: L4 in bottlerocket-kernel-kit pull request 139, RTX 5090 in
  aikitoria/open-gpu-kernel-modules issue 1, A100 40 GB in PC2's wiki (upb-pc2.atlassian.net).
- [waredb] waredb.com/processor/nvidia-geforce-rtx-4090. [chips] chipsandcheese.com on B200 and on H100's L2.
- [rocm] rocm.docs.amd.com, "AMD GPU specifications". [llvm] LLVM's AMDGPUBaseInfo.cpp: registers and their granule.

What no public text was found for says "not checked" or "assumed".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fusible.errors import UsageError

__all__ = ["GPUS", "GpuTarget", "MatrixType", "Multiprocessor", "gpu_target"]

KIB, MIB = 1 << 10, 1 << 20
MEGA, GIGA, TERA = 10**6, 10**9, 10**12
_THREE = 3  # products of tf32 for one of f32


class MatrixType(Enum):
    """What the operands of a matrix unit are; sums are in fp32, of INT8 in int32. TF32X3: f32, as three products."""

    FP16 = "fp16"
    BF16 = "bf16"
    TF32 = "tf32"
    TF32X3 = "tf32x3"
    FP8 = "fp8"
    INT8 = "int8"


@dataclass(frozen=True, slots=True)
class Multiprocessor:
    """Limits of one multiprocessor (compute unit) of an architecture.

    shared, block_shared: bytes of shared memory, and the most that one block may have of it. reserved: bytes that each
    block takes beside its own. shared_unit, register_unit: what allocations are rounded up to (bytes of a block;
    32-bit registers of a warp). partitions: parts that a warp's registers must lie in one of.
    """

    shared: int
    block_shared: int
    threads: int
    blocks: int
    registers: int = 65536
    thread_registers: int = 255
    reserved: int = KIB
    shared_unit: int = 128
    register_unit: int = 256
    partitions: int = 4
    warp: int = 32
    block_threads: int = 1024


@dataclass(frozen=True, slots=True)
class GpuTarget:
    """One GPU. `target` is what kernels are built for; several GPUs may share it.

    bandwidth: bytes a second of device memory; l2: bytes, l2_bandwidth: bytes a second. fp32: operations a second of
    the vector units; tf32, fp16, fp8, int8: of the matrix units (bf16 as fp16; fp8 is None where there are none).
    clock: the boost clock that the matrix peaks are stated for, in Hz.
    """

    name: str
    target: str
    multiprocessors: int
    sm: Multiprocessor
    clock: int
    bandwidth: int
    l2: int
    l2_bandwidth: int
    fp32: int
    tf32: int
    fp16: int
    fp8: int | None
    int8: int

    @property
    def backend(self) -> str:
        """`cuda` or `hip`."""
        return self.target.partition(":")[0]

    @property
    def architecture(self) -> int | str:
        """What Triton calls the architecture: 90 for sm_90, `gfx942` as it is."""
        name = self.target.partition(":")[2]
        return int(name.removeprefix("sm_")) if self.backend == "cuda" else name

    @property
    def shared_per_sm(self) -> int:
        """Bytes of shared memory of a multiprocessor."""
        return self.sm.shared

    @property
    def shared_per_block(self) -> int:
        """Bytes of shared memory that one program may have."""
        return self.sm.block_shared

    @property
    def registers(self) -> int:
        """Registers of 32 bits of a multiprocessor."""
        return self.sm.registers

    @property
    def threads_per_sm(self) -> int:
        """Threads that are resident on a multiprocessor at most."""
        return self.sm.threads

    @property
    def warp(self) -> int:
        """Threads of a warp (wavefront)."""
        return self.sm.warp

    @property
    def splits_f32(self) -> bool:
        """True if three products of tf32 take less time than one by the vector units: not on GPUs for workstations.

        AMD's matrix units of gfx942 multiply f32 themselves.
        """
        return self.backend == "cuda" and self.tf32 > _THREE * self.fp32

    def matrix_peak(self, kind: MatrixType) -> int | None:
        """Operations a second of the matrix units on such operands; None if they do not take them."""
        match kind:
            case MatrixType.TF32:
                return self.tf32
            case MatrixType.TF32X3:
                return self.tf32 // _THREE
            case MatrixType.FP8:
                return self.fp8
            case MatrixType.INT8:
                return self.int8
        return self.fp16


# shared, block, warps [cccl] (8.0, 9.0); blocks, units [occ]. 12.0 [dq], 8.9 bourbonut/lbm-gpu issue 1: 100 KiB, 1536.
_SM_80 = Multiprocessor(164 * KIB, 163 * KIB, threads=2048, blocks=32)
_SM_89 = Multiprocessor(100 * KIB, 99 * KIB, threads=1536, blocks=24)
_SM_90 = Multiprocessor(228 * KIB, 227 * KIB, threads=2048, blocks=32)
_SM_100 = Multiprocessor(228 * KIB, 227 * KIB, threads=2048, blocks=32)  # [chips]: shared memory as in H100
_SM_120 = Multiprocessor(100 * KIB, 99 * KIB, threads=1536, blocks=24)
# LDS and the file of vector registers [rocm]; 512 registers a lane in units of 8, 8 waves for each of 4 SIMDs [llvm].
# 16 groups of several waves, and LDS in units of 512 bytes: not checked (from LLVM's sources, remembered).
_GFX942 = Multiprocessor(
    64 * KIB, 64 * KIB, threads=2048, blocks=16, registers=131072, thread_registers=512, reserved=0, shared_unit=512,
    register_unit=512, warp=64,
)  # fmt: skip

GPUS: dict[str, GpuTarget] = {
    # [gk] [dq]: all but the clock of 1410 MHz, which is [dq]'s. L2: 2.3 times V100's, 5120 bytes a clock (NVIDIA's
    # "Ampere Architecture In-Depth"). No matrix unit takes fp8.
    "a100": GpuTarget(
        "A100 80GB SXM", "cuda:sm_80", 108, _SM_80, 1410 * MEGA, 2039 * GIGA, 40 * MIB, 7219 * GIGA,
        fp32=19_500 * GIGA, tf32=156 * TERA, fp16=312 * TERA, fp8=None, int8=624 * TERA,
    ),
    # The board that TensorRT's and AITemplate's published figures are of: the A100 with slower memory [gk] [dq].
    "a100-40gb": GpuTarget(
        "A100 40GB SXM", "cuda:sm_80", 108, _SM_80, 1410 * MEGA, 1555 * GIGA, 40 * MIB, 7219 * GIGA,
        fp32=19_500 * GIGA, tf32=156 * TERA, fp16=312 * TERA, fp8=None, int8=624 * TERA,
    ),
    # 58 multiprocessors, clock [dq] (tables that say 60 show the whole AD104). Matrix peaks: the data sheet's, with
    # sparsity, halved (121 = 242 / 2, 242.5 = 485 / 2). L2 bandwidth: assumed, 64 bytes a clock and multiprocessor.
    "l4": GpuTarget(
        "L4", "cuda:sm_89", 58, _SM_89, 2040 * MEGA, 300 * GIGA, 48 * MIB, 7573 * GIGA,
        fp32=30_300 * GIGA, tf32=60 * TERA, fp16=121 * TERA, fp8=242_500 * GIGA, int8=242_500 * GIGA,
    ),
    # [waredb]. L2 bandwidth: assumed, as for L4.
    "rtx4090": GpuTarget(
        "GeForce RTX 4090", "cuda:sm_89", 128, _SM_89, 2520 * MEGA, 1008 * GIGA, 72 * MIB, 20_644 * GIGA,
        fp32=82_600 * GIGA, tf32=82_600 * GIGA, fp16=165_200 * GIGA, fp8=330_300 * GIGA, int8=660_600 * GIGA,
    ),
    # [gk] [hpc]; 1.83 GHz is the clock of the matrix peaks, fp32's is 1.98. L2 bandwidth: not published; assumed that
    # a clock brings as much as in A100 ([chips] measured 5.5 to 6 TB/s on the slower PCIe board).
    "h100": GpuTarget(
        "H100 SXM5", "cuda:sm_90", 132, _SM_90, 1830 * MEGA, 3352 * GIGA, 50 * MIB, 9370 * GIGA,
        fp32=66_900 * GIGA, tf32=494_700 * GIGA, fp16=989_400 * GIGA, fp8=1_978_900 * GIGA, int8=1_978_900 * GIGA,
    ),
    # The multiprocessors of the H100 with HBM3e ([gk]; bandwidth: tritonbench issue 78 quotes the data sheet).
    "h200": GpuTarget(
        "H200 SXM", "cuda:sm_90", 132, _SM_90, 1830 * MEGA, 4800 * GIGA, 50 * MIB, 9370 * GIGA,
        fp32=66_900 * GIGA, tf32=494_700 * GIGA, fp16=989_400 * GIGA, fp8=1_978_900 * GIGA, int8=1_978_900 * GIGA,
    ),
    # [gk] (the HGX board at 1000 W) and [hmc]: 148 multiprocessors, clock of the matrix units, fp32, 7.7 TB/s (NVIDIA's
    # pages round to 8). L2 [chips]. L2 bandwidth: assumed, twice H100's, for there are two dies.
    "b200": GpuTarget(
        "B200", "cuda:sm_100", 148, _SM_100, 1860 * MEGA, 7700 * GIGA, 126 * MIB, 18_740 * GIGA,
        fp32=75 * TERA, tf32=1_125 * TERA, fp16=2_250 * TERA, fp8=4_500 * TERA, int8=4_500 * TERA,
    ),
    # Multiprocessors, L2 [dq]; clock, fp32 and the peak of fp8 with fp16 sums, sparse, of which a quarter is that of
    # fp16 with fp32 sums: pocketmags.com, "Nvidia GeForce RTX 5090" (Linux Format 5/2025); 209.5 also in
    # gau-nernst/learn-cuda. int8: not checked. L2 bandwidth: assumed, as for L4.
    "rtx5090": GpuTarget(
        "GeForce RTX 5090", "cuda:sm_120", 170, _SM_120, 2407 * MEGA, 1792 * GIGA, 96 * MIB, 26_188 * GIGA,
        fp32=104_800 * GIGA, tf32=104_800 * GIGA, fp16=209_500 * GIGA, fp8=419 * TERA, int8=838 * TERA,
    ),
    # Compute units, L2 (4 MiB for each of eight dies), bandwidth, fp8: [rocm], awesomeagents.ai/hardware/amd-mi300x.
    # fp16 and tf32 are a half and a quarter of fp8; fp32: 2 issues of 64 lanes a clock. L2 bandwidth: assumed, 128
    # bytes a clock for each of 16 channels of a die.
    "mi300x": GpuTarget(
        "MI300X", "hip:gfx942", 304, _GFX942, 2100 * MEGA, 5300 * GIGA, 32 * MIB, 34_400 * GIGA,
        fp32=163_400 * GIGA, tf32=653_700 * GIGA, fp16=1_307_400 * GIGA, fp8=2_614_900 * GIGA, int8=2_614_900 * GIGA,
    ),
}  # fmt: skip
"""By short name. The first of those that share a target stands for it."""


def gpu_target(name: str) -> GpuTarget:
    """The GPU of a short name (`h200`), or the one that stands for a target (`cuda:sm_90`). Raises UsageError."""
    if name in GPUS:
        return GPUS[name]
    for gpu in GPUS.values():
        if gpu.target == name:
            return gpu
    targets = ", ".join(dict.fromkeys(gpu.target for gpu in GPUS.values()))
    raise UsageError(f"unknown GPU {name!r}; known are the targets {targets} and the GPUs {', '.join(GPUS)}")
