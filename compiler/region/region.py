"""A region: one iteration space, operands read through index maps, stages of scalar expressions, outputs.

This is the form below the graph: immutable, and its text is its key. Today a region has element-wise stages only.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusible.compiler.ir.symbols import Dim, dim_text
from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Expr
from fusible.compiler.region.index import IndexMap

__all__ = ["MapStage", "Operand", "Region"]


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor that is read: its element type, shape, and the map from the iteration space to its elements."""

    dtype: DType
    shape: tuple[Dim, ...]
    map: IndexMap


@dataclass(frozen=True, slots=True)
class MapStage:
    """One expression per point: `Arg(i)` is operand i, or the result of stage i - len(operands).

    The result is rounded to `dtype`: casts are stages, and fusing moves no rounding.
    """

    expr: Expr
    dtype: DType


@dataclass(frozen=True, slots=True)
class Region:
    """`extents`: of the iteration axes i0, i1, ...; `outputs`: the stages whose values are stored, each at identity."""

    extents: tuple[Dim, ...]
    operands: tuple[Operand, ...]
    stages: tuple[MapStage, ...]
    outputs: tuple[int, ...]

    @property
    def text(self) -> str:
        """The canonical text: two regions are the same computation if their texts are equal."""
        lines = [f"region [{', '.join(dim_text(e) for e in self.extents)}]"]
        for number, operand in enumerate(self.operands):
            dims = ", ".join(dim_text(d) for d in operand.shape)
            lines.append(f"  x{number} = {operand.dtype.value}[{dims}] at {operand.map}")
        for number, stage in enumerate(self.stages, start=len(self.operands)):
            lines.append(f"  x{number} = {stage.dtype.value} {stage.expr}")
        stored = ", ".join(f"x{len(self.operands) + s}" for s in self.outputs)
        return "\n".join([*lines, f"  store {stored}"])
