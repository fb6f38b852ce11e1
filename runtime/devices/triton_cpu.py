"""The device `triton-cpu`: device memory is the process's own, and kernels are Triton's, lowered to C.

The structs here are those of tile.h, which every lowered kernel includes.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusible.errors import DeviceError, ExecutionError
from fusible.kernels.aligned import aligned_bytes
from fusible.runtime.devices.code import DeviceCode, DeviceKernel
from fusible.runtime.devices.convolution import TorchCall
from fusible.runtime.devices.device import (
    ALIGNMENT,
    NOT_IN_PLACE,
    Device,
    Event,
    Graph,
    LoadedKernel,
    Memory,
    MemoryInfo,
    Prepared,
    Span,
    Stream,
)
from fusible.runtime.devices.findings import FIELDS, describe_findings
from fusible.runtime.devices.torch_calls import torch_on_cpu
from fusible.runtime.native.pool import Pool

if TYPE_CHECKING:
    from fusible.runtime.native.compiler import Compiler

__all__ = ["CPU_FLAGS", "CpuLaunch", "CpuStream", "Scratch", "TritonCpu", "build_host_library", "flags_of"]

CPU_FLAGS = ("-fwrapv", "-fno-strict-aliasing")
"""What lowered kernels are compiled with: TTIR's integers wrap, and pointers may be cast."""

_CHECKED_FLAGS = ("-O1",)  # every access is a call anyway, and a quarter of the time to compile matters more
_FINDINGS = 256
_LINE_BYTES, _PAGE_BYTES = 64, 4096
_MAX_PROGRAMS = 2**31 - 2


class _Buffer(ctypes.Structure):
    """`struct buffer` of tile.h."""

    _fields_ = (
        ("base", ctypes.c_int64),
        ("bytes", ctypes.c_int64),
        ("element_bytes", ctypes.c_int64),
        ("writers", ctypes.c_void_p),
    )


class _Launch(ctypes.Structure):
    """`struct launch` of tile.h."""

    _fields_ = (
        ("arguments", ctypes.c_void_p),
        ("buffers", ctypes.c_void_p),
        ("buffer_count", ctypes.c_int64),
        ("findings", ctypes.c_void_p),
        ("capacity", ctypes.c_int64),
        ("grid", ctypes.c_int64 * 3),
        ("scratch", ctypes.c_void_p),
        ("scratch_bytes", ctypes.c_int64),
        ("pool", ctypes.c_void_p),
    )


def flags_of(checked: bool) -> tuple[str, ...]:
    """The compiler's flags for lowered kernels."""
    return CPU_FLAGS + _CHECKED_FLAGS if checked else CPU_FLAGS


def build_host_library(
    code: DeviceCode, compiler: Compiler, *, cache_dir: Path, progress: Callable[[int, int, str], None] | None = None
) -> Path:
    """The library of the kernels lowered to C, built unless the cache has it. Raises KernelBuildError, UsageError."""
    from fusible.runtime.native.library import KERNEL_HEADERS, build_library  # noqa: PLC0415 - only a build needs it

    assert code.host is not None
    sources = {"pool.c": (KERNEL_HEADERS / "pool.c").read_text(encoding="utf-8"), **code.host.sources}
    return build_library(sources, compiler, cache_dir=cache_dir, flags=flags_of(code.checked), progress=progress)


