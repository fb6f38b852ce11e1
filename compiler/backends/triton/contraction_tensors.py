"""Operands that are plain matrices in memory: blocks of them are fetched by descriptors.

The tensor memory accelerator of Hopper and later takes a place in the matrix and copies a block into shared memory as
the matrix instruction reads it; behind the matrix's edges zeros are, so neither masks nor addresses are computed. It
takes matrices whose first element lies at a multiple of 16 bytes, with rows that do (CUDA Driver API reference,
"cuTensorMapEncodeTiled").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from fusible.compiler.backends.cpu.c_dims import coefficient
from fusible.compiler.backends.triton.body import Body
from fusible.compiler.backends.triton.contraction import Contraction, axes_of
from fusible.compiler.backends.triton.tile import exceeds_32_bits
from fusible.compiler.ir.symbol_values import substitute
from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.region.region import Load, operands_of
from fusible.runtime.devices.code import TensorBlock

__all__ = ["Block", "tensor_block"]

_ALIGNMENT = 16  # bytes


@dataclass(frozen=True, slots=True)
class Block:
    """A matrix and its blocks. rows: how many it has. depth_last: the depth runs along them, else along its columns."""

    tensor: TensorBlock
    rows: Dim
    depth_last: bool


def tensor_block(
    contraction: Contraction, value: int, own: Sequence[int], name: str, sizes: tuple[int, int], *, whole: bool
) -> Block | str:
    """An operand as a matrix; the reason where it is none that can be described.

    own: its axes of rows or of columns. sizes: of a block along these, and along the depth. whole: blocks of the depth
    follow each other through all its axes.
    """
    region, nest = contraction.region, contraction.tile.nest
    position = region.first_values.index(value) if value in region.first_values else -1
    stage = region.stages[position] if position >= 0 else None
    if not isinstance(stage, Load):
        return "it is computed in the kernel"
    buffer, access = region.inputs[stage.buffer], nest.loads[position]
    dtype = buffer.dtype
    if dtype is not contraction.kind:
        return f"it is stored as {dtype.value}"
    if operands_of(stage) or access.checked:
        return "data say where its elements lie"
    if access.fill not in (None, 0) or Body(contraction.tile, (False, False)).conditions(access.bounds) != []:
        return "a window of it may end outside"
    if not whole:
        return "blocks of its depth end within it"
    offset, item = contraction.tile.known(access.offset), dtype.numpy.itemsize
    if axes_of(offset) - {*own, *contraction.depth}:
        return "there is one for each index of a batch"
    start = substitute(offset, {f"i{a}": 0 for a in axes_of(offset)})
    along, depth = (_line(contraction, offset, axes) for axes in (own, contraction.depth))
    if along is None or depth is None or not isinstance(start, int):
        return "its elements do not lie as those of a matrix"
    if 1 not in (along[1], depth[1]):
        return "no two of its elements are adjacent"
    depth_last = depth[1] == 1
    (rows, step), (columns, _) = (along, depth) if depth_last else (depth, along)
    if step * item % _ALIGNMENT or start * item % _ALIGNMENT or step <= 0:
        return f"its rows are {step * item} bytes apart, which is no multiple of {_ALIGNMENT}"
    if not isinstance(columns, int) or (not isinstance(rows, int) and rows * step != product(buffer.shape)):
        return "its sizes are known in a run only"
    if exceeds_32_bits(rows) or exceeds_32_bits(columns):
        return "its sizes may exceed 32 bits"
    if 0 in (rows, columns):
        return "it is empty"
    shape, block = (rows if isinstance(rows, int) else 0, columns), sizes if depth_last else sizes[::-1]
    return Block(TensorBlock(name, f"x{stage.buffer}", start, shape, (step, 1), block), rows, depth_last)


def _line(contraction: Contraction, offset: Dim, axes: Sequence[int]) -> tuple[Dim, int] | None:
    """The points of some axes, and by how much an offset grows from one to the next; None if by no one number."""
    extents = [e for a in axes if (e := contraction.tile.nest.extents[a]) is not None]
    steps = [s for a in axes if isinstance(s := coefficient(offset, a), int)]
    if not axes or len(extents) < len(axes) or len(steps) < len(axes):
        return None
    if any(slow != fast * extent for (slow, fast), extent in zip(pairwise(steps), extents[1:], strict=True)):
        return None
    return product(extents), steps[-1]
