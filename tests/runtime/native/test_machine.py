"""Facts about machines, read from made-up system files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fusible.runtime.native.machine import cgroup_cpus, cpu, instruction_sets, memory_limit, usable_threads


def write(root: Path, files: dict[str, str]) -> None:
    """Write files, given by name and text."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")


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
    write(tmp_path, files)
    assert cgroup_cpus(tmp_path, tmp_path / "none") == expected
    assert 1 <= usable_threads(tmp_path, tmp_path / "none") <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a/b/cpu.max": "150000 100000"}, 1.5),
        ({"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2.0),
        ({"a/cpu.max": "100000 100000", "a/b/cpu.max": "300000 100000", "cpu.max": "max 100000"}, 1.0),
        ({"other/cpu.max": "100000 100000"}, None),
        ({"cpu/c/cpu.cfs_quota_us": "250000", "cpu/c/cpu.cfs_period_us": "100000"}, 2.5),
    ],
)
def test_the_quota_of_the_process_and_of_all_above_it(
    tmp_path: Path, files: dict[str, str], expected: float | None
) -> None:
    write(tmp_path, {f"mount/{name}": text for name, text in files.items()})
    membership = tmp_path / "membership"
    membership.write_text("4:memory:/other\n1:cpu,cpuacct:/c\n0::/a/b\n")
    assert cgroup_cpus(tmp_path / "mount", membership) == expected


def test_a_quota_below_one_leaves_one_thread(tmp_path: Path) -> None:
    write(tmp_path, {"cpu.max": "10000 100000"})
    assert usable_threads(tmp_path, tmp_path / "none") == 1


def test_memory_is_the_smaller_of_machine_and_cgroup(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    assert memory_limit(meminfo, tmp_path) is None
    meminfo.write_text("MemTotal:        2048 kB\nMemFree: 1 kB\n")
    assert memory_limit(meminfo, tmp_path) == 2048 * 1024
    write(tmp_path, {"memory.max": "max"})
    assert memory_limit(meminfo, tmp_path) == 2048 * 1024
    write(tmp_path, {"memory.max": "1000"})
    assert memory_limit(meminfo, tmp_path) == 1000


def test_processor(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    assert cpu(cpuinfo) == {"name": "unknown", "features": []}
    cpuinfo.write_text("model name\t: Some: CPU\nflags\t\t: fpu avx2 fma avx512f\n")
    assert cpu(cpuinfo) == {"name": "Some: CPU", "features": ["avx2", "fma", "avx512f"]}
    cpuinfo.write_text("CPU part\t: 0xd40\nFeatures\t: asimd sve\n")
    assert cpu(cpuinfo) == {"name": "0xd40", "features": ["asimd", "sve"]}


def test_of_many_processors_the_first_is_read_where_it_says_all(tmp_path: Path) -> None:
    block = "processor\t: {}\nmodel name\t: P\nflags\t\t: fma avx " + "x " * 900 + "\n\n"
    (tmp_path / "x86").write_text("".join(block.format(n) for n in range(64)))
    assert instruction_sets(tmp_path / "x86").split()[1:] == ["P", "avx", "fma", "x"]
    arm = "processor\t: 0\nFeatures\t: asimd fp\nCPU part\t: 0xd0c\n\n"
    (tmp_path / "arm").write_text(arm * 40 + "Model\t: Board\n")
    assert instruction_sets(tmp_path / "arm").split()[1:] == ["Board", "asimd", "fp"]


def test_instruction_sets_tell_processors_apart_that_one_build_may_not_serve(tmp_path: Path) -> None:
    texts = ["model name: A\nflags: avx2 gfni", "model name: A\nflags: avx2", "model name: B\nflags: avx2"]
    lines = set()
    for number, text in enumerate(texts):
        write(tmp_path, {str(number): text})
        lines.add(instruction_sets(tmp_path / str(number)))
    assert len(lines) == 3
    write(tmp_path, {"other order": "model name: A\nflags: gfni avx2"})
    assert instruction_sets(tmp_path / "other order") in lines
