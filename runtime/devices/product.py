"""What a product of matrices by a library is, as plain data: sizes, and where its operands and its result lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from fusible.runtime.devices.facts import Facts

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

    @staticmethod
    def from_json(data: Mapping[str, Any], buffers: int) -> Matrix:
        """What `asdict` and JSON made of one. buffers: how many arguments it may be in. Raises ArtifactError."""
        facts = Facts.of("a matrix of a product", data)
        facts.only([f.name for f in fields(Matrix)])
        steps = (facts.number(name) for name in ("offset", "batch", "rows", "columns"))
        return Matrix(facts.position("argument", buffers), *steps)


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
    def places(self) -> tuple[Matrix, ...]:
        """Left, right and result, and what is added if there is something."""
        return (self.left, self.right, self.result, *([] if self.added is None else [self.added]))

    @staticmethod
    def from_json(data: Mapping[str, Any], buffers: int) -> TorchProduct:
        """What `asdict` and JSON made of one. buffers: how many of the kernel's arguments are. Raises ArtifactError."""
        facts = Facts.of("a product", data)
        facts.only([f.name for f in fields(TorchProduct)])
        left, right, result = (Matrix.from_json(facts.get(name), buffers) for name in ("left", "right", "result"))
        added = None if facts.get("added") is None else Matrix.from_json(facts.get("added"), buffers)
        batch, rows, columns, depth = (facts.number(name, 1) for name in ("batch", "rows", "columns", "depth"))
        dtype, tf32, scratch = facts.text("dtype"), facts.flag("tf32"), facts.number("scratch")
        return TorchProduct(dtype, batch, rows, columns, depth, left, right, result, tf32, scratch, added)