class Scratch:
    """Memory for the tiles of one launch at a time, for each thread that works on it."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def take(self, nbytes: int, threads: int) -> tuple[int, int]:
        """Address of the first thread's part, and the distance to the next one's."""
        stride = -(-(nbytes + _LINE_BYTES) // _PAGE_BYTES) * _PAGE_BYTES + _LINE_BYTES
        if self._memory.nbytes < stride * threads + _LINE_BYTES:
            self._memory = np.empty(stride * threads + _LINE_BYTES, np.uint8)
        return -(-self._memory.ctypes.data // _LINE_BYTES) * _LINE_BYTES, stride


class CpuLaunch(Prepared):
    """One launch of a lowered kernel, with the structs that its C reads."""

    def __init__(
        self,
        function: Any,
        kernel: DeviceKernel,
        grid: tuple[int, int, int],
        values: Sequence[int],
        spans: Sequence[Span | None],
        *,
        where: str,
        checked: bool,
        scratch: Scratch,
        pool: Pool | None,
        shared_writes: bool = False,
        held: Sequence[Memory] = (),
    ) -> None:
        """Take a grid and, for each argument, its 64 bits and the memory it points into, None for a number.

        held: memory that lives as long as the launch.
        """
        self._held = tuple(held)
        self._function, self._kernel, self._grid, self._where = function, kernel, grid, where
        self._spans, self._checked, self._scratch, self._pool = tuple(spans), checked, scratch, pool
        self._values = np.array(values, np.int64)
        capacity = _FINDINGS if checked else 1
        self._findings = np.zeros(1 + capacity * FIELDS, np.int64)
        self._writers: list[np.ndarray] = []
        self._buffers = (_Buffer * max(1, len(spans)))()
        if checked:
            self._bound(shared_writes)
        self._launch = _Launch(
            arguments=self._values.ctypes.data,
            buffers=ctypes.addressof(self._buffers),
            buffer_count=len(spans),
            findings=self._findings.ctypes.data,
            capacity=capacity,
            grid=grid,
        )

    def _bound(self, shared_writes: bool) -> None:
        for buffer, span in zip(self._buffers, self._spans, strict=False):
            if span is not None:
                buffer.base, buffer.bytes, buffer.element_bytes = span.address, span.nbytes, span.itemsize
                if not shared_writes:
                    self._writers.append(np.zeros(span.nbytes // span.itemsize, np.int32))
                    buffer.writers = self._writers[-1].ctypes.data

    def confine(self, spans: Sequence[Span]) -> None:
        """See Prepared."""
        if self._checked:
            self._spans = (*spans, *self._spans[len(spans) :])
            for buffer, span in zip(self._buffers, spans, strict=False):
                assert buffer.base == span.address
                buffer.bytes = span.nbytes

    def launch(self) -> None:
        """Run all programs. Raises ExecutionError for what checking mode found; nothing wrong was read or written."""
        threads = 1 if self._pool is None else self._pool.threads
        self._launch.scratch, self._launch.scratch_bytes = self._scratch.take(self._kernel.scratch_bytes, threads)
        self._launch.pool = None if self._pool is None else self._pool.handle
        self._findings[0] = 0
        for writers in self._writers:
            writers.fill(0)
        self._function(ctypes.byref(self._launch))
        if self._findings[0]:
            names = [name for name, _ in self._kernel.arguments]
            told = describe_findings(self._findings, self._grid, self._kernel.sites, names, self._spans)
            raise ExecutionError(self._where, told)


class _Recorded(Graph):
    """Launches that are repeated one by one."""

    def __init__(self, launches: Sequence[Prepared]) -> None:
        self._launches = tuple(launches)

    def replay(self) -> None:
        for launch in self._launches:
            launch.launch()


class _Moment(Event):
    """Everything before is done when it is made, since launches wait."""

    def __init__(self) -> None:
        self.seconds = time.perf_counter()

    def seconds_until(self, later: Event) -> float:
        assert isinstance(later, _Moment)
        return later.seconds - self.seconds


class _Block:
    """Memory of the device, counted while it is there."""

    def __init__(self, device: TritonCpu, array: np.ndarray) -> None:
        self.device, self.array = device, array
        device.blocks[id(self)] = array.nbytes

    def __del__(self) -> None:
        self.device.blocks.pop(id(self), None)


class CpuStream(Stream):
    """What is put into it is done at once."""

    def __init__(self, device: TritonCpu) -> None:
        self.device = device
        self.scratch = Scratch()

    def allocate(self, nbytes: int) -> Memory:
        """See Stream."""
        free = self.device.memory().free
        if nbytes > free:
            raise _out_of_memory(self.device.name, nbytes, free)
        try:
            array = aligned_bytes(nbytes)
        except MemoryError as error:
            raise _out_of_memory(self.device.name, nbytes, free) from error
        return Memory(array.ctypes.data, nbytes, _Block(self.device, array))

    def upload(self, target: Memory, offset: int, source: np.ndarray) -> None:
        """See Stream."""
        _bytes_of(target)[offset : offset + source.nbytes] = source.reshape(-1).view(np.uint8)

    def pinned(self, nbytes: int) -> np.ndarray:
        """See Stream."""
        return np.empty(nbytes, np.uint8)

    def send(self, target: Memory, source: np.ndarray) -> None:
        """See Stream."""
        self.upload(target, 0, source)

    def download(self, source: Memory, offset: int, target: np.ndarray) -> None:
        """See Stream."""
        target.reshape(-1).view(np.uint8)[...] = _bytes_of(source)[offset : offset + target.nbytes]

    def copy(self, target: Memory, target_offset: int, source: Memory, source_offset: int, nbytes: int) -> None:
        """See Stream."""
        _bytes_of(target)[target_offset : target_offset + nbytes] = _bytes_of(source)[
            source_offset : source_offset + nbytes
        ]

    def fill(self, target: Memory, byte: int) -> None:
        """See Stream."""
        _bytes_of(target).fill(byte)

    def prepare(
        self, kernel: LoadedKernel, programs: int, spans: Sequence[Span], numbers: Sequence[int], where: str
    ) -> Prepared:
        """See Stream."""
        if programs > _MAX_PROGRAMS:
            raise ExecutionError(where, f"{programs} programs, more than the {_MAX_PROGRAMS} of a launch")
        device, workspace = self.device, self.workspace(kernel.kernel, programs)
        spans = [*spans, *workspace.spans]
        return CpuLaunch(
            kernel.handle,
            kernel.kernel,
            (programs, 1, 1),
            [*(span.address for span in spans), *numbers],
            [*spans, *(None for _ in numbers)],
            where=where,
            checked=device.checked,
            scratch=self.scratch,
            pool=device.pool,
            held=workspace.memory,
        )

    def prepare_product(self, product: TorchCall, spans: Sequence[Span], where: str) -> Prepared:
        """See Stream: torch's own library on the CPU."""
        return torch_on_cpu(product, spans, where)

    def capture(self, launches: Sequence[Prepared]) -> Graph:
        """See Stream."""
        return _Recorded(launches)

    def event(self) -> Event:
        """See Stream."""
        return _Moment()

    def synchronise(self) -> None:
        """See Stream."""


