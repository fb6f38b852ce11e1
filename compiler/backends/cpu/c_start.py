"""What a kernel's sum starts from: a bias that is added to it right away, one number for each column.

Accumulators that start from the bias save an addition and a load for each result where the sum is short. Tiles of
processors with few registers add it in the end all the same (START_LAST in kernels/cpu/hooks.h).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusible.compiler.backends.cpu.c_body import Body
from fusible.compiler.backends.cpu.c_dims import Names
from fusible.compiler.backends.cpu.c_kinds import Kind, promoted
from fusible.compiler.backends.cpu.nest import Nest
from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Apply, Arg
from fusible.compiler.region.region import Load, Map, operands_of

__all__ = ["Start", "print_start", "start_of"]


@dataclass(frozen=True, slots=True)
class Start:
    """The stage that adds the bias to the sum, the value that it gives, and the stage that loads the bias."""

    total: int
    value: int
    bias: int


def start_of(nest: Nest, contract: int, column: int) -> Start | None:
    """The bias of a contraction: `add(sum, load)` where the load depends on the column alone and nobody else reads it.

    None if there is none.
    """
    region = nest.region
    sum_ = region.first_values[contract]
    readers = [n for n, stage in enumerate(region.stages) if sum_ in operands_of(stage)]
    if len(readers) != 1 or any(store.value == sum_ for store in region.stores):
        return None
    stage = region.stages[readers[0]]
    match stage:
        case Map(Apply("add", (Arg(a), Arg(b))), DType.F32 | DType.I32) if a != b:
            other = b if a == sum_ else a
        case _:
            return None
    bias = region.first_values.index(other)
    load = region.stages[bias]
    alone = not any(other in operands_of(s) for n, s in enumerate(region.stages) if n != readers[0])
    if not isinstance(load, Load) or not alone or any(store.value == other for store in region.stores):
        return None
    access = nest.loads[bias]
    if nest.spaces[other] - {column} or access.bounds or access.checked or region.dtypes[other] is not stage.dtype:
        return None
    return Start(readers[0], region.first_values[readers[0]], bias)


def print_start(nest: Nest, start: Start, name: str, column: int, head: Sequence[str], names: Names) -> str:
    """The start hook `<name>_start`. head: statements that define `c` from `context`."""
    body = Body(nest, {}, names)
    body.stages([start.bias])
    code = promoted(body.values[nest.region.first_values[start.bias]])
    bits = code.text if code.kind is Kind.FLOAT else f"(vf)({code.text})"  # of int32: a convolution of bytes
    lines = [*head, f"const long i{column} = column;", f"(void)c, (void)row, (void)i{column};", *body.lines]
    signature = f"INLINE vf {name}_start(const void *context, long row, long column, long lanes) {{"
    return "\n".join([signature, *(f"    {line}" for line in [*lines, f"return {bits};"]), "}"])
