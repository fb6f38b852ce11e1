"""Linear algebra that is no contraction."""

from __future__ import annotations

from fusible.compiler.ir.definition import Opaque, same
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.types import TensorType


def _det(ctx: Infer) -> TensorType:
    type_ = ctx.type(0)
    if type_.shape is None:
        return type_
    if len(type_.shape) < 2:
        ctx.fail(f"needs matrices, got {type_}")
    rows, columns = type_.shape[-2:]
    if not ctx.equal(rows, columns):
        ctx.fail(f"needs square matrices, got {type_}")
    return TensorType(type_.dtype, type_.shape[:-2])


OPS.register(Op("det", _det, same(Opaque("an LU decomposition")), "linear_algebra:det"))
