"""Arrays in device memory: element type, shape and strides over a range of bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from fusible.errors import DeviceError, SignatureError
from fusible.runtime.devices.device import Device, Memory, Span, Stream
from fusible.runtime.plan import PlanValue
from fusible.runtime.signature import DTYPES
from fusible.runtime.views import block_of, ordered_strides, row_strides

__all__ = ["DeviceArray", "Twin", "copy_arrays", "device_view", "imported", "is_stored", "row_major"]


@dataclass(frozen=True, slots=True, eq=False)
class Twin:
    """Host memory that stands for a range of device memory: its bytes, and the array over them."""

    flat: np.ndarray
    array: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class DeviceArray:
    """An array on a device; NumPy's names for what they mean there too.

    offset: of the first element in the memory, in bytes. strides: in bytes, never negative. An array that a session
    gives to its caller has `__dlpack__`: `torch.from_dlpack(array)` shares its memory.
    """

    device: Device
    memory: Memory
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """The rank."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of all elements."""
        return self.size * self.dtype.itemsize

    @property
    def extent(self) -> int:
        """The bytes from the first element to the end of the last one: `nbytes`, and gaps if it has any."""
        if not self.size:
            return 0
        return self.dtype.itemsize + sum((d - 1) * s for d, s in zip(self.shape, self.strides, strict=True))

    @property
    def contiguous(self) -> bool:
        """True if it is row-major with no gaps."""
        return _is_row_major(self.shape, self.strides, self.dtype.itemsize)

    @property
    def span(self) -> Span:
        """What a kernel may reach of it."""
        return Span(self.memory.address + self.offset, self.extent, self.dtype.itemsize)

    def overlaps(self, other: DeviceArray) -> bool:
        """True if the ranges of memory from first to last element have bytes in common."""
        first, second = self.range, other.range
        return first[0] < second[1] and second[0] < first[1]

    @property
    def range(self) -> tuple[int, int]:
        """The addresses from the first element to behind the last."""
        span = self.span
        return span.address, span.address + span.nbytes

    def reshaped(self, shape: tuple[int, ...]) -> DeviceArray:
        """The same row-major memory under another shape of as many elements."""
        strides = row_strides(shape, self.dtype.itemsize)
        return DeviceArray(self.device, self.memory, self.offset, self.dtype, shape, strides)

    def twin(self) -> Twin:
        """A host array of the same shape and strides, not initialised."""
        flat = np.empty(self.extent, np.uint8)
        return Twin(flat, np.ndarray(self.shape, self.dtype, flat, 0, self.strides if self.size else None))

    def download(self, stream: Stream) -> Twin:
        """A host array with the content, stored as it is here. Waits for the stream."""
        twin = self.twin()
        if self.size:
            stream.download(self.memory, self.offset, twin.flat)
        return twin

    def writable_twin(self, stream: Stream) -> Twin:
        """A twin whose upload changes nothing but this array: what lies in gaps belongs to others."""
        return self.twin() if self.extent == self.nbytes else self.download(stream)

    def upload_twin(self, twin: Twin, stream: Stream) -> None:
        """Write what a `writable_twin` holds."""
        if self.size:
            stream.upload(self.memory, self.offset, twin.flat)

    @classmethod
    def whole(cls, device: Device, memory: Memory, value: PlanValue, shape: tuple[int, ...]) -> DeviceArray:
        """A value of a shape over memory of its own, its dimensions in the order in which they are stored."""
        dtype = DTYPES[value.dtype]
        return cls(device, memory, 0, dtype, shape, ordered_strides(shape, dtype.itemsize, value.order))

    def copy_to(self, target: DeviceArray, stream: Stream) -> None:
        """Write the content into another array of this shape and element type."""
        if self.contiguous and target.contiguous:
            stream.copy(target.memory, target.offset, self.memory, self.offset, self.nbytes)
        else:
            target.upload(self.download(stream).array, stream)

    def upload(self, source: np.ndarray, stream: Stream) -> None:
        """Write the content of a host array of this shape and element type."""
        if self.contiguous and source.flags.c_contiguous:
            if self.size:
                stream.upload(self.memory, self.offset, source)
            return
        twin = self.writable_twin(stream)
        np.copyto(twin.array, source)
        self.upload_twin(twin, stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        found: tuple[int, int] = self._exported().__dlpack_device__()
        return found

    def __dlpack__(self, **asked: Any) -> Any:
        return self._exported().__dlpack__(**asked)

    def _exported(self) -> Any:
        if not self.contiguous:
            raise DeviceError("only row-major arrays are handed over by DLPack")
        return self.device.export_array(self.memory, self.offset, self.dtype, self.shape)

    def __repr__(self) -> str:
        return f"<DeviceArray {self.dtype}{list(self.shape)} on {self.device.name}>"


def row_major(device: Device, memory: Memory, dtype: np.dtype, shape: tuple[int, ...], offset: int = 0) -> DeviceArray:
    """An array over memory, row-major, that begins `offset` bytes into it."""
    return DeviceArray(device, memory, offset, dtype, shape, row_strides(shape, dtype.itemsize))


def is_stored(array: DeviceArray, value: PlanValue) -> bool:
    """True if an array lies as kernels find the value: row-major, or its dimensions in the order of the value."""
    if value.order is None:
        return array.contiguous
    return array.strides == ordered_strides(array.shape, array.dtype.itemsize, value.order)


def imported(device: Device, stream: Stream, name: str, value: object, *, copies: bool = True) -> DeviceArray:
    """An array of the caller's on the device. name: of what it is given for. Raises SignatureError, DeviceError."""
    found = device.import_array(value, stream, copies=copies)
    if found is None:
        expected = f"a NumPy array, or an array on {device.name}"
        raise SignatureError(name, expected, f"a {type(value).__name__} that lies elsewhere")
    memory, dtype, shape = found
    return row_major(device, memory, dtype, shape)


def device_view(device: Device, arena: Memory, start: int, value: PlanValue, env: Mapping[str, int]) -> DeviceArray:
    """An arena value as an array of its logical shape; `start`: where its buffer begins. Raises ExecutionError."""
    block = block_of(value, env)
    return DeviceArray(device, arena, start + block.first, DTYPES[value.dtype], block.shape, block.strides)


def copy_arrays(pairs: Iterable[tuple[DeviceArray, DeviceArray]], stream: Stream) -> None:
    """Write the content of each first array into the second, of the same shape and element type; they are apart."""
    copies = []
    for source, target in pairs:
        if source.contiguous and target.contiguous:
            copies.append((target.memory, target.offset, source.memory, source.offset, source.nbytes))
        else:
            source.copy_to(target, stream)
    stream.copy_all(copies)


@lru_cache(maxsize=4096)
def _is_row_major(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Pure, and remembered: a run asks it of the same few shapes again and again."""
    wanted = row_strides(shape, itemsize)
    return math.prod(shape) <= 1 or all(d == 1 or s == w for d, s, w in zip(shape, strides, wanted, strict=True))


def device_range(array: Any) -> tuple[int, int]:
    """The addresses of an array on a device; (0, 0) for the host's, which are written when nothing reads them."""
    return array.range if isinstance(array, DeviceArray) else (0, 0)


def overlap_on_device(bound: Any, other: Any) -> bool:
    """True for ranges of device memory that overlap."""
    return isinstance(bound, DeviceArray) and isinstance(other, DeviceArray) and bound.overlaps(other)
