"""Facts about this machine: processor, memory, threads, C compiler, GPUs. Each function names the files it reads."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

__all__ = ["c_compiler", "cgroup_cpus", "cpu", "gpus", "memory_limit", "usable_threads"]

# What kernels choose by; the names are those of /proc/cpuinfo (x86 `flags`, Arm `Features`).
FEATURES = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
    "avx512_fp16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
SECONDS = 10
UNLIMITED = 1 << 60


def cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, object]:
    """Return the processor's name and those of its features that kernels could use."""
    facts = dict(_lines(cpuinfo))
    found = set(facts.get("flags", facts.get("Features", "")).split())
    name = facts.get("model name") or facts.get("Model") or facts.get("CPU part") or "unknown"
    return {"name": name, "features": [feature for feature in FEATURES if feature in found]}


def usable_threads(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many threads may run at once: the affinity mask, less if the cgroup's quota allows less."""
    allowed = len(os.sched_getaffinity(0))
    quota = cgroup_cpus(cgroup)
    return allowed if quota is None else max(1, min(allowed, int(quota + 0.5)))


def cgroup_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the processors that the cgroup's quota amounts to (version 2, else 1), None if it has none."""
    quota, _, period = _text(cgroup / "cpu.max").partition(" ")
    if not period:
        quota, period = _text(cgroup / "cpu/cpu.cfs_quota_us"), _text(cgroup / "cpu/cpu.cfs_period_us")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None  # "max", -1 or no such file
    return int(quota) / int(period)


def memory_limit(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
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


def c_compiler(environment: Mapping[str, str] = os.environ) -> dict[str, str] | None:
    """Return command and version of the first of `$CC`, cc, gcc, clang that is there and answers; None if none does."""
    for name in (environment.get("CC", ""), "cc", "gcc", "clang"):
        command = name.split()
        path = shutil.which(command[0], path=environment.get("PATH")) if command else None
        if path is not None:
            answer = _answer([path, *command[1:], "--version"])
            if answer is not None:
                return {"command": name, "path": path, "version": answer.split("\n")[0]}
    return None


def gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the NVIDIA and AMD GPUs that their drivers' own tools list."""
    found: list[str] = []
    for command in (["nvidia-smi", "-L"], ["rocm-smi", "--showproductname", "--csv"]):
        path = shutil.which(command[0], path=environment.get("PATH"))
        answer = _answer([path, *command[1:]]) if path is not None else None
        found += [] if answer is None else [line for line in answer.split("\n") if line.strip()]
    return found


def _answer(command: list[str]) -> str | None:
    """Return what a command prints, None if it fails, hangs or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _lines(path: Path) -> list[tuple[str, str]]:
    """Return the `name: value` lines of a file."""
    pairs = (line.partition(":") for line in _text(path).split("\n"))
    return [(name.strip(), value.strip()) for name, colon, value in pairs if colon]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""  # not every system has each of these files
