"""Facts about this machine: processor, threads, memory. Each function names the files it reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cgroup_cpus", "cpu", "instruction_sets", "memory_limit", "usable_threads"]

# What kernels choose by; the names are those of /proc/cpuinfo (x86 `flags`, Arm `Features`).
FEATURES = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
    "avx512_fp16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
UNLIMITED = 1 << 60
_BLOCK = 2048  # bytes; more than one processor's block, on x86
CPUINFO, CGROUP, MEMBERSHIP = Path("/proc/cpuinfo"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cpu(cpuinfo: Path = CPUINFO) -> dict[str, object]:
    """Return the processor's name and those of its features that kernels could use."""
    name, found = _processor(cpuinfo)
    return {"name": name, "features": [feature for feature in FEATURES if feature in found]}


def instruction_sets(cpuinfo: Path = CPUINFO) -> str:
    """Return the processor's name and all of its features as one line: code built for it may depend on each."""
    name, found = _processor(cpuinfo)
    return " ".join([os.uname().machine, name, *sorted(found)])


def usable_threads(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """Return how many threads may run at once: the affinity mask, less if the cgroup's quota allows less."""
    allowed = len(os.sched_getaffinity(0))
    quota = cgroup_cpus(cgroup, membership)
    return allowed if quota is None else max(1, min(allowed, int(quota + 0.5)))


def cgroup_cpus(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> float | None:
    """Return the processors that the quotas of this process's cgroup and of those above it amount to, None if none.

    cgroup: where version 2, or in folders version 1, is mounted; membership: the cgroups that the process is in.
    """
    quotas = []
    for folder in _cgroups(cgroup, membership):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if not period:
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period) > 0:  # not "max", -1 or no such file
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_limit(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = CGROUP) -> int | None:
    """Return the bytes of memory there are: the machine's, less if the cgroup allows less; None if unknown."""
    bounds = []
    total = dict(_lines(meminfo)).get("MemTotal", "").removesuffix(" kB")
    if total.isdigit():
        bounds.append(int(total) * 1024)
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _text(cgroup / name)
        if limit.isdigit() and int(limit) < UNLIMITED:
            bounds.append(int(limit))
    return min(bounds, default=None)


def _processor(cpuinfo: Path) -> tuple[str, set[str]]:
    text = f"\n{_first_processor(cpuinfo)}"
    name = next(filter(None, (_fact(text, n) for n in ("model name", "Model", "CPU part"))), "unknown")
    return name, set((_fact(text, "flags") or _fact(text, "Features")).split())


def _fact(text: str, name: str) -> str:
    """Return what the first line of this name states, "" if there is none. Loads look up two of some thirty lines."""
    at = -1
    while (at := text.find(f"\n{name}", at + 1)) >= 0:
        found, colon, value = text[at + 1 :].partition("\n")[0].partition(":")
        if colon and found.strip() == name:
            return value.strip()
    return ""


def _cgroups(root: Path, membership: Path) -> Iterator[Path]:
    """Yield the folders whose quotas bind: the process's own cgroup and all above it, as far as they are mounted.

    In a container the mount's root often is the process's cgroup already, whatever path `membership` states.
    """
    for line in _text(membership).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers in ("", "cpu", "cpu,cpuacct", "cpuacct,cpu"):
            own = (root if controllers == "" else root / "cpu") / path.strip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(root))
    yield from (root, root / "cpu")


def _first_processor(cpuinfo: Path) -> str:
    """Return what stands of the first processor if that has its name and features, as on x86; otherwise all there is.

    The system writes a block for each processor as it is read, and asks each for its frequency.
    """
    try:
        with open(cpuinfo, "rb", buffering=0) as file:
            text = b""
            while chunk := file.read(_BLOCK):
                text += chunk
                first, end, _ = text.partition(b"\n\n")
                if end and b"\nmodel name" in first and b"\nflags" in first:
                    return first.decode(errors="replace")
    except OSError:
        return ""  # not every system has it
    return text.decode(errors="replace")


def _lines(path: Path) -> list[tuple[str, str]]:
    """Return the `name: value` lines of a file."""
    return _pairs(_text(path))


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = (line.partition(":") for line in text.split("\n"))
    return [(name.strip(), value.strip()) for name, colon, value in pairs if colon]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""  # not every system has each of these files
