"""Constant tensors: an array in memory, or a range of a file that is mapped when first needed."""

from __future__ import annotations

import hashlib
import mmap
import os
import weakref
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fusible.errors import InvalidModel

__all__ = ["Constant", "FileRange", "OpenFile", "Unread"]


@dataclass(frozen=True, slots=True)
class FileRange:
    """`nbytes` bytes of little-endian, C-ordered data at `offset` of `path` (already checked to exist)."""

    path: Path
    offset: int
    nbytes: int
    identity: tuple[int, int, int]  # device, inode, modification time in ns: the cheap first identity


class OpenFile:
    """A file that is read while a model is compiled, and closed when nothing refers to it that is still to be read."""

    def __init__(self, path: Path) -> None:
        """Open a regular file. Raises OSError."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self._identity = self._now()

    def mapped(self) -> mmap.mmap:
        """All of it as memory. Raises OSError."""
        return mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)

    def read(self, offset: int, nbytes: int) -> np.ndarray:
        """Bytes as uint8. Raises InvalidModel if the file was changed since it was opened, or cannot be read."""
        buffer, done = np.empty(nbytes, np.uint8), 0
        try:
            while done < nbytes and (count := os.preadv(self._descriptor, [buffer.data[done:]], offset + done)):
                done += count
            changed = done < nbytes or self._now() != self._identity
        except OSError as error:
            raise InvalidModel(f"model file {str(self.path)!r} cannot be read: {error.strerror or error}") from error
        if changed:
            raise InvalidModel(f"model file {str(self.path)!r} was changed while it was compiled; compile it again")
        return buffer

    def _now(self) -> tuple[int, int]:
        info = os.fstat(self._descriptor)
        return info.st_size, info.st_mtime_ns


@dataclass(frozen=True, slots=True)
class Unread:
    """`nbytes` bytes of little-endian, C-ordered data at `offset` of a file, which are read when they are wanted."""

    file: OpenFile
    offset: int
    nbytes: int


class Constant:
    """An immutable tensor. `array` never changes: it is returned read-only."""

    def __init__(
        self, source: np.ndarray | FileRange | Unread, dtype: np.dtype | None = None, shape: tuple[int, ...] = ()
    ):
        """Wrap an array, or a file range of the given storage dtype and shape."""
        if not isinstance(source, np.ndarray):
            if dtype is None:
                raise ValueError("a file range needs a dtype")
            self.dtype, self.shape = dtype, shape
        else:
            self.dtype, self.shape = source.dtype, source.shape
        self.source = source

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=object)) if self.shape else 1

    @property
    def nbytes(self) -> int:
        """The size of the stored elements in bytes."""
        return self.size * self.dtype.itemsize

    @cached_property
    def array(self) -> np.ndarray:
        """The elements, read-only; a file range is memory-mapped, not read."""
        if isinstance(self.source, FileRange):
            result = _map_range(self.source, self.dtype, self.shape)
        elif isinstance(self.source, Unread):
            self.source = self._read(self.source)
            result = self.source.view()
        else:
            result = self.source.view()
        result.flags.writeable = False
        return result

    @property
    def content(self) -> np.ndarray:
        """The elements for one who stores them in another form: what is not yet read is not kept.

        Raises InvalidModel as `OpenFile.read` does; so does `array`.
        """
        source = self.source
        return self._read(source) if isinstance(source, Unread) else self.array

    def _read(self, source: Unread) -> np.ndarray:
        return source.file.read(source.offset, source.nbytes).view(self.dtype).reshape(self.shape)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of dtype, shape and content."""
        header = f"{self.dtype}{self.shape}".encode()
        if self.dtype == object:
            body = b"".join(len(s).to_bytes(8, "little") + s for s in (_bytes(v) for v in self.array.ravel()))
        else:
            body = np.ascontiguousarray(self.content).tobytes()
        return hashlib.sha256(header + body).hexdigest()

    @property
    def available(self) -> bool:
        """False for a placeholder, of which only dtype, shape and digest are known."""
        return True

    def __mul__(self, other: Constant | float | int) -> np.ndarray:
        """Element-wise product as an array of this constant's dtype (a convenience for rules)."""
        right = other.array if isinstance(other, Constant) else other
        return np.asarray(self.array * right, dtype=self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.array, dtype=dtype)

    def __repr__(self) -> str:
        return f"Constant({self.dtype}{list(self.shape)})"


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


def _map_range(source: FileRange, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if source.nbytes == 0:
        return np.empty(shape, dtype)
    start = source.offset - source.offset % mmap.ALLOCATIONGRANULARITY
    with source.path.open("rb") as file:
        mapped = mmap.mmap(
            file.fileno(), source.nbytes + source.offset - start, access=mmap.ACCESS_READ, offset=start
        )
    flat = np.frombuffer(mapped, dtype=np.uint8, count=source.nbytes, offset=source.offset - start)
    return flat.view(dtype).reshape(shape)
