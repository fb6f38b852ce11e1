"""The functions of CUDA's driver that device sessions need, called through ctypes.

Signatures and numbers: CUDA Driver API reference, "Module Management", "Execution Control", "Memory Management",
"Context Management", "Primary Context Management", "Stream Management". Functions whose name has the suffix _v2 in the
library are those that the reference lists without it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_char_p, c_int, c_size_t, c_ubyte, c_uint, c_uint64, c_void_p
from typing import Any

from fusible.errors import DeviceError
from fusible.runtime.devices.code import TensorMap

__all__ = ["DRIVER_LIBRARY", "CudaDriver", "DriverLaunch"]

DRIVER_LIBRARY = "libcuda.so.1"
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_PROGRAMMATIC_STREAM_SERIALIZATION = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
_WITHOUT_ASKING = 48 * 1024  # bytes of dynamic shared memory that any kernel may have
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuGetErrorName": (c_int, c_void_p),
    "cuGetErrorString": (c_int, c_void_p),
    "cuDeviceGet": (c_void_p, c_int),
    "cuDevicePrimaryCtxRetain": (c_void_p, c_int),
    "cuCtxGetCurrent": (c_void_p,),
    "cuCtxSetCurrent": (c_void_p,),
    "cuModuleLoadData": (c_void_p, c_char_p),
    "cuModuleGetFunction": (c_void_p, c_void_p, c_char_p),
    "cuFuncSetAttribute": (c_void_p, c_int, c_int),
    "cuLaunchKernelEx": (c_void_p, c_void_p, c_void_p, c_void_p),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuMemcpyDtoDAsync_v2": (c_uint64, c_uint64, c_size_t, c_void_p),
    "cuMemsetD8Async": (c_uint64, c_ubyte, c_size_t, c_void_p),
    "cuStreamCreate": (c_void_p, c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuTensorMapEncodeTiled": (c_void_p, c_int, c_uint, *(c_void_p,) * 5, *(c_int,) * 4),
}
_NEW = frozenset({"cuTensorMapEncodeTiled"})  # since CUDA 12.0: called for kernels alone that GPUs of then have
_MAP_BYTES, _MAP_ALIGNMENT = 128, 64  # of a CUtensorMap
_NO_INTERLEAVE = 0  # CU_TENSOR_MAP_INTERLEAVE_NONE
_PROMOTION_128_BYTES = 2  # CU_TENSOR_MAP_L2_PROMOTION_L2_128B
_FILL_WITH_ZERO = 0  # CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE: outside the tensor


class _LaunchAttribute(ctypes.Structure):
    """CUlaunchAttribute: a kind, and 64 bytes of which ours use the first number."""

    _fields_ = (("kind", c_int), ("_pad", c_int), ("value", c_int * 16))

    def __init__(self, kind: int, value: tuple[int, ...]) -> None:
        super().__init__(kind, 0, value)


class _LaunchConfig(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        *((f"{what}_{axis}", c_uint) for what in ("grid", "block") for axis in "xyz"),
        ("shared", c_uint),
        ("stream", c_void_p),
        ("attributes", ctypes.POINTER(_LaunchAttribute)),
        ("count", c_uint),
    )


class DriverLaunch:
    """A launch that can be made again and again."""

    def __init__(self, driver: CudaDriver, function: int, config: _LaunchConfig, attributes: Any) -> None:
        self._call, self._function = driver._call, function
        self._config, self._attributes = config, attributes  # the first points to the second

    def run(self, parameters: Any) -> None:
        """Put the launch into its stream. parameters: an array of pointers to the arguments."""
        self._call("cuLaunchKernelEx", ctypes.byref(self._config), self._function, parameters, None)


class CudaDriver:
    """The driver's library. Every function raises DeviceError with the driver's own words if it fails."""

    def __init__(self, library: str = DRIVER_LIBRARY) -> None:
        """Load the library and start it. Raises DeviceError if it is not there."""
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise DeviceError(f"CUDA's driver cannot be loaded: {error}; install NVIDIA's driver") from error
        for name, types in _SIGNATURES.items():
            if name in _NEW and not hasattr(self._library, name):
                continue
            function = getattr(self._library, name)
            function.argtypes, function.restype = list(types), c_int
        self._call("cuInit", 0)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            raise DeviceError(f"CUDA's driver refuses {name}: {self._told(code)}")

    def _told(self, code: int) -> str:
        """The name and the description of an error."""
        texts = []
        for function in (self._library.cuGetErrorName, self._library.cuGetErrorString):
            text = c_char_p()
            known = function(code, ctypes.byref(text)) == 0 and text.value is not None
            texts.append((text.value or b"").decode() if known else "unknown")
        return f"{texts[0]} ({code}): {texts[1]}"

    def primary_context(self, index: int) -> int:
        """The context of a GPU that torch works in too; it stays for as long as the process runs."""
        device, context = c_int(), c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), index)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        return context.value or 0

    def current_context(self) -> int:
        """The context of the calling thread, 0 for none."""
        context = c_void_p()
        self._call("cuCtxGetCurrent", ctypes.byref(context))
        return context.value or 0

    def set_context(self, context: int) -> None:
        """Give the calling thread another context."""
        self._call("cuCtxSetCurrent", context)

    def function(self, image: bytes, symbol: str, shared: int) -> int:
        """Load a cubin and return a function in it, which may have so much dynamic shared memory."""
        module, function = c_void_p(), c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), image)
        self._call("cuModuleGetFunction", ctypes.byref(function), module, symbol.encode())
        if shared > _WITHOUT_ASKING:
            self._call("cuFuncSetAttribute", function, _MAX_DYNAMIC_SHARED, shared)
        return function.value or 0

    def prepared(
        self, function: int, programs: int, threads: int, shared: int, stream: int, overlaps: bool
    ) -> DriverLaunch:
        """A launch of `programs` blocks in a stream. overlaps: it may begin before its predecessor has ended."""
        attributes = (_LaunchAttribute * 1)(_LaunchAttribute(_PROGRAMMATIC_STREAM_SERIALIZATION, (1,)))
        grid, block = (programs, 1, 1), (threads, 1, 1)
        config = _LaunchConfig(*grid, *block, shared, stream, attributes if overlaps else None, int(overlaps))
        return DriverLaunch(self, function, config, attributes)

    def tensor_map(self, tensor: TensorMap, address: int, shape: Sequence[int]) -> Any:
        """The 128 bytes that describe a tensor of a shape whose first element is at an address."""
        if not hasattr(self._library, "cuTensorMapEncodeTiled"):
            raise DeviceError("CUDA's driver cannot describe tensors: install NVIDIA's driver for CUDA 12.0 or later")
        memory = (c_ubyte * (_MAP_BYTES + _MAP_ALIGNMENT))()
        found = (c_ubyte * _MAP_BYTES).from_buffer(memory, -ctypes.addressof(memory) % _MAP_ALIGNMENT)
        strides, box = tensor.tensor.strides[-2::-1], tensor.box[::-1]
        rank = len(shape)
        sizes = (c_uint64 * rank)(*reversed(shape)), (c_uint64 * rank)(*(s * tensor.itemsize for s in strides))
        boxes = (c_uint * rank)(*box), (c_uint * rank)(*(1 for _ in box))
        options = _NO_INTERLEAVE, tensor.swizzle, _PROMOTION_128_BYTES, _FILL_WITH_ZERO
        self._call("cuTensorMapEncodeTiled", ctypes.byref(found), tensor.kind, rank, address, *sizes, *boxes, *options)
        return found

    def upload(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Copy host memory to the device."""
        self._call("cuMemcpyHtoDAsync_v2", target, source, nbytes, stream)

    def download(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Copy device memory to the host."""
        self._call("cuMemcpyDtoHAsync_v2", target, source, nbytes, stream)

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Copy device memory."""
        self._call("cuMemcpyDtoDAsync_v2", target, source, nbytes, stream)

    def copy_all(self, ranges: Sequence[tuple[int, int, int]], stream: int) -> None:
        """Copy ranges of device memory: targets, sources and bytes. Tens of them are a good part of a short run."""
        function = self._library.cuMemcpyDtoDAsync_v2
        for target, source, nbytes in ranges:
            if code := function(target, source, nbytes, stream):
                raise DeviceError(f"CUDA's driver refuses cuMemcpyDtoDAsync_v2: {self._told(code)}")

    def fill(self, target: int, byte: int, nbytes: int, stream: int) -> None:
        """Set bytes of device memory."""
        self._call("cuMemsetD8Async", target, byte, nbytes, stream)

    def make_stream(self) -> int:
        """A stream of the current context, which does not wait for the default one; it stays while the process runs."""
        stream = c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), _NON_BLOCKING)
        return stream.value or 0

    def synchronise(self, stream: int) -> None:
        """Wait for a stream; what went wrong in it shows here."""
        self._call("cuStreamSynchronize", stream)
