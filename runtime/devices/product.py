"""What a product of matrices by a library is, as plain data: sizes, and where its operands and its result lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    """result[b, m, n] = added[b, m, n] + sum over k of left[b, m, k] * right[b, k, n], in f32 and rounded once.

    dtype: torch's name of the element type of all four. added: None for nothing. tf32: operands in float32 may be read
    with 10 bits of mantissa. scratch: bytes of the result where it is memory of the session's, with no place in the
    plan; else 0.
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
    added: Matrix | None = None

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """Left, right and result, and what is added if there is something."""
        return (self.left, self.right, self.result, *([] if self.added is None else [self.added]))

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> TorchProduct:
        """What `asdict` and JSON made of one."""
        named = {name: data.get(name) for name in ("left", "right", "result", "added")}
        return TorchProduct(**{**data, **{name: Matrix(**of) for name, of in named.items() if of is not None}})
