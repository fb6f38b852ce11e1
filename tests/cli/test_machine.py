"""Facts about machines, read from made-up system files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fusible.cli.machine import c_compiler, cgroup_cpus, cpu, gpus, memory_limit, usable_threads


def program(folder: Path, name: str, text: str, status: int = 0) -> None:
    """Write an executable that prints a text."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{text}'\nexit {status}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
    ],
)
def test_quota(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    assert cgroup_cpus(tmp_path) == expected
    assert 1 <= usable_threads(tmp_path) <= len(os.sched_getaffinity(0))


def test_a_quota_below_one_leaves_one_thread(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("10000 100000\n")
    assert usable_threads(tmp_path) == 1


def test_memory_is_the_smaller_of_machine_and_cgroup(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    assert memory_limit(meminfo, tmp_path) is None
    meminfo.write_text("MemTotal:        2048 kB\nMemFree: 1 kB\n")
    assert memory_limit(meminfo, tmp_path) == 2048 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_limit(meminfo, tmp_path) == 2048 * 1024
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory_limit(meminfo, tmp_path) == 1000


def test_processor(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    assert cpu(cpuinfo) == {"name": "unknown", "features": []}
    cpuinfo.write_text("model name\t: Some: CPU\nflags\t\t: fpu avx2 fma avx512f\n")
    assert cpu(cpuinfo) == {"name": "Some: CPU", "features": ["avx2", "fma", "avx512f"]}
    cpuinfo.write_text("CPU part\t: 0xd40\nFeatures\t: asimd sve\n")
    assert cpu(cpuinfo) == {"name": "0xd40", "features": ["asimd", "sve"]}


def test_c_compiler(tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path)}
    assert c_compiler(environment) is None
    program(tmp_path, "gcc", "gcc 12")
    assert c_compiler(environment) == {"command": "gcc", "path": str(tmp_path / "gcc"), "version": "gcc 12"}
    program(tmp_path, "mycc", "mine 1\nmore")
    found = c_compiler({**environment, "CC": "mycc -m64"})
    assert found == {"command": "mycc -m64", "path": str(tmp_path / "mycc"), "version": "mine 1"}
    program(tmp_path, "cc", "broken", status=1)
    assert c_compiler(environment) == {"command": "gcc", "path": str(tmp_path / "gcc"), "version": "gcc 12"}


def test_gpus(tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path)}
    assert gpus(environment) == []
    program(tmp_path, "nvidia-smi", "GPU 0: one\nGPU 1: two")
    assert gpus(environment) == ["GPU 0: one", "GPU 1: two"]
    program(tmp_path, "nvidia-smi", "no driver", status=9)
    assert gpus(environment) == []
