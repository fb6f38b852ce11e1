"""As much of torch as the CUDA layer of device sessions calls, over host memory and the driver of fake_cuda.c."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

__all__ = ["fake_torch"]

_NAMES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8")


class Dtype:
    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return f"torch.{self.name}"


class OutOfMemoryError(RuntimeError):
    """What torch raises for too large an allocation."""


class Tensor:
    """Memory of the fake GPU."""

    def __init__(self, array: np.ndarray, dtype: Dtype) -> None:
        self.array, self.dtype = array, dtype
        self.shape = array.shape

    def data_ptr(self) -> int:
        return int(self.array.ctypes.data)

    def numel(self) -> int:
        return self.array.size

    def numpy(self) -> np.ndarray:
        return self.array

    def contiguous(self) -> Tensor:
        return Tensor(np.ascontiguousarray(self.array), self.dtype)

    def clone(self) -> Tensor:
        raw = np.empty(self.array.nbytes + 64, np.uint8)
        start = -raw.ctypes.data % 64
        made = raw[start : start + self.array.nbytes].view(self.array.dtype).reshape(self.shape)
        made[...] = self.array
        return Tensor(made, self.dtype)

    def reshape(self, *shape: Any) -> Tensor:
        return Tensor(self.array.reshape(*shape), self.dtype)

    def view(self, dtype: Dtype) -> Tensor:
        return Tensor(self.array.view(dtype.name), dtype)

    def __getitem__(self, key: Any) -> Tensor:
        return Tensor(self.array[key], self.dtype)

    is_cuda = True

    def get_device(self) -> int:
        return 0

    def is_contiguous(self) -> bool:
        return self.array.flags.c_contiguous

    def is_neg(self) -> bool:
        return False

    def detach(self) -> Tensor:
        return Tensor(self.array, self.dtype)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **asked: Any) -> Tensor:
        return self


class _Current(threading.local):
    """The stream that a thread works in, as torch has it: one for each thread."""

    stream = 0


def fake_torch(driver: ctypes.CDLL, capability: tuple[int, int] = (9, 0), limit: int = 1 << 30) -> Any:
    """The module, for one GPU that allocates no more than `limit` bytes at once."""
    current = _Current()

    class Stream:
        def __init__(self, number: int, device: int) -> None:
            assert device == 0 and number > 0
            self.cuda_stream = number

        def wait_stream(self, other: object) -> None:
            assert other is default
            default.waited += 1

    class Default:
        """The stream that callers work in by default; something is under way in it each second time."""

        asked = waited = 0

        def query(self) -> bool:
            self.asked += 1
            return self.asked % 2 == 0

    default = Default()

    @contextmanager
    def stream(handle: Stream) -> Iterator[None]:
        before, current.stream = current.stream, handle.cuda_stream
        yield
        current.stream = before

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            self.time = 0.0

        def record(self, handle: Stream) -> None:
            self.time = time.perf_counter()

        def synchronize(self) -> None:
            """Everything is done at once."""

        def elapsed_time(self, later: Event) -> float:
            return (later.time - self.time) * 1000

    class CUDAGraph:
        def capture_begin(self, capture_error_mode: str) -> None:
            assert capture_error_mode == "thread_local" and current.stream
            driver.fake_capture_begin(current.stream)

        def capture_end(self) -> None:
            self.number = driver.fake_capture_end(current.stream)

        def replay(self) -> None:
            assert current.stream
            driver.fake_replay(self.number)

    def sleep(cycles: int) -> None:
        assert cycles > 0 and current.stream

    types = {name: Dtype(name) for name in _NAMES}

    def empty(count: int, dtype: Dtype, device: str = "cpu", pin_memory: bool = False) -> Tensor:
        if pin_memory:
            assert device == "cpu" and dtype is types["uint8"]
            return Tensor(np.empty(count, np.uint8), dtype)
        assert device == "cuda:0" and dtype is types["uint8"] and current.stream
        if count > limit:
            raise OutOfMemoryError(f"Tried to allocate {count}")
        return Tensor(np.empty(0, np.uint8), dtype) if count == 0 else Tensor(np.empty(count, np.uint8), dtype).clone()

    cuda = SimpleNamespace(
        is_available=lambda: True, current_device=lambda: 0, get_device_capability=lambda index: capability,
        get_device_name=lambda index: "Fake GPU", mem_get_info=lambda index: (limit, 2 * limit), ExternalStream=Stream,
        stream=stream, current_stream=lambda index: default, Event=Event, CUDAGraph=CUDAGraph,
        OutOfMemoryError=OutOfMemoryError, _sleep=sleep,
    )  # fmt: skip
    version = SimpleNamespace(cuda="12.8")
    return SimpleNamespace(
        cuda=cuda,
        version=version,
        __version__="2.11",
        empty=empty,
        Tensor=Tensor,
        from_dlpack=lambda given: given.__dlpack__(),
        **types,
    )
