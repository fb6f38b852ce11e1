"""Load a model file without trusting it: sizes are bounded, external data stays in the model's folder."""

from __future__ import annotations

import mmap
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from fusible.compiler.frontend.raw_data import cut_out
from fusible.compiler.frontend.text_fields import check_text
from fusible.compiler.ir.constant import Constant, FileRange, OpenFile, Unread
from fusible.compiler.ir.types import DType
from fusible.compiler.options import Limits
from fusible.errors import InvalidModel, LimitExceeded, UsageError

__all__ = ["LoadedModel", "dtype_of", "load_model", "tensor_constant"]

_DTYPES: dict[int, DType] = {
    TensorProto.FLOAT: DType.F32,
    TensorProto.UINT8: DType.U8,
    TensorProto.INT8: DType.I8,
    TensorProto.UINT16: DType.U16,
    TensorProto.INT16: DType.I16,
    TensorProto.INT32: DType.I32,
    TensorProto.INT64: DType.I64,
    TensorProto.STRING: DType.STRING,
    TensorProto.BOOL: DType.BOOL,
    TensorProto.FLOAT16: DType.F16,
    TensorProto.DOUBLE: DType.F64,
    TensorProto.UINT32: DType.U32,
    TensorProto.UINT64: DType.U64,
    TensorProto.COMPLEX64: DType.C64,
    TensorProto.COMPLEX128: DType.C128,
    TensorProto.BFLOAT16: DType.BF16,
    TensorProto.FLOAT8E4M3FN: DType.F8E4M3FN,
    TensorProto.FLOAT8E4M3FNUZ: DType.F8E4M3FNUZ,
    TensorProto.FLOAT8E5M2: DType.F8E5M2,
    TensorProto.FLOAT8E5M2FNUZ: DType.F8E5M2FNUZ,
    TensorProto.UINT4: DType.U4,
    TensorProto.INT4: DType.I4,
    TensorProto.FLOAT4E2M1: DType.F4E2M1,
    TensorProto.FLOAT8E8M0: DType.F8E8M0,
    TensorProto.UINT2: DType.U2,
    TensorProto.INT2: DType.I2,
}
_TO_ONNX = {d: n for n, d in _DTYPES.items()}
_BITS = {
    DType.U4: 4, DType.I4: 4, DType.F4E2M1: 4, DType.U2: 2, DType.I2: 2,
}  # fmt: skip
_MAPPED_BYTES = 1 << 20  # smaller files are read and parsed as they are
_DATA_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A parsed model and the folder that its external data must lie in (None: it may have none).

    raw_data: of initialisers of the main graph, by number; the message lacks them. file: where they lie, if they are to
    be read when they are wanted, and `places` at which offsets.
    """

    proto: onnx.ModelProto
    folder: Path | None
    name: str
    raw_data: Mapping[int, memoryview] = field(default_factory=dict)
    file: OpenFile | None = None
    places: Mapping[int, int] = field(default_factory=dict)

    def unread(self, number: int) -> Unread | None:
        """Where the raw data of an initialiser lie in the file; None if they are in memory."""
        if self.file is None or number not in self.places or sys.byteorder != "little":
            return None
        return Unread(self.file, self.places[number], len(self.raw_data[number]))


def dtype_of(code: int, where: str) -> DType:
    """The element type of an ONNX data type number. Raises InvalidModel for an unknown one."""
    found = _DTYPES.get(code)
    if found is None:
        raise InvalidModel(f"{where}: element type {code} is no ONNX data type")
    return found


def onnx_dtype(dtype: DType) -> int:
    """The ONNX data type number of an element type."""
    return _TO_ONNX[dtype]


def load_model(model: str | os.PathLike[str] | bytes | onnx.ModelProto, limits: Limits) -> LoadedModel:
    """Parse a model given as a path, bytes or a ModelProto; external data is not read.

    A large file stays open, and its weights are read when they are wanted. Raises InvalidModel if it cannot be read or
    parsed, LimitExceeded("model_bytes").
    """
    if isinstance(model, onnx.ModelProto):
        check_text(model)
        return LoadedModel(model, None, "model")
    if isinstance(model, bytes):
        return _parsed(model, "the model", limits, None, "model")
    if not isinstance(model, (str, os.PathLike)):
        raise UsageError(f"a model is a path, bytes or an onnx.ModelProto, got {type(model).__name__}")
    path = Path(model)
    try:
        info = path.stat()
        if info.st_size > limits.model_bytes:
            raise LimitExceeded("model_bytes", info.st_size, limits.model_bytes, str(path))
        file = OpenFile(path) if stat.S_ISREG(info.st_mode) and info.st_size >= _MAPPED_BYTES else None
        data = path.read_bytes() if file is None else file.mapped()
    except OSError as error:
        raise InvalidModel(f"model file {str(path)!r} cannot be read: {error.strerror or error}") from error
    loaded = _parsed(data, f"model file {str(path)!r}", limits, path.resolve().parent, path.stem)
    if file is None or not loaded.raw_data:
        return loaded
    begin = _address(data)
    places = {number: _address(view) - begin for number, view in loaded.raw_data.items()}
    return replace(loaded, file=file, places=places)


def _address(memory: bytes | mmap.mmap | memoryview) -> int:
    return int(np.frombuffer(memory, np.uint8).ctypes.data)


def _parsed(data: bytes | mmap.mmap, what: str, limits: Limits, folder: Path | None, name: str) -> LoadedModel:
    if len(data) > limits.model_bytes:
        raise LimitExceeded("model_bytes", len(data), limits.model_bytes, what)
    if not data:
        raise InvalidModel(f"{what} is empty")
    cut = cut_out(memoryview(data)) if len(data) >= _MAPPED_BYTES else None
    try:
        content = memoryview(data) if cut is None else cut.message
        proto: onnx.ModelProto = onnx.ModelProto.FromString(content)  # type: ignore[arg-type]  # it takes any buffer
    except DecodeError as error:
        raise InvalidModel(f"{what} is no ONNX model: {error}") from error
    if not proto.HasField("graph"):
        raise InvalidModel(f"{what} is no ONNX model: it has no graph")
    check_text(proto)
    return LoadedModel(proto, folder, name, {} if cut is None else cut.data)


def tensor_constant(
    tensor: TensorProto,
    folder: Path | None,
    limits: Limits,
    where: str,
    raw: bytes | memoryview = b"",
    unread: Unread | None = None,
) -> Constant:
    """A checked constant from a TensorProto; external data becomes a file range that is mapped on demand.

    raw: the raw data, if the message lacks them. unread: where they can be read later. Raises InvalidModel if shape,
    type and data contradict each other or the data escape the folder.
    """
    dtype = dtype_of(tensor.data_type, where)
    shape = _checked_dims(tensor, dtype, limits, where)
    count = int(np.prod(shape, dtype=object)) if shape else 1
    if tensor.data_location == TensorProto.EXTERNAL:
        return _external(tensor, dtype, shape, count, folder, where)
    filled = [f for f in _DATA_FIELDS if len(getattr(tensor, f))]
    raw = raw or tensor.raw_data  # each access is a copy
    if raw:
        if filled:
            raise InvalidModel(f"{where}: has raw_data and {filled[0]}; only one may be filled")
        _check_length(len(raw), _stored_bytes(dtype, count), "bytes of raw_data", where)
        if dtype is DType.STRING:
            raise InvalidModel(f"{where}: a string tensor cannot use raw_data")
        if dtype not in _BITS and unread is not None:
            return Constant(unread, dtype.numpy, shape)
        if dtype not in _BITS:
            array = _of_bytes(raw, dtype).reshape(shape)
            return Constant(array if isinstance(raw, bytes) else array.copy())
        tensor.raw_data = bytes(raw)
    else:
        if len(filled) > 1:
            raise InvalidModel(f"{where}: has both {filled[0]} and {filled[1]}; only one may be filled")
        _check_length(len(getattr(tensor, filled[0])) if filled else 0, _typed_length(dtype, count), "elements", where)
    return Constant(_decode(tensor, dtype, shape, where))


def _of_bytes(raw: bytes | memoryview, dtype: DType) -> np.ndarray:
    """The elements of little-endian data, which stay where they are if the machine stores them so."""
    array = np.frombuffer(raw, dtype.numpy)
    return array if sys.byteorder == "little" else array.byteswap()


def _decode(tensor: TensorProto, dtype: DType, shape: tuple[int, ...], where: str) -> np.ndarray:
    if dtype is DType.STRING:
        texts = [s.decode("utf-8", "surrogateescape") for s in tensor.string_data]
        return np.array(texts, dtype=object).reshape(shape)
    try:
        array = np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidModel(f"{where}: the data cannot be decoded: {error}") from error
    if array.shape != shape or array.dtype != dtype.numpy:
        raise InvalidModel(
            f"{where}: the data decode to {array.dtype}{list(array.shape)}, not {dtype.value}{list(shape)}"
        )
    return array


def _checked_dims(tensor: TensorProto, dtype: DType, limits: Limits, where: str) -> tuple[int, ...]:
    shape = tuple(int(d) for d in tensor.dims)
    if len(shape) > 64:
        raise LimitExceeded("rank", len(shape), 64, where)
    if any(d < 0 for d in shape):
        raise InvalidModel(f"{where}: negative dimension in {list(shape)}")
    nbytes = int(np.prod(shape, dtype=object)) * dtype.numpy.itemsize if shape else dtype.numpy.itemsize
    if nbytes > limits.tensor_bytes:
        raise LimitExceeded("tensor_bytes", nbytes, limits.tensor_bytes, where)
    return shape


def _stored_bytes(dtype: DType, count: int) -> int:
    return (count * _BITS[dtype] + 7) // 8 if dtype in _BITS else count * dtype.numpy.itemsize


def _typed_length(dtype: DType, count: int) -> int:
    if dtype in _BITS:
        # Packed, two (or four) to a byte, each byte one int32.
        return (count * _BITS[dtype] + 7) // 8
    return 2 * count if dtype.is_complex else count


def _check_length(found: int, wanted: int, what: str, where: str) -> None:
    if found != wanted:
        raise InvalidModel(f"{where}: the shape needs {wanted} {what}, the file holds {found}")


def _external(
    tensor: TensorProto, dtype: DType, shape: tuple[int, ...], count: int, folder: Path | None, where: str
) -> Constant:
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise InvalidModel(f"{where}: external data {location!r} need a model given by its path, not as bytes")
    if dtype is DType.STRING or dtype in _BITS:
        raise InvalidModel(f"{where}: external data of type {dtype.value} are not allowed; store them in the model")
    path, info = contained_file(folder, location, where)
    try:
        offset = int(entries.get("offset") or 0)
        nbytes = int(entries["length"]) if "length" in entries else _stored_bytes(dtype, count)
    except ValueError as error:
        raise InvalidModel(f"{where}: external data offset or length is no number") from error
    _check_length(nbytes, _stored_bytes(dtype, count), "bytes of external data", where)
    if offset < 0 or offset + nbytes > info.st_size:
        raise InvalidModel(
            f"{where}: external data lie at bytes {offset}..{offset + nbytes} of {location!r}, which has {info.st_size}"
        )
    source = FileRange(path, offset, nbytes, (info.st_dev, info.st_ino, info.st_mtime_ns))
    return Constant(source, dtype.numpy, shape)


def contained_file(folder: Path, location: str, where: str) -> tuple[Path, os.stat_result]:
    """The regular file `location` inside `folder`, which no link of either kind leads out of."""
    relative = Path(location)
    refused = f"{where}: external data {location!r} are refused: "
    if not location or "\0" in location:
        raise InvalidModel(refused + "there is no file name")
    if relative.is_absolute() or ".." in relative.parts:
        raise InvalidModel(refused + "the path must be relative and stay in the model's folder")
    root = folder.resolve()
    path = root / relative
    try:
        resolved = path.resolve(strict=True)
        if not resolved.is_relative_to(root):
            raise InvalidModel(refused + "a symbolic link leads out of the model's folder")
        info = resolved.stat()
    except (OSError, RuntimeError) as error:
        raise InvalidModel(f"{where}: external data file {location!r} cannot be read: {error}") from error
    if not stat.S_ISREG(info.st_mode):
        raise InvalidModel(refused + "it is no regular file")
    if info.st_nlink > 1:
        raise InvalidModel(refused + "it has several hard links, so it may lie outside the model's folder; copy it")
    return resolved, info
