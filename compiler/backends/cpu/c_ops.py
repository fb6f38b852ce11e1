"""Ops that are calls of library kernels: no region says what they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from fusible.compiler.backends.cpu.c_bytes import is_byte_product, product_of_bytes
from fusible.compiler.backends.cpu.c_library import LibraryCall, requirement_call
from fusible.compiler.backends.cpu.c_recurrent import RECURRENT, recurrent_call
from fusible.compiler.backends.cpu.c_resize import resize_call
from fusible.compiler.backends.cpu.c_sampling import grid_sample_call, roi_align_call
from fusible.compiler.backends.cpu.c_scatter import SCATTERS, scatter_call
from fusible.compiler.backends.cpu.c_selection import top_k_call
from fusible.compiler.backends.cpu.c_suppression import suppression_call
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.ir.definition import Opaque
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.region.reorder import Order

__all__ = ["calls_library", "library_call"]

_Call: TypeAlias = Callable[[Node, str], LibraryCall]
_OrderedCall: TypeAlias = Callable[[Node, str, Mapping[Value, Order]], LibraryCall]

_ROW_MAJOR: Mapping[str, _Call] = MappingProxyType(
    {
        **dict.fromkeys(RECURRENT, recurrent_call),
        **dict.fromkeys(SCATTERS, scatter_call),
        "matmul_integer": product_of_bytes,
        "require": requirement_call,
        "suppressed_rows": suppression_call,
        "top_k": top_k_call,
    }
)
"""Kernels of operands and results that are stored row by row."""

_SOMETIMES = frozenset({"matmul_integer"})  # loops where the kernel does not take the node

_ORDERED: Mapping[str, _OrderedCall] = MappingProxyType(
    {"resize": resize_call, "grid_sample": grid_sample_call, "roi_align": roi_align_call}
)
"""Kernels that take images as they are stored."""


def calls_library(node: Node) -> bool:
    """True for nodes that a library kernel computes, or would if it took what they do."""
    name = node.op.name
    if name in _SOMETIMES:
        return is_byte_product(node)
    return name in _ROW_MAJOR or (name in _ORDERED and isinstance(node.op.definition(node), Opaque))


def library_call(node: Node, name: str, orders: Mapping[Value, Order]) -> LibraryCall:
    """The call of the library kernel that computes a node for which `calls_library` holds, under a free name.

    orders: how values are stored that are not row-major. Raises NotPrintable with what the kernel does not do.
    """
    if node.op.name in _ORDERED:
        return _ORDERED[node.op.name](node, name, orders)
    if any(v in orders for v in (*node.inputs, *node.outputs) if v is not None):
        raise NotPrintable("an operand or result is not stored row by row")
    return _ROW_MAJOR[node.op.name](node, name)
