"""CUDA GPUs as devices: torch owns memory, streams, events and graphs; kernels are launched through the driver.

The only part of device sessions that no test without a GPU reaches in full: docs/gpu.md lists its functions, and
`python -m fusible.gpu_selftest` runs them.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np

from fusible.errors import DeviceError, ExecutionError, FusibleError
from fusible.runtime.devices.code import DeviceImage, DeviceKernel
from fusible.runtime.devices.convolution import TorchCall
from fusible.runtime.devices.cuda_driver import CudaDriver
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
    Workspace,
)
from fusible.runtime.devices.torch_calls import torch_launch

__all__ = ["CudaDevice", "CudaStream", "Gpu", "find_gpu", "open_gpu"]

_MAX_PROGRAMS = 2**31 - 1  # of the grid's first dimension
_HELD = 200_000  # cycles: a tenth of a millisecond
_DLPACK_CUDA = 2  # kDLCUDA of DLPack's DLDeviceType
_C_TYPES: dict[str, Any] = {
    "i8": ctypes.c_int8, "i16": ctypes.c_int16, "i32": ctypes.c_int32, "i64": ctypes.c_int64,
    "u8": ctypes.c_uint8, "u16": ctypes.c_uint16, "u32": ctypes.c_uint32, "u64": ctypes.c_uint64,
}  # fmt: skip
_DTYPES: dict[str, np.dtype] = {
    "float64": np.dtype(np.float64), "float32": np.dtype(np.float32), "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16), "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2), "int64": np.dtype(np.int64), "int32": np.dtype(np.int32),
    "int16": np.dtype(np.int16), "int8": np.dtype(np.int8), "uint8": np.dtype(np.uint8), "bool": np.dtype(np.bool_),
    "uint16": np.dtype(np.uint16), "uint32": np.dtype(np.uint32), "uint64": np.dtype(np.uint64),
}  # fmt: skip
_TORCH_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU of this machine. index: torch's; capability: 90 for compute capability 9.0."""

    index: int
    name: str
    capability: int


def find_gpu() -> Gpu:
    """torch's current GPU. Raises DeviceError if torch is not there or finds none."""
    torch = _torch()
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise DeviceError(
            f"no GPU can be used: torch {torch.__version__} ({built}) finds none; check that `nvidia-smi` lists one "
            "and install a torch for its driver, or compile for the target cpu or triton-cpu"
        )
    index = int(torch.cuda.current_device())
    major, minor = torch.cuda.get_device_capability(index)
    return Gpu(index, str(torch.cuda.get_device_name(index)), 10 * int(major) + int(minor))


def open_gpu(gpu: Gpu, images: Mapping[str, DeviceImage]) -> CudaDevice:
    """A GPU with the images that its kernels are loaded from. Raises DeviceError."""
    return CudaDevice(gpu, images, _torch(), CudaDriver())


def _torch() -> ModuleType:
    try:
        import torch  # noqa: PLC0415 - optional, and slow to import
    except ImportError as error:
        raise DeviceError("sessions on a GPU need torch: pip install 'fusible[gpu]'") from error
    found: ModuleType = torch
    return found


@dataclass(frozen=True, slots=True)
class _Function:
    """A loaded function, with what a launch of it needs."""

    address: int
    image: DeviceImage


