"""Checks of what ONNX Runtime's operators (com.microsoft) say of the shapes of their inputs, and of flags."""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.contrib_schemas import contrib_schema
from fusible.compiler.ir.symbols import Dim

__all__ = ["check_shape", "check_single", "flag"]

Expected = Sequence[Dim | None]


def check_shape(c: NodeContext, index: int, *expected: Expected) -> None:
    """InvalidModel if an input is there and can have none of the shapes; None: any extent.

    A rank that is not known is none to check, nor is an extent that is a symbol.
    """
    shape = None if c.optional(index) is None else c.shape(index)
    if shape is None or any(_fits(shape, each) for each in expected):
        return
    wanted = " or ".join(f"[{', '.join('any' if d is None else str(d) for d in each)}]" for each in expected)
    schema = contrib_schema(c.node.domain, c.node.op_type)
    # The last input of a schema may stand for all that follow.
    name = schema.inputs[min(index, len(schema.inputs) - 1)].name if schema is not None else str(index)
    c.invalid(f"input {index} ({name}) must have shape {wanted}, got {c.tensor_type(index)}; check what makes it")


def check_single(c: NodeContext, *indices: int) -> None:
    """InvalidModel if one of these inputs is there and is neither a scalar nor a vector of one element."""
    for index in indices:
        check_shape(c, index, (), (1,))


def _fits(shape: Sequence[Dim], expected: Expected) -> bool:
    if len(shape) != len(expected):
        return False
    return all(not isinstance(a, int) or not isinstance(b, int) or a == b for a, b in zip(shape, expected, strict=True))


def flag(c: NodeContext, name: str) -> bool:
    """An attribute that is 0, its default, or 1. InvalidModel for other numbers, which mean nothing."""
    value = c.attr_int(name, 0)
    if value not in (0, 1):
        c.invalid(f"attribute {name!r} must be 0 or 1, got {value}")
    return value == 1
