"""What a session asks of a device: memory, queues of work, kernels. What is specific to one kind stands behind this.

A device makes streams. A stream is a queue: what is put into it happens in order, and only `download`, `synchronise`
and the reading of events wait. Two streams know nothing of each other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusible.runtime.devices.code import DeviceKernel
from fusible.runtime.devices.convolution import TorchCall

__all__ = [
    "ALIGNMENT",
    "NOT_IN_PLACE",
    "Device",
    "Event",
    "Graph",
    "LoadedKernel",
    "Memory",
    "MemoryInfo",
    "Prepared",
    "Span",
    "Stream",
    "Workspace",
]

_COUNTER = np.dtype(np.int32)
_PARTIAL = np.dtype(np.float32)

ALIGNMENT = 16
"""Kernels may assume that every buffer begins at a multiple of so many bytes."""

NOT_IN_PLACE = f"a bound output is written in place: it must be row-major and begin at a multiple of {ALIGNMENT} bytes"


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """A range of device memory. owner: what keeps it alive, an object of the device's own."""

    address: int
    nbytes: int
    owner: object


@dataclass(frozen=True, slots=True)
class MemoryInfo:
    """Bytes of a device in all, and those still free."""

    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Span:
    """The memory that a kernel may reach through one pointer: where it begins, its bytes, the bytes of an element."""

    address: int
    nbytes: int
    itemsize: int


@dataclass(frozen=True, slots=True, eq=False)
class LoadedKernel:
    """A kernel that this device can run. handle: the device's own."""

    kernel: DeviceKernel
    handle: Any


class Prepared(ABC):
    """A launch whose arguments are settled; it may be repeated."""

    @abstractmethod
    def launch(self) -> None:
        """Put it into its stream. Raises ExecutionError, DeviceError."""

    def confine(self, spans: Sequence[Span]) -> None:  # noqa: B027 - only a device that checks accesses asks
        """From now on its buffers are so large, at the addresses that they have: for runs of several sizes."""


class Graph(ABC):
    """Launches that were captured together."""

    @abstractmethod
    def replay(self) -> None:
        """Put all of them into their stream. Raises ExecutionError, DeviceError."""


class Event(ABC):
    """A point in a stream."""

    @abstractmethod
    def seconds_until(self, later: Event) -> float:
        """The time between two points of one stream; waits for the later one."""


@dataclass(frozen=True, slots=True, eq=False)
class Workspace:
    """What a kernel's own pointers lead to, and the memory that must live as long as the launch may be repeated."""

    spans: tuple[Span, ...]
    memory: tuple[Memory, ...]