class CudaDevice(Device):
    """One GPU."""

    def __init__(self, gpu: Gpu, images: Mapping[str, DeviceImage], torch: ModuleType, driver: CudaDriver) -> None:
        """Take a GPU, images by kernel, and what it is reached through."""
        self.name = f"cuda:{gpu.index} ({gpu.name})"
        self.gpu, self.torch, self.driver = gpu, torch, driver
        self._images = dict(images)
        self._dtypes = {getattr(torch, name): dtype for name, dtype in _DTYPES.items() if hasattr(torch, name)}
        self._functions: dict[tuple[bytes, str], _Function] = {}
        self._process = os.getpid()
        self._context = driver.primary_context(gpu.index)
        self._idle: list[int] = []  # streams that nobody has any more

    @contextmanager
    def active(self) -> Iterator[None]:
        """See Device: the GPU's context is the thread's."""
        if os.getpid() != self._process:
            raise DeviceError("a GPU cannot be used in a forked child: start processes by spawn, and load there")
        before = self.driver.current_context()
        if before != self._context:
            self.driver.set_context(self._context)
        try:
            yield
        finally:
            if before not in (0, self._context):
                self.driver.set_context(before)

    def load(self, kernel: DeviceKernel) -> LoadedKernel:
        """See Device. Kernels that share an image share its module."""
        image = self._images[kernel.name]
        key = (image.data, image.symbol)
        if key not in self._functions:
            address = self.driver.function(image.data, image.symbol, image.shared)
            self._functions[key] = _Function(address, image)
        return LoadedKernel(kernel, self._functions[key])

    def stream(self) -> Stream:
        """See Device."""
        return CudaStream(self)

    def take_stream(self, user: object) -> int:
        """A stream that is the user's alone until the user is gone.

        torch hands out 32 in turn, and a launch into one that another session captures would join its graph. Streams
        are not destroyed: torch's allocator keeps memory by them.
        """
        try:
            number = self._idle.pop()
        except IndexError:
            number = self.driver.make_stream()
        weakref.finalize(user, self._idle.append, number)
        return number

    def constant(self, array: np.ndarray, stream: Stream) -> Memory:
        """See Device."""
        memory = stream.allocate(array.nbytes)
        stream.upload(memory, 0, array)
        return memory

    def memory(self) -> MemoryInfo:
        """See Device."""
        free, total = self.torch.cuda.mem_get_info(self.gpu.index)
        return MemoryInfo(int(total), int(free))

    def import_array(
        self, given: object, stream: Stream, *, copies: bool = True
    ) -> tuple[Memory, np.dtype, tuple[int, ...]] | None:
        """See Device. The work that makes the array is waited for in the stream, as DLPack says."""
        assert isinstance(stream, CudaStream)
        tensor = self._awaited(given, stream) if isinstance(given, self.torch.Tensor) else None
        if tensor is None and tuple(given.__dlpack_device__()) != (_DLPACK_CUDA, self.gpu.index):  # type: ignore[attr-defined]
            return None
        if tensor is None:
            with self.torch.cuda.stream(stream.handle):
                own = self.torch.from_dlpack(given)
                tensor = own.contiguous()
                if tensor.data_ptr() % ALIGNMENT:
                    tensor = tensor.clone()
                if not copies and tensor.data_ptr() != own.data_ptr():
                    raise DeviceError(NOT_IN_PLACE)
        dtype = self._dtypes.get(tensor.dtype)
        if dtype is None:
            raise DeviceError(f"arrays of {tensor.dtype} cannot be taken over; convert it")
        memory = Memory(int(tensor.data_ptr()), tensor.numel() * dtype.itemsize, tensor)
        return memory, dtype, tuple(tensor.shape)

    def _awaited(self, tensor: Any, stream: CudaStream) -> Any | None:
        """A tensor that can be used as it is, as DLPack would have it but sooner; None for others."""
        if not tensor.is_cuda or tensor.get_device() != self.gpu.index:
            return None
        if not tensor.is_contiguous() or tensor.is_neg() or tensor.data_ptr() % ALIGNMENT:
            return None
        return tensor.detach()

    def export_array(self, memory: Memory, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> Any:
        """See Device: a tensor."""
        name = _TORCH_NAMES.get(dtype)
        if name is None or not hasattr(self.torch, name):
            raise DeviceError(f"torch has no element type {dtype.name}: let the session return NumPy arrays")
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        owner: Any = memory.owner
        flat = owner.reshape(-1).view(self.torch.uint8)[offset : offset + nbytes]
        return flat.view(getattr(self.torch, name)).reshape(shape)


class _CudaLaunch(Prepared):
    """A launch with its arguments as the driver reads them: pointers to values that live here."""

    def __init__(
        self, stream: CudaStream, function: _Function, programs: int, values: Sequence[Any], workspace: Workspace
    ) -> None:
        self._stream, self._function, self._programs = stream, function, programs
        self._workspace = workspace
        self._scratch = [stream.allocate(nbytes * programs) if nbytes else None for nbytes in function.image.scratch]
        pointers = [ctypes.c_void_p(None if memory is None else memory.address) for memory in self._scratch]
        self._values = [*values, *pointers]
        self._parameters = (ctypes.c_void_p * len(self._values))(*map(ctypes.addressof, self._values))
        image = function.image
        block = (image.threads, image.shared)
        self._launch = stream.driver.prepared(function.address, programs, *block, stream.number, image.overlaps)

    def launch(self) -> None:
        """See Prepared."""
        self._launch.run(self._parameters)


class _Bytes:
    """Memory of the GPU as torch takes it over: CUDA array interface, version 2 (numba.pydata.org)."""

    def __init__(self, span: Span) -> None:
        self.__cuda_array_interface__ = {
            "shape": (span.nbytes,), "typestr": "|u1", "data": (span.address, False), "version": 2, "strides": None,
        }  # fmt: skip


class _CudaGraph(Graph):
    """Captured launches."""

    def __init__(self, stream: CudaStream, launches: Sequence[Prepared]) -> None:
        self._stream, self._launches = stream, tuple(launches)  # the graph points at what they keep alive
        torch = stream.device.torch
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(stream.handle):
            try:
                self._graph.capture_begin(capture_error_mode="thread_local")
                self._record()
            except RuntimeError as error:
                raise ExecutionError("a graph", f"{len(launches)} launches could not be captured: {error}") from error

    def _record(self) -> None:
        try:
            for launch in self._launches:
                launch.launch()
        except FusibleError:
            with suppress(RuntimeError):  # of a capture that is broken already; what broke it is told
                self._graph.capture_end()
            raise
        self._graph.capture_end()

    def replay(self) -> None:
        """See Graph."""
        try:
            with self._stream.device.torch.cuda.stream(self._stream.handle):
                self._graph.replay()
        except RuntimeError as error:
            raise ExecutionError("a graph", f"{len(self._launches)} launches failed: {error}") from error


class _CudaEvent(Event):
    """A point in a stream, with its time."""

    def __init__(self, stream: CudaStream) -> None:
        self._event = stream.device.torch.cuda.Event(enable_timing=True)
        self._event.record(stream.handle)

    def seconds_until(self, later: Event) -> float:
        """See Event."""
        assert isinstance(later, _CudaEvent)
        later._event.synchronize()
        return float(self._event.elapsed_time(later._event)) / 1000


class CudaStream(Stream):
    """A stream of its own, which others do not wait for and which torch works in too."""

    def __init__(self, device: CudaDevice) -> None:
        """Make a stream on a GPU."""
        self.device, self.driver = device, device.driver
        self.number = device.take_stream(self)
        self.handle = device.torch.cuda.ExternalStream(self.number, device=device.gpu.index)
        self._place = f"cuda:{device.gpu.index}"

    def allocate(self, nbytes: int) -> Memory:
        """See Stream: torch's allocator reuses memory in the order of the stream that it was allocated for."""
        return self.allocate_all([nbytes])[0]

    def allocate_all(self, sizes: Sequence[int]) -> list[Memory]:
        """See Stream: the stream becomes torch's once for all of them, which takes longer than to allocate."""
        torch, found = self.device.torch, list[Memory]()
        try:
            with torch.cuda.stream(self.handle):
                for nbytes in sizes:
                    tensor = torch.empty(max(1, nbytes), dtype=torch.uint8, device=self._place)
                    found.append(Memory(int(tensor.data_ptr()), nbytes, tensor))
        except torch.cuda.OutOfMemoryError as error:
            known = self.device.memory()
            raise ExecutionError(
                f"memory of {self.device.name}",
                f"asked for {sizes[len(found)]} bytes and {known.free} of {known.total} are free; use smaller shapes "
                "or fewer sessions",
            ) from error
        return found

    def upload(self, target: Memory, offset: int, source: np.ndarray) -> None:
        """See Stream: waits, since the driver may still read pinned memory when the call returns."""
        self.driver.upload(target.address + offset, source.ctypes.data, source.nbytes, self.number)
        self.synchronise()

    def pinned(self, nbytes: int) -> np.ndarray:
        """See Stream."""
        tensor = self.device.torch.empty(max(1, nbytes), dtype=self.device.torch.uint8, pin_memory=True)
        found: np.ndarray = tensor.numpy()[:nbytes]  # which keeps the tensor
        return found

    def send(self, target: Memory, source: np.ndarray) -> None:
        """See Stream."""
        self.driver.upload(target.address, source.ctypes.data, source.nbytes, self.number)

    def download(self, source: Memory, offset: int, target: np.ndarray) -> None:
        """See Stream."""
        self.driver.download(target.ctypes.data, source.address + offset, target.nbytes, self.number)
        self.synchronise()

    def copy(self, target: Memory, target_offset: int, source: Memory, source_offset: int, nbytes: int) -> None:
        """See Stream."""
        if nbytes:
            self.driver.copy(target.address + target_offset, source.address + source_offset, nbytes, self.number)

    def copy_all(self, copies: Sequence[tuple[Memory, int, Memory, int, int]]) -> None:
        """See Stream."""
        ranges = [(t.address + to, s.address + so, nbytes) for t, to, s, so, nbytes in copies if nbytes]
        self.driver.copy_all(ranges, self.number)

    def fill(self, target: Memory, byte: int) -> None:
        """See Stream."""
        if target.nbytes:
            self.driver.fill(target.address, byte, target.nbytes, self.number)

    def prepare(
        self, kernel: LoadedKernel, programs: int, spans: Sequence[Span], numbers: Sequence[int], where: str
    ) -> Prepared:
        """See Stream."""
        if programs > _MAX_PROGRAMS:
            raise ExecutionError(where, f"{programs} programs, more than the {_MAX_PROGRAMS} of a launch")
        workspace = self.workspace(kernel.kernel, programs)
        spans = [*spans, *workspace.spans]
        types = [type_ for _, type_ in kernel.kernel.arguments[len(spans) :]]
        if unknown := [type_ for type_ in types if type_ not in _C_TYPES]:
            raise ExecutionError(where, f"kernel {kernel.kernel.name}: numbers of type {unknown[0]} cannot be passed")
        values = [_C_TYPES[type_](number) for type_, number in zip(types, numbers, strict=True)]
        function: _Function = kernel.handle
        values += self._described(kernel.kernel, function.image, spans)
        pointers = [ctypes.c_void_p(span.address) for span in spans]
        return _CudaLaunch(self, function, programs, [*pointers, *values], workspace)

    def _described(self, kernel: DeviceKernel, image: DeviceImage, spans: Sequence[Span]) -> Iterator[Any]:
        """The parameters of a kernel that describe tensors: for each its map, sizes and strides."""
        places = {name: span for (name, _), span in zip(kernel.arguments, spans, strict=False)}
        for each in image.maps:
            tensor, span = each.tensor, places[each.tensor.argument]
            shape = tensor.sizes(span.nbytes, each.itemsize)
            yield self.driver.tensor_map(each, span.address + tensor.offset * each.itemsize, shape)
            yield from map(ctypes.c_int32, shape)
            yield from map(ctypes.c_int64, tensor.strides)

    def prepare_product(self, product: TorchCall, spans: Sequence[Span], where: str) -> Prepared:
        """See Stream: cuBLAS or cuDNN, in this stream."""
        torch = self.device.torch
        buffers = [torch.as_tensor(_Bytes(span), device=self._place) for span in spans]
        return torch_launch(torch, product, buffers, lambda: torch.cuda.stream(self.handle), where)

    def capture(self, launches: Sequence[Prepared]) -> Graph:
        """See Stream."""
        return _CudaGraph(self, launches)

    def event(self) -> Event:
        """See Stream."""
        return _CudaEvent(self)

    def await_caller(self) -> None:
        """See Stream: of torch's streams the current one is the caller's."""
        current = self.device.torch.cuda.current_stream(self.device.gpu.index)
        if not current.query():  # else all its work is done
            self.handle.wait_stream(current)

    def hold(self) -> None:
        """See Stream: torch has a kernel that does nothing for so many cycles."""
        with self.device.torch.cuda.stream(self.handle):
            self.device.torch.cuda._sleep(_HELD)

    def synchronise(self) -> None:
        """See Stream."""
        self.driver.synchronise(self.number)
