"""Dequantised operands of sums with one multiplication and addition an element:  (q - z) s  ->  q s - z s.

The second product is one of what blocks share, and the first and the difference are one instruction of GPUs. A stored
byte and its zero point have eight bits and the bias of packed elements no more, a scale of 16 bits has eleven, so both
products are exact in float32, and the difference is rounded once. It is not rounded to the 16 bits that dequantised
values have in the graph, as behind sums (`scales.py`). Scales are finite: of an infinite one all would be NaN.
"""

from __future__ import annotations

from dataclasses import replace

from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Apply, Arg, Convert, Expr, Literal, apply
from fusible.compiler.region.prune import pruned
from fusible.compiler.region.region import Contract, Load, Map, Region, Stage, operands_of

__all__ = ["with_multiply_add"]

_HALVES = frozenset({DType.F16, DType.BF16})
_BYTES = frozenset({DType.I8, DType.U8, DType.I4, DType.U4})


def with_multiply_add(region: Region) -> Region:
    """The region with one contraction, whose operands of 16 bits that were dequantised by blocks are float32.

    Its operands then differ in type, which no contraction may keep: it is to be written as a sum (`sums.py`).
    """
    (position,) = region.contractions
    contract = region.stages[position]
    assert isinstance(contract, Contract)
    stages: list[Stage] = list(region.stages)
    makers = {first: n for n, first in enumerate(region.first_values)}
    read = [v for stage in region.stages for v in operands_of(stage)] + [s.value for s in region.stores]
    for value in contract.args:
        stage = stages[makers[value]]
        if isinstance(stage, Map) and stage.dtype in _HALVES and read.count(value) == 1:
            found = _dequantised(region, stage.expr)
            if found is not None:
                stages[makers[value]] = Map(found, DType.F32)
    if stages == list(region.stages):
        return region
    return pruned(replace(region, stages=tuple(stages)), keep_axes=True)


def _dequantised(region: Region, expr: Expr) -> Expr | None:
    """What an operand is rounded from, in float32; None if it is no stored byte less its zero point by a scale."""
    makers = dict(zip(region.first_values, region.stages, strict=True))
    match expr:
        case Convert(Apply("mul", (level, Convert(Arg(scale), DType.F32) as factor))):
            parts = _byte_and_zero(region, level)
        case _:
            return None
    if parts is None or region.dtypes[scale] not in _HALVES or not isinstance(makers.get(scale), Load):
        return None
    byte, zero = parts
    code, bias = _code(makers.get(byte), byte)
    product = apply("mul", code, factor)
    if zero is None and not bias:
        return product
    offset: Expr = Literal(float(bias)) if zero is None else Convert(Arg(zero), DType.F32)
    if zero is not None and bias:
        offset = apply("add", offset, float(bias))
    return apply("sub", product, apply("mul", offset, factor))


def _byte_and_zero(region: Region, level: Expr) -> tuple[int, int | None] | None:
    """The values of a stored byte and of its zero point, None for 0; None if a level is something else."""
    match level:
        case Apply("sub", (Convert(Arg(byte), DType.F32), Convert(Arg(zero), DType.F32))):
            return (byte, zero) if {region.dtypes[byte], region.dtypes[zero]} <= _BYTES else None
        case Convert(Arg(byte), DType.F32):
            return (byte, None) if region.dtypes[byte] in _BYTES else None
    return None


def _code(stage: Stage | None, byte: int) -> tuple[Expr, int]:
    """A stored byte as float32, and what it exceeds the element by: 4-bit elements are packed with a bias."""
    match stage:
        case Map(Apply("sub", (Convert(code), Literal(int(bias)))), DType.I8):
            return Convert(code, DType.F32), bias
    return Convert(Arg(byte), DType.F32), 0
