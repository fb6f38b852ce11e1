"""How many programs of a kernel are resident on a multiprocessor at once, and what limits them.

The rules are those of NVIDIA's occupancy calculation (`cuda_occupancy.h`; CUDA C++ Best Practices Guide, "Calculating
Occupancy"): registers are given to warps in units, each warp's in one partition of the register file; shared memory to
blocks in units, with what the driver reserves for each. For AMD the same rules hold with wavefronts and SIMDs.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusible.compiler.backends.triton.gpu_targets import Multiprocessor

__all__ = ["Occupancy", "occupancy"]


@dataclass(frozen=True, slots=True)
class Occupancy:
    """blocks: programs resident on a multiprocessor; 0 if one alone does not fit. warps: of all of them.

    share: of the most warps that a multiprocessor holds. limits: what lets no further block in, out of "threads",
    "blocks", "registers" and "shared memory".
    """

    blocks: int
    warps: int
    share: float
    limits: tuple[str, ...]


def occupancy(sm: Multiprocessor, threads: int, registers: int, shared: int) -> Occupancy:
    """The occupancy of blocks of so many threads, each with so many registers, and with so many bytes shared by all."""
    warps = -(-threads // sm.warp)
    blocks = {
        "threads": 0 if threads > sm.block_threads else sm.threads // sm.warp // warps,
        "blocks": sm.blocks,
        "registers": _by_registers(sm, warps, registers),
        "shared memory": _by_shared(sm, shared),
    }
    resident = min(blocks.values())
    limits = tuple(name for name, count in blocks.items() if count == resident)
    return Occupancy(resident, resident * warps, resident * warps * sm.warp / sm.threads, limits)


def _by_registers(sm: Multiprocessor, warps: int, registers: int) -> int:
    """Blocks for which the register file has room. A block is taken to spread over all partitions evenly."""
    if registers > sm.thread_registers:
        return 0
    of_warp = _up(max(registers, 1) * sm.warp, sm.register_unit)
    if of_warp * _up(warps, sm.partitions) > sm.registers:
        return 0
    return sm.registers // sm.partitions // of_warp * sm.partitions // warps


def _by_shared(sm: Multiprocessor, shared: int) -> int:
    if shared > sm.block_shared:
        return 0
    taken = _up(shared + sm.reserved, sm.shared_unit)
    return sm.shared // taken if taken else sm.threads  # none is needed: any number of blocks


def _up(count: int, unit: int) -> int:
    return -(-count // unit) * unit
