"""Where it is measured: the machine, the versions of what takes part, and how quiet the machine was."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Iterable, Sequence

import numpy as np

from fusible.benchmarks.records import Machine, Sentinel
from fusible.runtime.native.machine import cpu, memory_limit, usable_threads

__all__ = ["NoiseWatch", "this_machine", "versions_of"]

_SIZE, _REPEATS = 4096, 400


def this_machine() -> Machine:
    """The machine and system that this process runs on."""
    facts = cpu()
    features = facts["features"]
    assert isinstance(features, list)
    return Machine(
        processor=str(facts["name"]),
        cores=usable_threads(),
        features=tuple(features),
        memory=memory_limit() or 0,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The installed versions of packages; those that are not installed are left out."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # whoever needs it says so in its own row
    return found


class NoiseWatch:
    """Times a fixed piece of work (multiplications in the first-level cache) once a round.

    It does the same whatever is measured beside it, so when it takes longer the machine was busy with something else.
    """

    def __init__(self) -> None:
        self._values = np.linspace(0.5, 1.5, _SIZE, dtype=np.float32)
        self._result = np.empty_like(self._values)
        self._seconds: list[float] = []

    def sample(self) -> float:
        """Do the work once; returns its seconds."""
        started = time.perf_counter()
        for _ in range(_REPEATS):
            np.multiply(self._values, self._values, self._result)
        self._seconds.append(time.perf_counter() - started)
        return self._seconds[-1]

    def summary(self) -> Sentinel | None:
        """Seconds of the best round, and quantiles relative to it; None before the first round."""
        return summarise(self._seconds) if self._seconds else None


def summarise(seconds: Sequence[float]) -> Sentinel:
    """How rounds of the fixed work compare with the best of them."""
    best = min(seconds)
    p50, p80, worst = (float(q) / best for q in np.quantile(seconds, (0.5, 0.8, 1.0)))
    return Sentinel(best, p50, p80, worst, len(seconds))
