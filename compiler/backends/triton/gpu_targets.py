"""What is known of GPUs: frozen figures that schedules and predictions start from. No device is asked.

Bandwidths and peaks are the makers' figures for boost clocks, without sparsity. Sources: NVIDIA A100 (2020), H100
(2022), Ada (2022) and Blackwell RTX (2025) architecture whitepapers, data sheets of L4, H200, HGX B200 and MI300X;
shared memory, registers and threads of a multiprocessor: CUDA C++ Programming Guide, table "Technical Specifications
per Compute Capability"; AMD CDNA 3 whitepaper (2023).
"""

from __future__ import annotations

from dataclasses import dataclass

from fusible.errors import UsageError

__all__ = ["GPUS", "GpuTarget", "gpu_target"]

KIB, MIB = 1 << 10, 1 << 20
GIGA, TERA = 10**9, 10**12


@dataclass(frozen=True, slots=True)
class GpuTarget:
    """One GPU. `target` is what kernels are built for; several GPUs may share it.

    bandwidth: bytes a second of device memory; fp32, tf32, fp16: operations a second (vector units, then matrix units
    that accumulate in fp32). shared_per_sm, shared_per_block, l2: bytes. registers: of 32 bits, of one multiprocessor.
    """

    name: str
    target: str
    multiprocessors: int
    bandwidth: int
    fp32: int
    tf32: int
    fp16: int
    shared_per_sm: int
    shared_per_block: int
    registers: int
    threads_per_sm: int
    l2: int
    warp: int = 32

    @property
    def backend(self) -> str:
        """`cuda` or `hip`."""
        return self.target.partition(":")[0]

    @property
    def architecture(self) -> int | str:
        """What Triton calls the architecture: 90 for sm_90, `gfx942` as it is."""
        name = self.target.partition(":")[2]
        return int(name.removeprefix("sm_")) if self.backend == "cuda" else name


GPUS: dict[str, GpuTarget] = {
    # A100 whitepaper: tables 4 and 5 (A100 SXM4); the 80 GB board's bandwidth from its data sheet.
    "a100": GpuTarget(
        "A100 80GB SXM", "cuda:sm_80", 108, 2039 * GIGA, 19_500 * GIGA, 156 * TERA, 312 * TERA,
        164 * KIB, 163 * KIB, 65536, 2048, 40 * MIB,
    ),
    # L4 data sheet (its matrix figures halved: they are with sparsity); Ada whitepaper, AD104.
    "l4": GpuTarget(
        "L4", "cuda:sm_89", 58, 300 * GIGA, 30_300 * GIGA, 60 * TERA, 121 * TERA,
        100 * KIB, 99 * KIB, 65536, 1536, 48 * MIB,
    ),
    # Ada whitepaper, appendix A, table 2 (GeForce RTX 4090); fp16 with fp32 accumulation.
    "rtx4090": GpuTarget(
        "GeForce RTX 4090", "cuda:sm_89", 128, 1008 * GIGA, 82_600 * GIGA, 82_600 * GIGA, 165_200 * GIGA,
        100 * KIB, 99 * KIB, 65536, 1536, 72 * MIB,
    ),
    # H100 whitepaper: table 3 (H100 SXM5).
    "h100": GpuTarget(
        "H100 SXM5", "cuda:sm_90", 132, 3352 * GIGA, 66_900 * GIGA, 494_700 * GIGA, 989_400 * GIGA,
        228 * KIB, 227 * KIB, 65536, 2048, 50 * MIB,
    ),
    # H200 data sheet: the multiprocessors of the H100 with HBM3e.
    "h200": GpuTarget(
        "H200 SXM", "cuda:sm_90", 132, 4800 * GIGA, 66_900 * GIGA, 494_700 * GIGA, 989_400 * GIGA,
        228 * KIB, 227 * KIB, 65536, 2048, 50 * MIB,
    ),
    # HGX B200 data sheet, an eighth of the board's figures (dense).
    "b200": GpuTarget(
        "B200", "cuda:sm_100", 148, 7700 * GIGA, 75 * TERA, 1_100 * TERA, 2_200 * TERA,
        228 * KIB, 227 * KIB, 65536, 2048, 126 * MIB,
    ),
    # Blackwell RTX whitepaper, appendix A (GeForce RTX 5090); fp16 with fp32 accumulation.
    "rtx5090": GpuTarget(
        "GeForce RTX 5090", "cuda:sm_120", 170, 1792 * GIGA, 104_800 * GIGA, 104_800 * GIGA, 209_500 * GIGA,
        100 * KIB, 99 * KIB, 65536, 1536, 96 * MIB,
    ),
    # MI300X data sheet; CDNA 3 whitepaper: 64 KiB of LDS and 512 KiB of vector registers a compute unit, 4 MiB of L2 a
    # die, of which there are eight.
    "mi300x": GpuTarget(
        "MI300X", "hip:gfx942", 304, 5300 * GIGA, 163_400 * GIGA, 653_700 * GIGA, 1_307_400 * GIGA,
        64 * KIB, 64 * KIB, 131072, 2048, 32 * MIB, 64,
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
