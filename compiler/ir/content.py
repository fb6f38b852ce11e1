"""Known contents moved about: an op that only moves elements moves symbolic ones by the same kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.compiler.ir.ops import CONTENT_LIMIT, Content, Infer, PropagateFunction, kernel_arguments
from fusible.compiler.ir.symbols import SymInt

__all__ = ["moved_content"]


def moved_content(*data: int) -> PropagateFunction:
    """Propagation by the op's own kernel: inputs `data` (none given: all) as arrays of objects, the others as numbers.

    None where an input or attribute that decides about places is symbolic.
    """

    def propagate(ctx: Infer) -> Content | None:
        operands: list[np.ndarray | None] = []
        for index, value in enumerate(ctx.inputs):
            content = ctx.content(index)
            if value is not None and content is None:
                return None
            if content is not None and data and index not in data:
                content = _concrete(content, ctx.dtype(index).numpy)
                if content is None:
                    return None
            operands.append(content)
        arguments = kernel_arguments(ctx.attrs)
        if any(_mentions_symbol(a) for a in arguments.values()):
            return None
        try:
            result = ctx.op.numpy(*operands, **arguments)
        except ValueError:
            return None  # concrete operands meet the same error where the kernel is run on them
        return result if isinstance(result, np.ndarray) and result.size <= CONTENT_LIMIT else None

    return propagate


def _concrete(content: Content, dtype: np.dtype) -> np.ndarray | None:
    if any(isinstance(x, SymInt) for x in content.flat):
        return None
    return content.astype(dtype)


def _mentions_symbol(attribute: Any) -> bool:
    if isinstance(attribute, tuple):
        return any(_mentions_symbol(a) for a in attribute)
    return isinstance(attribute, SymInt)
