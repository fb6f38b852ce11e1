"""Clocks for kernels: the host's, and the events of a GPU, which tick where the work is done."""

from __future__ import annotations

import importlib
import random
import time
from collections.abc import Callable
from typing import Any, Protocol

from fusible.benchmarks.measure.interleave import iterations_for
from fusible.errors import DeviceError

__all__ = ["Clock", "CudaClock", "HostClock", "clock_for", "time_pair_with"]

Work = Callable[[], object]


class Clock(Protocol):
    """Measures single calls."""

    def time(self, work: Work, iterations: int) -> list[float]:
        """Seconds of each of so many calls, after one that does not count."""


class HostClock:
    """For kernels that are done when they return."""

    def time(self, work: Work, iterations: int) -> list[float]:
        """Seconds of each call by the host's clock."""
        work()
        seconds = []
        for _ in range(iterations):
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
        return seconds


class CudaClock:
    """For kernels on a GPU: the time between two events in the stream, the second-level cache flushed before each.

    The flush overwrites a buffer twice as large as the cache, so that every call finds its operands in memory, as it
    would in a model. Nothing waits between calls; the host waits for the GPU once, after the last.
    """

    def __init__(self, cuda: Any = None, *, flush: bool = True) -> None:
        """cuda: the module `torch.cuda` or what stands for it. Raises DeviceError where there is no GPU."""
        self._cuda = _cuda_module() if cuda is None else cuda
        if not self._cuda.is_available():
            raise DeviceError("there is no usable GPU (torch.cuda.is_available() is false); see `fusible doctor`")
        self._buffer = self._flush_buffer() if flush else None

    def _flush_buffer(self) -> Any:
        cache = int(self._cuda.get_device_properties(self._cuda.current_device()).L2_cache_size)
        return self._cuda.ByteTensor(max(2 * cache, 1))

    def time(self, work: Work, iterations: int) -> list[float]:
        """Seconds of each call by the GPU's events. Raises DeviceError if the GPU fails."""
        try:
            return self._timed(work, iterations)
        except RuntimeError as error:
            raise DeviceError(f"the GPU failed while a kernel was timed: {error}") from error

    def _timed(self, work: Work, iterations: int) -> list[float]:
        work()
        pairs = []
        for _ in range(iterations):
            if self._buffer is not None:
                self._buffer.zero_()
            pair = self._cuda.Event(enable_timing=True), self._cuda.Event(enable_timing=True)
            pair[0].record()
            work()
            pair[1].record()
            pairs.append(pair)
        self._cuda.synchronize()
        return [first.elapsed_time(second) / 1e3 for first, second in pairs]


def _cuda_module() -> Any:
    try:
        return importlib.import_module("torch").cuda
    except ImportError as error:
        raise DeviceError("timing on a GPU needs torch; pip install 'fusible[gpu]'") from error


def clock_for(device: str) -> Clock:
    """The clock of a device: `cpu`, or a GPU such as `cuda:sm_90`. Raises DeviceError for one that is not there."""
    kind = device.partition(":")[0]
    if kind == "cpu":
        return HostClock()
    if kind in ("cuda", "hip"):
        return CudaClock()
    raise DeviceError(f"no clock for device {device!r}; kernels are timed on cpu, cuda and hip")


def time_pair_with(
    clock: Clock, first: Work, second: Work, *, rounds: int, block_seconds: float, seed: int
) -> tuple[list[list[float]], list[list[float]]]:
    """`measure.interleave.time_pair` with another clock: in each round a block of each, in random order."""
    chance = random.Random(seed)
    works = (first, second)
    counts = [iterations_for(min(clock.time(work, 3)), block_seconds) for work in works]
    blocks: tuple[list[list[float]], list[list[float]]] = ([], [])
    for _ in range(rounds):
        for index in chance.sample((0, 1), 2):
            blocks[index].append(clock.time(works[index], counts[index]))
    return blocks
