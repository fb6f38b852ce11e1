"""What a product of matrices by a library is, as plain data: sizes, and where its operands and its result lie."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Matrix", "TorchProduct"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix, or one for each point of a batch, inside an argument: offset and steps count elements.

    argument: the position of its buffer among the kernel's arguments. rows, columns, batch: the steps along them.
    """

    argument: int
    offset: int
    batch: int
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class TorchProduct:
    """result[b, m, n] = sum over k of left[b, m, k] * right[b, k, n], summed in f32 at least and rounded once.

    dtype: torch's name of the element type of all three. tf32: operands in float32 may be read with 10 bits of
    mantissa. scratch: bytes of the result where it is memory of the session's, with no place in the plan; else 0.
    """

    dtype: str
    batch: int
    rows: int
    columns: int
    depth: int
    left: Matrix
    right: Matrix
    result: Matrix
    tf32: bool = False
    scratch: int = 0
