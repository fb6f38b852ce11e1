"""Triton's tensor IR (TTIR) as data: types, values, operations, regions.

Only what the text of a module says; what an operation means is known to those who lower it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from fusible.errors import LoweringError

__all__ = [
    "Block",
    "Descriptor",
    "Element",
    "Function",
    "Operation",
    "Pointer",
    "Region",
    "Scalar",
    "Tensor",
    "Type",
    "Value",
    "element_of",
    "refuse",
    "shape_of",
    "walk",
]


class Element(Enum):
    """The scalar types, by the names MLIR gives them."""

    I1 = "i1"
    I8 = "i8"
    I16 = "i16"
    I32 = "i32"
    I64 = "i64"
    INDEX = "index"
    F8E4M3 = "f8E4M3FN"
    F8E5M2 = "f8E5M2"
    F16 = "f16"
    BF16 = "bf16"
    F32 = "f32"
    F64 = "f64"

    @property
    def is_float(self) -> bool:
        """Whether it is a floating-point type."""
        return self.value[0] in "fb"

    @property
    def bits(self) -> int:
        """How many bits an element has; an i1 one, stored in a byte."""
        if self is Element.INDEX:
            return 64
        digits = self.value.lstrip("bfi")
        return int(digits.split("E")[0])

    @property
    def bytes(self) -> int:
        """How many bytes an element takes in memory."""
        return max(1, self.bits // 8)


@dataclass(frozen=True, slots=True)
class Pointer:
    """The address of elements of one type."""

    pointee: Scalar

    @property
    def bytes(self) -> int:
        """How many bytes an address takes."""
        return 8


Scalar = Element | Pointer


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tile: `shape` (powers of two) of `element`."""

    shape: tuple[int, ...]
    element: Scalar

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A tensor in memory with shape and strides, read and written by blocks of the type `block`."""

    block: Tensor


Type = Element | Pointer | Tensor | Descriptor


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A value in SSA form; identity is the object. name: as printed, with no `%`."""

    name: str
    type: Type


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One operation.

    attributes: name -> text of the value, `: i32` and quotation marks removed. words: what stands bare in the text,
    as the predicate of a comparison. successors: labels of blocks with the values handed to them. line: in the
    TTIR; location: `file:line` in the Python source, or empty.
    """

    name: str
    operands: tuple[Value, ...]
    results: tuple[Value, ...]
    attributes: Mapping[str, str]
    words: tuple[str, ...]
    regions: tuple[Region, ...]
    successors: tuple[tuple[str, tuple[Value, ...]], ...]
    line: int
    location: str


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Operations one after the other; `arguments` are bound by who enters the block."""

    label: str
    arguments: tuple[Value, ...]
    operations: list[Operation] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Blocks; the first is the entry. All but a function's have one."""

    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A kernel: its name, its arguments and its body."""

    name: str
    arguments: tuple[Value, ...]
    body: Region


def element_of(type: Type) -> Scalar:
    """Return the type of one element of a tensor, or a scalar type itself."""
    if isinstance(type, Descriptor):
        return type.block.element
    return type.element if isinstance(type, Tensor) else type


def shape_of(type: Type) -> tuple[int, ...]:
    """Return the shape of a tensor; that of a scalar is empty."""
    return type.shape if isinstance(type, Tensor) else ()


def walk(region: Region) -> Iterator[Operation]:
    """Yield all operations of a region, outer ones before those inside."""
    for block in region.blocks:
        for operation in block.operations:
            yield operation
            for inner in operation.regions:
                yield from walk(inner)


def refuse(kernel: str, operation: Operation | None, why: str) -> LoweringError:
    """Return the error that says which operation of which kernel cannot be lowered, where, and why."""
    if operation is None:
        return LoweringError(f"Triton kernel {kernel!r}", {"triton-cpu": why})
    place = f" ({operation.location})" if operation.location else ""
    where = f"{operation.name} in Triton kernel {kernel!r}, line {operation.line} of its TTIR{place}"
    return LoweringError(where, {"triton-cpu": why})