class TritonCpu(Device):
    """The CPU as a device for Triton kernels lowered to C.

    library: of `build_host_library`. limit: bytes that sessions may allocate in all, by default what the machine has.
    """

    target = "triton-cpu"

    def __init__(
        self, library: ctypes.CDLL, *, threads: int | None = None, checked: bool = False, limit: int | None = None
    ) -> None:
        """Take the library of the kernels; workers start with the first launch."""
        self.name = "triton-cpu"
        self.library, self.threads, self.checked = library, threads, checked
        self.blocks: dict[int, int] = {}  # bytes of each; threads, and the collector within one, count with no lock
        self._limit = limit
        self._pool: Pool | None = None
        library.pool_create.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_int)]
        library.pool_create.restype = ctypes.c_void_p
        library.pool_destroy.argtypes = [ctypes.c_void_p]
        library.pool_destroy.restype = None

    @property
    def used(self) -> int:
        """The bytes that are allocated."""
        return sum(list(self.blocks.values()))

    @property
    def pool(self) -> Pool:
        """The pool, whose workers start when it is first wanted."""
        if self._pool is None:
            self._pool = Pool(self.threads, library=self.library)
        return self._pool

    def load(self, kernel: DeviceKernel) -> LoadedKernel:
        """A kernel of the library. Raises DeviceError if it is not there."""
        if not hasattr(self.library, kernel.name):
            raise DeviceError(f"the library of lowered kernels lacks {kernel.name}: compile the model again")
        function = getattr(self.library, kernel.name)
        function.argtypes, function.restype = [ctypes.c_void_p], None
        return LoadedKernel(kernel, function)

    def stream(self) -> Stream:
        """See Device."""
        return CpuStream(self)

    def constant(self, array: np.ndarray, stream: Stream) -> Memory:
        """See Device: the array's own memory where it is aligned."""
        flat = array.reshape(-1).view(np.uint8)
        if array.nbytes and array.ctypes.data % ALIGNMENT == 0:
            return Memory(array.ctypes.data, array.nbytes, flat)
        memory = stream.allocate(array.nbytes)
        stream.upload(memory, 0, array)
        return memory

    def memory(self) -> MemoryInfo:
        """See Device."""
        if self._limit is not None:
            return MemoryInfo(self._limit, max(0, self._limit - self.used))
        page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
        return MemoryInfo(page * pages, max(0, page * pages - self.used))

    def import_array(
        self, given: object, stream: Stream, *, copies: bool = True
    ) -> tuple[Memory, np.dtype, tuple[int, ...]] | None:
        """See Device."""
        if given.__dlpack_device__()[0] != _DLPACK_CPU:  # type: ignore[attr-defined]
            return None
        array = np.from_dlpack(given)  # type: ignore[arg-type]
        if not array.flags.c_contiguous or array.ctypes.data % ALIGNMENT:
            if not copies:
                raise DeviceError(NOT_IN_PLACE)
            memory = stream.allocate(array.nbytes)
            stream.upload(memory, 0, np.ascontiguousarray(array))
            return memory, array.dtype, array.shape
        return Memory(array.ctypes.data, array.nbytes, array.reshape(-1).view(np.uint8)), array.dtype, array.shape

    def export_array(self, memory: Memory, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> Any:
        """See Device."""
        if dtype.kind not in "biuf":
            raise DeviceError(f"NumPy hands over no {dtype.name} by DLPack: let the session return NumPy arrays")
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return _bytes_of(memory)[offset : offset + nbytes].view(dtype).reshape(shape)


_DLPACK_CPU = 1  # kDLCPU of DLPack's DLDeviceType


def _bytes_of(memory: Memory) -> np.ndarray:
    owner = memory.owner
    array = owner.array if isinstance(owner, _Block) else owner
    assert isinstance(array, np.ndarray)
    return array


def _out_of_memory(name: str, asked: int, free: int) -> ExecutionError:
    return ExecutionError(
        f"memory of {name}", f"asked for {asked} bytes and {free} are free; use smaller shapes or fewer sessions"
    )
