"""Printed regions run by the interpreter in a child process, and what they must agree with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import fusible
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.printer import PrintedKernel, print_region
from fusible.compiler.backends.triton.schedule import Schedule, schedule
from fusible.compiler.ir.symbol_values import evaluate
from fusible.compiler.region.region import Region
from tests.tolerance import poisoned

__all__ = ["Job", "job", "run_jobs"]

ROOT = Path(fusible.__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Job:
    """A region by a schedule on arrays. `results` is filled by `run_jobs`."""

    name: str
    region: Region
    schedule: Schedule
    kernel: PrintedKernel
    inputs: Sequence[np.ndarray]
    env: dict[str, int]


def job(
    name: str,
    region: Region,
    inputs: Sequence[np.ndarray],
    env: dict[str, int] | None = None,
    chosen: Schedule | None = None,
) -> Job:
    """A job by a schedule, or by the one for an H100."""
    found = chosen or schedule(region, gpu_target("h100"))
    return Job(name, region, found, print_region(region, found), inputs, env or {})


def run_jobs(jobs: Sequence[Job], folder: Path) -> dict[str, list[np.ndarray] | str]:
    """What each job wrote into poisoned outputs, or the text of its failure."""
    for one in jobs:
        _write(one, folder)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.compiler.triton.interpreted", str(folder)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {one.name: _read(one, folder) for one in jobs}


def _write(one: Job, folder: Path) -> None:
    rule = one.kernel.rule
    (folder / f"{one.name}.py").write_text(one.kernel.source)
    launch = {
        "kernel": rule.kernel,
        "programs": rule.programs(one.env),
        "numbers": rule.numbers(one.env),
        "constants": dict(rule.constants),
    }
    (folder / f"{one.name}.json").write_text(json.dumps(launch))
    arrays = {f"x{n}": array for n, array in enumerate(one.inputs)}
    for n, buffer in enumerate(one.region.outputs):
        shape = tuple(int(evaluate(d, one.env)) for d in buffer.shape)
        arrays[f"y{n}"] = poisoned(shape, buffer.dtype.numpy)
    np.savez(folder / f"{one.name}.npz", **arrays)  # type: ignore[arg-type]


def _read(one: Job, folder: Path) -> list[np.ndarray] | str:
    failed = folder / f"{one.name}.failed"
    if failed.exists():
        return failed.read_text()
    with np.load(folder / f"{one.name}.out.npz") as found:
        return [found[f"y{n}"] for n in range(len(one.region.outputs))]
