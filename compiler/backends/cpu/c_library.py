"""Nodes that are one call each: of a library kernel, or of a line of C."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.symbols import Dim

__all__ = ["LibraryCall", "requirement_call"]


@dataclass(frozen=True)
class LibraryCall:
    """A function that calls a library kernel: its text under a free name, and its operands.

    inputs: what it reads, in the order of its buffers; constants: arrays that stand in the place of some of them.
    """

    text: str
    dims: tuple[Dim, ...]
    inputs: tuple[Value, ...]
    constants: Mapping[int, np.ndarray]


def requirement_call(node: Node, name: str) -> LibraryCall:
    """`require`: copy the condition, and note error 3 if it is not as expected."""
    condition = node.inputs[0]
    assert condition is not None
    lines = [
        f"EXPORT void {name}(struct pool *pool, void *const *buffers, const int64_t *dims, int *error) {{",
        "    const uint8_t condition = *(const uint8_t *)buffers[0];",
        "    (void)pool, (void)dims;",
        "    *(uint8_t *)buffers[1] = condition;",
        f"    if ((condition != 0) != {int(node.attrs.expected)}) __atomic_store_n(error, 3, __ATOMIC_RELAXED);",
        "}",
    ]
    return LibraryCall("\n".join(lines) + "\n", (), (condition,), {})
