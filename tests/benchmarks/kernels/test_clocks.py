"""The GPU's clock records events around each call and flushes before it: tested with a stand-in for torch.cuda."""

from __future__ import annotations

import sys
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from fusible.benchmarks.kernels.clocks import CudaClock, HostClock, clock_for, time_pair_with
from fusible.errors import DeviceError


class FakeCuda:
    """Writes down what happens; a call of the work takes 2 ms, a flush 5 ms of the GPU's time."""

    def __init__(self, available: bool = True) -> None:
        self.available, self.log, self.now = available, list[str](), 0.0
        cuda = self

        class Event:
            def __init__(self, enable_timing: bool = False) -> None:
                assert enable_timing
                self.at: float | None = None

            def record(self) -> None:
                cuda.log.append("record")
                self.at = cuda.now

            def elapsed_time(self, other: Any) -> float:
                assert cuda.log[-1] == "synchronize", "the times of events are read before the GPU is done"
                return float(other.at - self.at)  # milliseconds, as torch has it

        class ByteTensor:
            def __init__(self, size: int) -> None:
                cuda.log.append(f"allocate {size}")

            def zero_(self) -> None:
                cuda.log.append("flush")
                cuda.now += 5

        self.Event, self.ByteTensor = Event, ByteTensor

    def is_available(self) -> bool:
        return self.available

    def current_device(self) -> int:
        return 0

    def get_device_properties(self, device: int) -> Any:
        return SimpleNamespace(L2_cache_size=1000)

    def synchronize(self) -> None:
        self.log.append("synchronize")

    def work(self) -> None:
        self.log.append("work")
        self.now += 2


def test_events_stand_right_around_each_call() -> None:
    cuda = FakeCuda()
    seconds = CudaClock(cuda).time(cuda.work, 3)
    assert seconds == [0.002] * 3  # the flush is not in it
    assert cuda.log == ["allocate 2000", "work", *["flush", "record", "work", "record"] * 3, "synchronize"]


def test_without_flush_nothing_is_allocated() -> None:
    cuda = FakeCuda()
    CudaClock(cuda, flush=False).time(cuda.work, 1)
    assert cuda.log == ["work", "record", "work", "record", "synchronize"]


def test_no_gpu_is_an_error_that_says_so() -> None:
    with pytest.raises(DeviceError, match="no usable GPU"):
        CudaClock(FakeCuda(available=False))


def test_without_torch_the_clock_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DeviceError, match=r"fusible\[gpu\]"):
        CudaClock()


def test_a_gpu_that_fails_is_a_device_error() -> None:
    cuda = FakeCuda()

    def fails() -> None:
        raise RuntimeError("illegal memory access")

    with pytest.raises(DeviceError, match="illegal memory access"):
        CudaClock(cuda).time(fails, 1)


def test_the_host_clock_times_each_call_after_one_that_does_not_count() -> None:
    calls: list[int] = []
    seconds = HostClock().time(lambda: calls.append(1), 5)
    assert len(seconds) == 5
    assert len(calls) == 6
    assert all(s >= 0 for s in seconds)


def test_pairs_alternate_at_random_and_keep_their_rounds() -> None:
    cuda = FakeCuda()
    order: list[str] = []

    def one() -> None:
        order.append("a")
        cuda.work()

    def other() -> None:
        order.append("b")
        cuda.work()
        cuda.work()

    clock = CudaClock(cuda, flush=False)
    first, second = time_pair_with(clock, one, other, rounds=20, block_seconds=0.004, seed=3)
    assert [len(first), len(second)] == [20, 20]
    assert {len(block) for block in first} == {2}  # two calls of 2 ms fill a block of 4 ms
    assert {len(block) for block in second} == {1}
    assert all(seconds == 0.004 for block in second for seconds in block)
    assert {"ab", "ba"} <= {"".join(pair) for pair in pairwise(order)}


def test_each_device_has_its_clock() -> None:
    assert isinstance(clock_for("cpu"), HostClock)
    with pytest.raises(DeviceError, match="toaster"):
        clock_for("toaster")
