"""4-bit constants with two elements in a byte: the first half of an axis in the lower bits, the second in the upper.

    w[k]  =  byte[k] & 15  for k < K/2,    byte[k - K/2] >> 4  for others

So the axis of a sum falls into two halves of equal steps, and a step through both multiplies what one byte holds with
elements of the other operand that lie K/2 apart: bytes are read once and nothing is shuffled among lanes. Signed
elements are stored as what they exceed -8 by.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fusible.compiler.ir.symbols import Dim, Symbol, SymInt
from fusible.compiler.ir.types import DType
from fusible.compiler.region.digits import with_digits
from fusible.compiler.region.expr import Arg, Convert, Expr, apply
from fusible.compiler.region.index import Bound, IndexMap
from fusible.compiler.region.prune import moved_map, renamed_stage
from fusible.compiler.region.region import (
    Buffer,
    Contract,
    Load,
    Map,
    Region,
    Stage,
    Store,
    Test,
    operands_of,
    value_symbol,
)

__all__ = ["Halves", "in_halves", "packed_in_halves"]

_COMPUTED = {DType.I4: DType.I8, DType.U4: DType.U8}
_BIAS = 8


@dataclass(frozen=True)
class Halves:
    """region: with an input of bytes. axis: of two indices, the half. buffer, dimension: what is packed, along what.

    Every other axis of the contraction has as many indices for the one half as for the other.
    """

    region: Region
    axis: int
    buffer: int
    dimension: int


def packed_in_halves(array: np.ndarray, dimension: int) -> np.ndarray:
    """An array of int4 or uint4 as uint8, half as long along a dimension. Raises ValueError for an odd length."""
    extent = array.shape[dimension]
    if extent % 2:
        raise ValueError(f"{extent} elements are no two halves")
    codes = array.astype(np.int8) + (_BIAS if DType.of(array.dtype) is DType.I4 else 0)
    lower, upper = np.split(codes.view(np.uint8), 2, axis=dimension)
    return np.ascontiguousarray(lower | upper << 4)


def in_halves(region: Region, constants: Collection[int]) -> Halves | None:
    """The region with its contraction over the bytes of a packed constant; None if it sums over no 4-bit constant.

    Without a contraction the axis is any that runs along the constant, the last there is. constants: the inputs that
    may be stored so.
    """
    axes: Sequence[int] = range(len(region.extents))
    if region.contractions:
        (position,) = region.contractions
        contract = region.stages[position]
        assert isinstance(contract, Contract)
        axes = contract.axes
    for number, stage in enumerate(region.stages):
        if isinstance(stage, Load) and stage.buffer in constants and region.inputs[stage.buffer].dtype in _COMPUTED:
            found = _dimension(region, stage, axes)
            if found is not None:
                axis, dimension = found
                return Halves(_unpacked(region, number, axis, dimension), axis, stage.buffer, dimension)
    return None


def _dimension(region: Region, load: Load, axes: Sequence[int]) -> tuple[int, int] | None:
    """The axis, of some, that alone is the index along a dimension of a 4-bit constant, and that dimension."""
    if (
        operands_of(load)
        or load.map.bounds
        or sum(isinstance(s, Load) and s.buffer == load.buffer for s in region.stages) > 1
    ):
        return None
    for dimension, component in reversed(list(enumerate(load.map.components))):
        for axis in axes:
            extent = region.extents[axis]
            whole = isinstance(extent, int) and extent > 2 and extent % 2 == 0
            if whole and component == _axis(region, axis) and region.inputs[load.buffer].shape[dimension] == extent:
                return axis, dimension
    return None


def _axis(region: Region, axis: int) -> Dim:
    extent = region.extents[axis]
    return SymInt.of(Symbol(f"i{axis}", 0, extent - 1 if isinstance(extent, int) else None))


def _unpacked(region: Region, position: int, axis: int, dimension: int) -> Region:
    """The region in which the load at a position reads bytes, and a test and a map behind it make elements of them."""
    load = region.stages[position]
    assert isinstance(load, Load)
    extent = region.extents[axis]
    assert isinstance(extent, int)
    dtype = region.inputs[load.buffer].dtype
    region = with_digits(region, axis, extent // 2)
    value = region.first_values[position]
    load = region.stages[position]
    assert isinstance(load, Load)
    places = tuple(
        _axis(region, len(region.extents) - 1) if d == dimension else c for d, c in enumerate(load.map.components)
    )
    stages: list[Stage] = [
        *region.stages[:position],
        Load(load.buffer, IndexMap(places)),
        Test((Bound(_axis(region, axis), 1, 2),)),
        Map(_element(value, dtype), _COMPUTED[dtype]),
    ]
    values = {v: v if v < value else v + 2 for v in range(len(region.dtypes))}
    names: dict[str, Dim] = {f"v{v}": value_symbol(n) for v, n in values.items() if v != n}
    axes = {n: n for n in range(len(region.extents))}
    stages += [renamed_stage(stage, values, axes, names) for stage in region.stages[position + 1 :]]
    stores = tuple(Store(s.buffer, moved_map(s.map, names), values[s.value]) for s in region.stores)
    shape = region.inputs[load.buffer].shape
    packed = Buffer(DType.U8, tuple(extent // 2 if d == dimension else n for d, n in enumerate(shape)))
    inputs = tuple(packed if n == load.buffer else b for n, b in enumerate(region.inputs))
    return replace(region, inputs=inputs, stages=tuple(stages), stores=stores)


def _element(byte: int, dtype: DType) -> Expr:
    """The element of a byte; the value after it says whether it is of the second half."""
    code = apply("select", Arg(byte + 1), apply("shift_right", Arg(byte), 4), apply("bitwise_and", Arg(byte), 15))
    return code if dtype is DType.U4 else apply("sub", Convert(code, DType.I8), _BIAS)
