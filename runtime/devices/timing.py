"""How long one launch takes, by the device's own clock."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from fusible.errors import UsageError
from fusible.runtime.devices.device import Memory, Prepared, Stream

__all__ = ["Timing", "time_launch"]

_HOPELESS = 1.5  # a launch whose least time is so many times the best median is not timed further


@dataclass(frozen=True, slots=True)
class Timing:
    """seconds: the median of the samples. stopped: the rest was not worth the time, for others are faster."""

    seconds: float
    samples: int
    stopped: bool = False


def time_launch(
    stream: Stream,
    launch: Prepared,
    *,
    flush: Memory | None = None,
    least: int = 5,
    most: int = 40,
    budget: float = 0.5,
    best: float | None = None,
) -> Timing:
    """Time a launch again and again, between two events of its stream.

    flush: memory that is filled before each sample, larger than the device's cache, so that operands come from memory.
    least, most: samples; between them `budget` seconds of wall time end it. best: the median of the best competitor, by
    which a slower launch is given up after `least` samples. Raises UsageError for numbers of samples that make no
    sense.
    """
    if not 1 <= least <= most:
        raise UsageError(
            f"a launch is timed at least once and at most as often as is allowed, not {least} to {most} times"
        )
    launch.launch()  # what happens only once
    stream.synchronise()
    began = time.perf_counter()
    samples: list[float] = []
    while len(samples) < most:
        stream.hold()
        if flush is not None:
            stream.fill(flush, 0)
        before = stream.event()
        launch.launch()
        samples.append(before.seconds_until(stream.event()))
        if len(samples) < least:
            continue
        if best is not None and min(samples) > _HOPELESS * best:
            return Timing(statistics.median(samples), len(samples), stopped=True)
        if time.perf_counter() - began > budget:
            break
    return Timing(statistics.median(samples), len(samples))
