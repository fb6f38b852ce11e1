"""What a built kernel's code shows: registers, spills, shared memory, accesses by width, instructions of matrix units.

Read off text that the build gives anyway: PTX and what `cuobjdump --dump-resource-usage` says of the cubin, or AMD's
assembly. PTX stands for the machine code here: `ptxas` turns each access of global memory and each matrix instruction
into one of its own (LDG, STG, LDGSTS, HMMA, HGMMA...), though it may repeat them when it unrolls; counts are of places
in the code, not of executions. Disassembling takes a second a kernel, which a model with a hundred has no time for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from fusible.errors import KernelBuildError

__all__ = ["StaticReport", "cuda_report", "hip_report"]

_Key = TypeVar("_Key", int, str)
_PTX_ACCESS = re.compile(r"\b(ld|st)\.global(?:\.[A-Za-z][\w:]*)*?(?:\.v(\d))?\.[bufs](\d+)\b")
_PTX_COPY = re.compile(
    r"\bcp\.async\.c[ag]\.shared(?:::\w+)?\.global\S*\s+\[[^\]]*\],\s*\[[^\]]*\],\s*(0x[\da-fA-F]+|\d+)"
)
_PTX_BULK = re.compile(r"\bcp\.(?:reduce\.)?async\.bulk(?:\.tensor)?\S*?\.(shared|global)(?:::\w+)?\.(?:shared|global)")
_PTX_ATOMIC = re.compile(r"\b(?:atom|red)(?:\.\w+)*?\.global\b")
_PTX_MATRIX = re.compile(r"\b(wgmma)\.mma_async\b|\b(mma)\.sync\b|\b(tcgen05)\.mma\b")
_PTX_SPILLS = re.compile(r"(\d+) bytes spill (?:stores|loads)")
_SERIALISED = "wgmma.mma_async instructions are serialized"  # several of ptxas's advisories, C7510 to C7514, say so
_AMD_ACCESS = re.compile(r"\b(?:global|buffer|flat)_(load|store)_(?:lds_)?(dwordx(\d)|dword|u?short|[us]?byte|b(\d+))")
_AMD_ATOMIC = re.compile(r"\b(?:global|buffer|flat)_atomic_")
_AMD_MATRIX = re.compile(r"\bv_s?mfma(?:c)?_")
_RESOURCES = re.compile(r"\b(REG|STACK|LOCAL):(\d+)")


@dataclass(frozen=True, slots=True)
class StaticReport:
    """What a kernel's code shows. loads, stores: how many accesses of global memory have that many bits.

    registers: of a thread. spilled: bytes (cuda), registers (hip). shared: bytes of a program. matrix: instructions of
    matrix units by family: "mma" (sm_80 to 89 and 120), "wgmma" (sm_90), "tcgen05" (sm_100), "mfma". bulk_loads,
    bulk_stores: copies of whole tiles by the tensor memory accelerator, which have no width. atomics: of global memory.
    serialised: ptxas made each product of wgmma wait for the one before. threads: of a program; 0: as the launch rule
    says.
    """

    registers: int
    spilled: int
    shared: int
    loads: Mapping[int, int]
    stores: Mapping[int, int]
    matrix: Mapping[str, int] = field(default_factory=dict)
    bulk_loads: int = 0
    bulk_stores: int = 0
    atomics: int = 0
    serialised: bool = False
    threads: int = 0

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        found = asdict(self)
        found["loads"], found["stores"] = ({str(bits): n for bits, n in w.items()} for w in (self.loads, self.stores))
        return found

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> StaticReport:
        """What `to_json` gave."""
        loads, stores = ({int(bits): n for bits, n in data[name].items()} for name in ("loads", "stores"))
        return StaticReport(**{**data, "loads": loads, "stores": stores})


def cuda_report(ptx: str, usage: str, shared: int, log: str = "") -> StaticReport:
    """The report of a kernel for NVIDIA. usage: what `cuobjdump --dump-resource-usage` prints; log: what ptxas did.

    What a thread has in local memory was spilled there, unless ptxas says that it spilled nothing: then it is an array
    of the code's own. libdevice's sine, cosine and tangent have one of 28 bytes, used for |x| > 105615 only.
    """
    used = {name: int(number) for name, number in _RESOURCES.findall(usage)}
    if "REG" not in used:
        raise KernelBuildError(usage, ["cuobjdump"], "the resource usage names no registers; expected REG:NUMBER")
    counts = {"ld": Counter[int](), "st": Counter[int]()}
    for kind, lanes, bits in _PTX_ACCESS.findall(ptx):
        counts[kind][int(lanes or 1) * int(bits)] += 1
    for size in _PTX_COPY.findall(ptx):
        counts["ld"][8 * int(size, 0)] += 1
    bulk = Counter(_PTX_BULK.findall(ptx))
    matrix = Counter("".join(names) for names in _PTX_MATRIX.findall(ptx))
    spills = _PTX_SPILLS.findall(log)
    local = 0 if spills and not any(map(int, spills)) else used.get("STACK", 0) + used.get("LOCAL", 0)
    return StaticReport(
        used["REG"], local, shared, _sorted(counts["ld"]), _sorted(counts["st"]),
        _sorted(matrix), bulk["shared"], bulk["global"], len(_PTX_ATOMIC.findall(ptx)),
        _SERIALISED in log,
    )  # fmt: skip


def hip_report(assembly: str, shared: int) -> StaticReport:
    """The report of a kernel for AMD: everything stands in the assembly, registers and spills in its metadata.

    Scalar registers are spilled to lanes of vector registers, and only where a thread has memory of its own to memory.
    """
    counts = {"load": Counter[int](), "store": Counter[int]()}
    for kind, name, words, bits in _AMD_ACCESS.findall(assembly):
        width = 32 * int(words or 1) if name.startswith("dword") else int(bits or (16 if "short" in name else 8))
        counts[kind][width] += 1
    in_memory = _number(assembly, "private_segment_fixed_size") > 0
    spilled = _number(assembly, "vgpr_spill_count") + in_memory * _number(assembly, "sgpr_spill_count")
    matrix = len(_AMD_MATRIX.findall(assembly))
    return StaticReport(
        _number(assembly, "vgpr_count"), spilled, shared, _sorted(counts["load"]), _sorted(counts["store"]),
        {"mfma": matrix} if matrix else {}, atomics=len(_AMD_ATOMIC.findall(assembly)),
    )  # fmt: skip


def _number(assembly: str, name: str) -> int:
    found = re.search(rf"\.{name}:\s*(\d+)", assembly)
    if found is None:
        raise KernelBuildError(assembly, ["triton"], f"the assembly does not say its {name}; expected .{name}: NUMBER")
    return int(found[1])


def _sorted(counts: Counter[_Key]) -> dict[_Key, int]:
    return dict(sorted(counts.items()))