class Stream(ABC):
    """A queue of work on one device, and memory for it. Belongs to one thread at a time."""

    _workspace: tuple[Memory, Memory] | None = None

    @abstractmethod
    def allocate(self, nbytes: int) -> Memory:
        """Memory, not initialised, at a multiple of 64 bytes; freed with the last reference to it, in stream order.

        Raises ExecutionError, with what was asked for and what there is, if the device has not so much.
        """

    def allocate_all(self, sizes: Sequence[int]) -> list[Memory]:
        """As `allocate`, for each of several sizes."""
        return [self.allocate(nbytes) for nbytes in sizes]

    @abstractmethod
    def upload(self, target: Memory, offset: int, source: np.ndarray) -> None:
        """Copy the bytes of a contiguous array to `offset` bytes into the memory; the array may be changed at once."""

    @abstractmethod
    def pinned(self, nbytes: int) -> np.ndarray:
        """Memory of the host that `send` may read: uint8 [nbytes], not initialised."""

    @abstractmethod
    def send(self, target: Memory, source: np.ndarray) -> None:
        """As `upload` of pinned memory, which waits for nothing: the array must stay as it is until `synchronise`."""

    @abstractmethod
    def download(self, source: Memory, offset: int, target: np.ndarray) -> None:
        """Fill a contiguous array with bytes that begin `offset` bytes into the memory; waits until they are there."""

    @abstractmethod
    def copy(self, target: Memory, target_offset: int, source: Memory, source_offset: int, nbytes: int) -> None:
        """Copy bytes within the device."""

    def copy_all(self, copies: Sequence[tuple[Memory, int, Memory, int, int]]) -> None:
        """As `copy`, with the arguments of each of several copies."""
        for copy in copies:
            self.copy(*copy)

    @abstractmethod
    def fill(self, target: Memory, byte: int) -> None:
        """Set every byte."""

    @abstractmethod
    def prepare(
        self, kernel: LoadedKernel, programs: int, spans: Sequence[Span], numbers: Sequence[int], where: str
    ) -> Prepared:
        """Settle a launch of `programs` programs, at least 1.

        spans, numbers: the kernel's arguments, pointers first. where: the step, for errors. Raises ExecutionError for
        more programs than the device takes.
        """

    def workspace(self, kernel: DeviceKernel, programs: int) -> Workspace:
        """The memory that programs of a launch share, for a kernel that asks for some.

        Launches of a stream come one after the other, so all have the same; it grows, and who was given the smaller one
        keeps that. Counters are zero where it is made, and each launch leaves them so. Raises ExecutionError.
        """
        if not kernel.workspace:
            return Workspace((), ())
        sharing = programs - kernel.alone
        wanted = kernel.workspace * sharing, _COUNTER.itemsize * sharing
        if self._workspace is None or any(m.nbytes < n for m, n in zip(self._workspace, wanted, strict=True)):
            held = (0, 0) if self._workspace is None else tuple(m.nbytes for m in self._workspace)
            partials, counters = (self.allocate(max(n, had)) for n, had in zip(wanted, held, strict=True))
            self.fill(counters, 0)
            self._workspace = partials, counters
        itemsizes = _PARTIAL.itemsize, _COUNTER.itemsize
        spans = (Span(m.address, n, i) for m, n, i in zip(self._workspace, wanted, itemsizes, strict=True))
        return Workspace(tuple(spans), self._workspace)

    @abstractmethod
    def prepare_product(self, product: TorchCall, spans: Sequence[Span], where: str) -> Prepared:
        """Settle a product or a convolution by torch. spans: the memory of its places.

        Raises DeviceError if torch is not there.
        """

    @abstractmethod
    def capture(self, launches: Sequence[Prepared]) -> Graph:
        """Several launches as one; nothing runs yet."""

    @abstractmethod
    def event(self) -> Event:
        """The present end of the queue."""

    def await_caller(self) -> None:  # noqa: B027 - where everything is done at once there is nothing to wait for
        """Let all that follows come after the work that the calling thread has given the device by other libraries."""

    def hold(self) -> None:  # noqa: B027 - most devices need none
        """Keep the device at work for long enough that a few calls can queue up: between events then only work counts.

        Without it, a launch shorter than what the host takes to make it would be timed as long as that.
        """

    @abstractmethod
    def synchronise(self) -> None:
        """Wait until everything is done. Raises DeviceError for what went wrong meanwhile."""


class Device(ABC):
    """A device of this machine, with the code of some kernels. Threads may share it; their streams are their own.

    name: for people. checked: whether launches check what they read and write (`Prepared.confine`).
    """

    name: str
    checked: bool = False

    def active(self) -> AbstractContextManager[None]:
        """While it is entered, the calling thread may use the device. Raises DeviceError where it may not."""
        return nullcontext()

    @abstractmethod
    def load(self, kernel: DeviceKernel) -> LoadedKernel:
        """A kernel that streams can launch. Raises DeviceError."""

    @abstractmethod
    def stream(self) -> Stream:
        """A new stream. Raises DeviceError."""

    @abstractmethod
    def constant(self, array: np.ndarray, stream: Stream) -> Memory:
        """Memory with the content of a contiguous array that never changes, which may be the array's own."""

    @abstractmethod
    def memory(self) -> MemoryInfo:
        """How much there is."""

    @abstractmethod
    def import_array(
        self, given: object, stream: Stream, *, copies: bool = True
    ) -> tuple[Memory, np.dtype, tuple[int, ...]] | None:
        """An array that lies on this device, by DLPack and with no copy; None if it lies elsewhere.

        given: an object with `__dlpack_device__`. Returns its memory, element type and shape; an array that is not
        row-major or not aligned is copied on the device. copies: whether it may be. Raises DeviceError if it may not,
        and for element types that cannot be taken over.
        """

    @abstractmethod
    def export_array(self, memory: Memory, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> Any:
        """An object with `__dlpack__` that shares row-major memory. Raises DeviceError for types DLPack lacks here."""
