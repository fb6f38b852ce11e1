"""Timing launches: the median between events, early stop, budget; candidates compared on the device triton-cpu."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fusible.compiler.tuning import Config, Source, TuningLock, choose
from fusible.errors import UsageError
from fusible.runtime.devices.device import Event, Prepared, Span
from fusible.runtime.devices.timing import Timing, time_launch
from fusible.runtime.devices.triton_cpu import CpuStream, TritonCpu
from tests.runtime.devices.build import program


class _Ticks(CpuStream):
    """A stream whose clock goes on by what a list says, at every second event."""

    def __init__(self, seconds: list[float]) -> None:
        device = program().device
        assert isinstance(device, TritonCpu)
        super().__init__(device)
        self.now, self.steps = 0.0, self._steps(iter(seconds))

    @staticmethod
    def _steps(seconds: Iterator[float]) -> Iterator[float]:
        for step in seconds:
            yield 0.0
            yield step

    def event(self) -> Event:
        self.now += next(self.steps)
        return _Tick(self.now)


class _Tick(Event):
    def __init__(self, now: float) -> None:
        self.now = now

    def seconds_until(self, later: Event) -> float:
        assert isinstance(later, _Tick)
        return later.now - self.now


class _Nothing(Prepared):
    count = 0

    def launch(self) -> None:
        self.count += 1


def test_the_median_of_the_samples() -> None:
    launch = _Nothing()
    assert time_launch(_Ticks([5, 1, 9, 3, 2]), launch, least=5, most=5) == Timing(3, 5)
    assert launch.count == 6  # the first is not timed


def test_what_is_slower_than_another_is_given_up_early() -> None:
    assert time_launch(_Ticks([4.0] * 9), _Nothing(), least=2, most=9, best=2) == Timing(4, 2, stopped=True)
    assert time_launch(_Ticks([4.0, 2.5] * 9), _Nothing(), least=2, most=4, best=2) == Timing(3.25, 4)


def test_the_budget_ends_it() -> None:
    assert time_launch(_Ticks([1.0] * 9), _Nothing(), least=3, most=9, budget=0).samples == 3
    with pytest.raises(UsageError, match="0 to 9"):
        time_launch(_Ticks([]), _Nothing(), least=0, most=9)


def test_candidates_on_the_device() -> None:
    opened = program()
    stream = opened.device.stream()
    memory, flush = stream.allocate(1 << 20), stream.allocate(1 << 16)

    def measure(config: Config, best: float | None) -> float | None:
        count = config["ELEMENTS"]
        spans = [Span(memory.address + k * (1 << 19), 4 * count, 4) for k in range(2)]
        launch = opened.prepare(stream, "twice", -(-count // 32), spans, [count], "a candidate")
        return time_launch(stream, launch, flush=flush, least=3, most=5, best=best).seconds

    lock = TuningLock()
    found = choose("twice", [{"ELEMENTS": 100_000}, {"ELEMENTS": 32}], lock, measure)
    assert found.config == {"ELEMENTS": 32} and found.source is Source.MEASURED and found.tried == 2
