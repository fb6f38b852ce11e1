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
from math import prod

from fusible.compiler.backends.cpu.c_dims import coefficient
from fusible.compiler.backends.triton.body import Body
from fusible.compiler.backends.triton.contraction import Contraction, axes_of
from fusible.compiler.ir.symbol_values import substitute
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.region.region import Load, operands_of
from fusible.runtime.devices.code import TensorBlock

__all__ = ["Block", "tensor_block"]

_ALIGNMENT = 16  # bytes
_MOST = 2**31 - 1  # rows or columns: places are 32-bit numbers


@dataclass(frozen=True, slots=True)
class Block:
    """A matrix and its blocks. depth_last: the depth runs along its rows; else along its columns."""

    tensor: TensorBlock
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
    dtype, access = region.inputs[stage.buffer].dtype, nest.loads[position]
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
    rows, depth = (_line(contraction, offset, axes) for axes in (own, contraction.depth))
    if rows is None or depth is None or not isinstance(start, int):
        return "its elements do not lie as those of a matrix of known size"
    if 1 not in (rows[1], depth[1]):
        return "no two of its elements are adjacent"
    depth_last = depth[1] == 1
    outer, inner = (rows, depth) if depth_last else (depth, rows)
    if outer[1] * item % _ALIGNMENT or start * item % _ALIGNMENT or outer[1] <= 0:
        return f"its rows are {outer[1] * item} bytes apart, which is no multiple of {_ALIGNMENT}"
    if min(outer[0], inner[0]) < 1 or max(outer[0], inner[0]) > _MOST:
        return "it is empty, or too large"
    block = sizes if depth_last else sizes[::-1]
    tensor = TensorBlock(name, f"x{stage.buffer}", start, (outer[0], inner[0]), (outer[1], 1), block)
    return Block(tensor, depth_last)


def _line(contraction: Contraction, offset: Dim, axes: Sequence[int]) -> tuple[int, int] | None:
    """The points of some axes, and by how much an offset grows from one to the next; None if by no one number."""
    extents = [e for a in axes if isinstance(e := contraction.tile.nest.extents[a], int)]
    steps = [s for a in axes if isinstance(s := coefficient(offset, a), int)]
    if not axes or len(extents) < len(axes) or len(steps) < len(axes):
        return None
    if any(slow != fast * extent for (slow, fast), extent in zip(pairwise(steps), extents[1:], strict=True)):
        return None
    return prod(extents), steps[-1]
