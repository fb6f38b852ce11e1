"""How a printed kernel is launched: grid, arguments with what may be assumed of them, numbers of warps and stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fusible.compiler.ir.symbol_values import evaluate
from fusible.compiler.ir.symbols import Dim, ceildiv, product
from fusible.compiler.ir.types import DType
from fusible.runtime.devices.code import TensorBlock

__all__ = ["POINTER_TYPES", "WORKSPACE", "AccessFact", "Argument", "LaunchRule", "workspace_arguments"]

WORKSPACE = ("workspace", "counters")
"""The pointers of a kernel whose programs work together."""

POINTER_TYPES = {
    DType.F64: "*fp64",
    DType.F32: "*fp32",
    DType.F16: "*fp16",
    DType.BF16: "*bf16",
    DType.I64: "*i64",
    DType.I32: "*i32",
    DType.I16: "*i16",
    DType.I8: "*i8",
    DType.U64: "*u64",
    DType.U32: "*u32",
    DType.U16: "*u16",
    DType.U8: "*u8",
    DType.I4: "*i8",
    DType.U4: "*u8",
    DType.F8E4M3FN: "*u8",
    DType.F8E5M2: "*u8",
    DType.BOOL: "*i1",
}
"""The types of arguments that point to elements. Those of 4 bits take a byte each, 8-bit floats are read as bytes."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: a buffer's address (`dim` None), or the number that an expression over shape symbols gives.

    divisibility: what divides it for certain, 1 if nothing is known. Buffers lie at multiples of 16 bytes at least.
    """

    name: str
    type: str
    dim: Dim | None = None
    divisibility: int = 1


@dataclass(frozen=True, slots=True)
class AccessFact:
    """What is known of one load or store.

    step: elements between neighbours along the fastest axis of rows or of columns, 1 if either has them adjacent, 0 if
    it does not move; None where data or a division decide. masked: it has a mask. run: how many neighbours follow each
    other, None where that is not known or a condition leaves some out. folded: the tile has columns, along which it
    does not move. repeated: the tile has rows, along which it does not move.
    """

    argument: str
    dtype: DType
    stores: bool
    step: Dim | None
    masked: bool
    run: int | None = None
    folded: bool = False
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class LaunchRule:
    """Everything that a launch needs beside addresses. blocks: (points, how many of them a program takes).

    workspace: bytes that each program has in memory of the stream. Where there are any, `WORKSPACE` names two pointers
    that follow those of buffers: to this memory, and to an int32 of each program, 0 before and after a launch.
    alone: so many programs come first that have none, each in the place of as many as the last of `blocks` says.
    tensors: those of which the kernel's text makes descriptors. operands: how each operand of a product is fetched.
    """

    kernel: str
    arguments: tuple[Argument, ...]
    constants: Mapping[str, int]
    accesses: tuple[AccessFact, ...]
    blocks: tuple[tuple[Dim, int], ...]
    warps: int
    stages: int
    workspace: int = 0
    tensors: tuple[TensorBlock, ...] = ()
    operands: Mapping[str, str] = field(default_factory=dict)
    alone: int = 0

    @property
    def grid(self) -> Dim:
        """The number of programs, in one dimension. Nothing is launched for 0."""
        programs = product(ceildiv(points, block) for points, block in self.blocks)
        return programs - self.alone * (self.blocks[-1][0] - 1) if self.alone else programs

    def programs(self, env: Mapping[str, int]) -> int:
        """The number of programs for values of the shape symbols."""
        return int(evaluate(self.grid, env))

    def numbers(self, env: Mapping[str, int]) -> dict[str, int]:
        """The arguments that are numbers, for values of the shape symbols."""
        return {a.name: int(evaluate(a.dim, env)) for a in self.arguments if a.dim is not None}


def workspace_arguments(dtype: DType) -> tuple[Argument, Argument]:
    """The arguments of a kernel that has a workspace of elements of a type."""
    memory, counters = WORKSPACE
    return Argument(memory, POINTER_TYPES[dtype], None, 16), Argument(counters, POINTER_TYPES[DType.I32], None, 16)
