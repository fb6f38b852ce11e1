"""Products of bytes as calls of gemm_bytes.h: the right operand is a constant, packed when the model is compiled."""

from __future__ import annotations

import numpy as np

from fusible.compiler.backends.cpu.c_library import LibraryCall, exported, in_scratch, shape_of
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.symbols import product
from fusible.compiler.ir.types import DType, TensorType
from fusible.kernels.cpu.packing import pack_panels_bytes

__all__ = ["is_byte_product", "product_of_bytes"]

_BYTES = (DType.I8, DType.U8)
_CENTRE = 128  # int8 is uint8 with its highest bit turned, less this


def is_byte_product(node: Node) -> bool:
    """True for a `matmul_integer` that gemm_bytes.h computes."""
    if node.op.name != "matmul_integer":
        return False
    a, b, a_zero, b_zero = (*node.inputs, None, None)[:4]
    if a is None or b is None or b.constant is None or len(b.constant.shape) != 2 or _dtype(b) is not DType.I8:
        return False
    if not isinstance(a.type, TensorType) or a.type.shape is None or a.type.dtype not in _BYTES:
        return False
    if b_zero is not None and (b_zero.constant is None or np.any(b_zero.constant.array)):
        return False
    return a_zero is None or (a_zero.constant is not None and a_zero.constant.size == 1)


def product_of_bytes(node: Node, name: str) -> LibraryCall:
    """The call for a node for which `is_byte_product` holds. Raises NotPrintable."""
    a, b, a_zero = (*node.inputs, None)[:3]
    assert a is not None and b is not None and b.constant is not None
    shape, matrix = shape_of(a), b.constant.array
    if not is_byte_product(node):
        raise NotPrintable("the right operand of a product of bytes is no constant of int8 less its zero point")
    signed = _dtype(a) is DType.I8
    zero = 0 if a_zero is None or a_zero.constant is None else int(a_zero.constant.array.reshape(-1)[0])
    sums = matrix.astype(np.int64).sum(axis=0)
    start = (-(zero + _CENTRE * signed) * sums).astype(np.int32)
    depth, columns = matrix.shape
    lines = [
        f"struct gemm_bytes call = {{.a = buffers[0], .flip = {0x80 if signed else 0}, .panels = buffers[1],",
        "    .start = buffers[2], .c = buffers[3], .rows = dims[0], .depth = dims[1], .columns = dims[2],",
        "    .pool = pool};",
        *in_scratch("gemm_bytes_floats(&call)", ["gemm_bytes_run(&call, scratch);"]),
    ]
    packed = pack_panels_bytes(matrix).view(np.int32)
    rows = product(shape[:-1]) if len(shape) > 1 else 1
    return LibraryCall(exported(name, lines), (rows, depth, columns), (a, b, b), {1: packed, 2: start})


def _dtype(value: Value) -> DType | None:
    return value.type.dtype if isinstance(value.type, TensorType) else None
