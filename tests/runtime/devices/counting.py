"""A device that counts what is asked of it, and computes as triton-cpu does. Constants are copied, as to a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from fusible.kernels.aligned import aligned_bytes
from fusible.runtime.devices.device import Graph, LoadedKernel, Memory, Prepared, Span, Stream
from fusible.runtime.devices.program import DeviceProgram
from fusible.runtime.devices.triton_cpu import CpuStream, TritonCpu, _Block
from tests.runtime.devices.build import program

__all__ = ["CountingCpu", "counting_program", "recycling_program"]


class _Counted(Prepared):
    def __init__(self, inner: Prepared, counts: Counter[str]) -> None:
        self.inner, self.counts = inner, counts

    def launch(self) -> None:
        self.counts["launch"] += 1
        self.inner.launch()

    def confine(self, spans: Sequence[Span]) -> None:
        self.inner.confine(spans)


class _CountedGraph(Graph):
    def __init__(self, inner: Graph, counts: Counter[str]) -> None:
        self.inner, self.counts = inner, counts

    def replay(self) -> None:
        self.counts["replay"] += 1
        self.inner.replay()


class _CountingStream(CpuStream):
    counts: Counter[str]

    def __init__(self, device: CountingCpu) -> None:
        super().__init__(device)
        self.counts = device.counts

    def allocate(self, nbytes: int) -> Memory:
        self.counts["allocate"] += 1
        return super().allocate(nbytes)

    def upload(self, target: Memory, offset: int, source: np.ndarray) -> None:
        self.counts["upload"] += 1
        super().upload(target, offset, source)

    def download(self, source: Memory, offset: int, target: np.ndarray) -> None:
        self.counts["download"] += 1
        super().download(source, offset, target)

    def copy(self, target: Memory, target_offset: int, source: Memory, source_offset: int, nbytes: int) -> None:
        self.counts["copy"] += 1
        super().copy(target, target_offset, source, source_offset, nbytes)

    def prepare(
        self, kernel: LoadedKernel, programs: int, spans: Sequence[Span], numbers: Sequence[int], where: str
    ) -> Prepared:
        self.counts["prepare"] += 1
        return _Counted(super().prepare(kernel, programs, spans, numbers, where), self.counts)

    def capture(self, launches: Sequence[Prepared]) -> Graph:
        self.counts["capture"] += 1
        return _CountedGraph(super().capture([p.inner for p in launches if isinstance(p, _Counted)]), self.counts)


class _Lease(_Block):
    """Memory that goes back to its pool."""

    def __init__(self, device: TritonCpu, array: np.ndarray, pool: list[np.ndarray]) -> None:
        super().__init__(device, array)
        self.pool = pool

    def __del__(self) -> None:
        super().__del__()
        self.pool.append(self.array)


class _RecyclingStream(CpuStream):
    """Hands out the same addresses again, as a GPU's allocator does, whatever the size."""

    def __init__(self, device: TritonCpu) -> None:
        super().__init__(device)
        self.pool: list[np.ndarray] = []

    def allocate(self, nbytes: int) -> Memory:
        array = self.pool.pop() if self.pool else aligned_bytes(1 << 14)
        assert nbytes <= array.nbytes
        return Memory(array.ctypes.data, nbytes, _Lease(self.device, array, self.pool))


class _RecyclingCpu(TritonCpu):
    def stream(self) -> Stream:
        return _RecyclingStream(self)


def recycling_program() -> DeviceProgram:
    """The kernels of `build.KERNELS` on a device on which memory that was freed is what is allocated next."""
    known = program()
    assert isinstance(known.device, TritonCpu)
    device = _RecyclingCpu(known.device.library, threads=2, checked=known.device.checked)
    return DeviceProgram(known.code, "triton-cpu", lambda: device)


class CountingCpu(TritonCpu):
    """Counts of all its streams, by method."""

    def __init__(self, inner: TritonCpu, limit: int | None = None) -> None:
        super().__init__(inner.library, threads=2, checked=inner.checked, limit=limit)
        self.counts: Counter[str] = Counter()

    def stream(self) -> Stream:
        return _CountingStream(self)

    def constant(self, array: np.ndarray, stream: Stream) -> Memory:
        memory = stream.allocate(array.nbytes)
        stream.upload(memory, 0, array)
        return memory


def counting_program(limit: int | None = None) -> tuple[DeviceProgram, CountingCpu]:
    """The kernels of `build.KERNELS` on a counting device."""
    known = program()
    assert isinstance(known.device, TritonCpu)
    device = CountingCpu(known.device, limit)
    return DeviceProgram(known.code, "triton-cpu", lambda: device), device
