"""Nodes that are one call each: of a library kernel, or of a line of C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType, Shape, TensorType

__all__ = ["LibraryCall", "exported", "in_scratch", "requirement_call", "shape_in", "shape_of", "unless"]


@dataclass(frozen=True)
class LibraryCall:
    """A function that calls a library kernel: its text under a free name, and its operands.

    inputs: what it reads, in the order of its buffers; constants: arrays that stand in the place of some of them.
    """

    text: str
    dims: tuple[Dim, ...]
    inputs: tuple[Value, ...]
    constants: Mapping[int, np.ndarray]


def exported(name: str, lines: Sequence[str]) -> str:
    """The text of the function that a plan calls under a name; lines: its body."""
    head = f"EXPORT void {name}(struct pool *pool, void *const *buffers, const int64_t *dims, int *error) {{"
    return "\n".join([head, *(f"    {line}" for line in lines), "}"]) + "\n"


def unless(condition: str) -> list[str]:
    """Lines that note error 1, an operand that does not fit, and leave the function unless a condition holds."""
    return [f"if (!({condition})) {{", "    __atomic_store_n(error, 1, __ATOMIC_RELAXED);", "    return;", "}"]


def in_scratch(floats: str, lines: Sequence[str]) -> list[str]:
    """Lines that run between getting so many floats of memory, `scratch`, and giving them back."""
    got = ["float *scratch;", f"if (!scratch_get(&scratch, {floats}, error)) return;"]
    return [*got, *lines, "scratch_give(scratch);"]


def shape_of(value: Value) -> Shape:
    """The shape of an operand of a library kernel. Raises NotPrintable."""
    if not isinstance(value.type, TensorType) or value.type.shape is None:
        raise NotPrintable("the rank of an operand is not known")
    return value.type.shape


def shape_in(value: Value, dtype: DType) -> Shape:
    """The shape of an operand that must be of an element type. Raises NotPrintable."""
    shape = shape_of(value)
    assert isinstance(value.type, TensorType)
    if value.type.dtype is not dtype:
        raise NotPrintable(f"it has an operand of {value.type.dtype.value}")
    return shape


def requirement_call(node: Node, name: str) -> LibraryCall:
    """`require`: copy the condition, and note error 3 if it is not as expected."""
    condition = node.inputs[0]
    assert condition is not None
    lines = [
        "const uint8_t condition = *(const uint8_t *)buffers[0];",
        "(void)pool, (void)dims;",
        "*(uint8_t *)buffers[1] = condition;",
        f"if ((condition != 0) != {int(node.attrs.expected)}) __atomic_store_n(error, 3, __ATOMIC_RELAXED);",
    ]
    return LibraryCall(exported(name, lines), (), (condition,), {})
