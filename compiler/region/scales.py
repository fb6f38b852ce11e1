"""Scales of dequantised operands moved behind the contraction:  sum (a - z) s * b  ->  s * sum (a - z) * b.

What is left before it are the numbers as they were stored, less their zero points: whole numbers, which are multiplied
and summed exactly where both operands are such, or 8-bit floats. The same in real numbers; roundings differ, for the
dequantised values were rounded to their type before and are not made any more (Jacob et al., "Quantization and Training
of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, section 2.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusible.compiler.ir.symbols import Dim, bounds_of, product
from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Apply, Arg, Convert, Expr, Literal, apply, arguments
from fusible.compiler.region.prune import moved_map, pruned, renamed_stage
from fusible.compiler.region.region import Contract, Load, Map, Region, Stage, Store, value_symbol

__all__ = ["FLOATS8", "scales_behind"]

FLOATS8 = frozenset({DType.F8E4M3FN, DType.F8E5M2})
"""The 8-bit floats that GPUs know."""

_REALS = frozenset({DType.F32, DType.F16, DType.BF16})
_BYTES = frozenset({DType.I8, DType.U8, DType.I4, DType.U4})
_MOST_TERMS = 2**15  # of products of two differences of bytes, whose sum int32 then holds


@dataclass(frozen=True)
class _Dequantised:
    """scale: the same for all terms, None for 1. level: what it multiplies. whole: that as int32, if it is an integer.

    stored: the value that is loaded, if the level is an 8-bit float as it is stored.
    """

    scale: Expr | None
    level: Expr
    whole: Expr | None
    stored: int | None


def scales_behind(region: Region, *, products_of_floats8: bool) -> Region:
    """The region with one contraction, whose dequantised operands are multiplied as they were stored.

    products_of_floats8: the target multiplies 8-bit floats as such; for others they are converted, which is exact.
    """
    (position,) = region.contractions
    contract = region.stages[position]
    assert isinstance(contract, Contract)
    if contract.dtype is not DType.F32 or len(contract.args) != 2:
        return region
    sides = [_Sides(region, contract.axes).of(value) for value in contract.args]
    if all(side is None for side in sides):
        return region
    known = [side for side in sides if side is not None]
    scales = [side.scale for side in known if side.scale is not None]
    if len(known) == 2 and all(side.whole is not None for side in known) and _fits(region, contract.axes):
        levels: list[Map | int] = [Map(side.whole, DType.I32) for side in known if side.whole is not None]
        return _replaced(region, position, levels, DType.I32, scales)
    stored = [side.stored for side in known if side.stored is not None]
    if len(stored) == 2 and products_of_floats8 and len({region.dtypes[v] for v in stored}) == 1:
        return _replaced(region, position, stored, DType.F32, scales)
    dtypes = [DType.F16 if len(known) == 2 else region.dtypes[v] for v in contract.args]  # holds all levels exactly
    if not scales and all(region.dtypes[v] is dtype for v, dtype in zip(contract.args, dtypes, strict=True)):
        return region
    levels = [
        value if side is None else Map(Convert(side.level, dtype), dtype)
        for value, side, dtype in zip(contract.args, sides, dtypes, strict=True)
    ]
    return _replaced(region, position, levels, DType.F32, scales)


def _fits(region: Region, axes: Sequence[int]) -> bool:
    most = bounds_of(product(region.extents[a] for a in axes))[1]
    return most is not None and most <= _MOST_TERMS


class _Sides:
    """Looks through the maps that lead to an operand. axes: of the terms."""

    def __init__(self, region: Region, axes: Sequence[int]) -> None:
        self.region, self.axes = region, frozenset(axes)
        self.makers = {region.first_values[n]: stage for n, stage in enumerate(region.stages)}

    def of(self, value: int) -> _Dequantised | None:
        """The operand as a scale and what it multiplies; None if it was not dequantised with one for all terms."""
        if self.region.dtypes[value] not in _REALS:
            return None
        scale, level = self._split(Arg(value))
        whole, stored = self._whole(level), self._stored(level)
        if whole is None and stored is None:
            return None
        return _Dequantised(scale, self._inlined(level), whole, stored)

    def _split(self, expr: Expr) -> tuple[Expr | None, Expr]:
        match expr:
            case Arg(value) if isinstance(stage := self.makers.get(value), Map) and stage.dtype in _REALS:
                return self._split(stage.expr)
            case Convert(Arg() | Apply() | Convert() as inner, dtype) if dtype in _REALS and self._is_real(inner):
                return self._split(inner)
            case Apply("mul", (a, b)):
                for factor, rest in ((b, a), (a, b)):
                    if self._is_same(factor) and not self._is_same(rest):
                        return factor, rest
            case Apply("select", (condition, a, Literal(0 | 0.0))):
                scale, level = self._split(a)
                return scale, Apply("select", (condition, level, Literal(0.0)))
        return None, expr

    def _is_real(self, expr: Expr) -> bool:
        """True if an expression is a float of 16 bits at least."""
        match expr:
            case Arg(value):
                return self.region.dtypes[value] in _REALS
            case Convert(_, dtype):
                return dtype in _REALS
        return True

    def _is_same(self, expr: Expr) -> bool:
        """True if an expression has one value for all terms."""
        return not any(self.region.spaces[v] & self.axes for v in arguments(expr))

    def _whole(self, expr: Expr) -> Expr | None:
        """The expression as int32, if it is a stored integer, or a difference of two."""
        match expr:
            case Arg(value) if isinstance(stage := self.makers.get(value), Map):
                return self._whole(stage.expr)
            case Convert(Arg(value), dtype) if dtype in (*_REALS, DType.I32) and self._is_byte(value):
                return Convert(Arg(value), DType.I32)
            case Convert(inner, dtype) if dtype in _REALS:
                return self._whole(inner)
            case Literal(number) if float(number).is_integer() and abs(number) <= 255:
                return Literal(int(number))
            case Apply("sub", (a, b)) if not isinstance(a, Literal):
                first, second = self._whole(a), self._whole(b)
                return None if first is None or second is None else apply("sub", first, second)
            case Apply("select", (condition, a, Literal(0 | 0.0))):
                chosen = self._whole(a)
                return None if chosen is None else Apply("select", (condition, chosen, Literal(0)))
        return None

    def _is_byte(self, value: int) -> bool:
        return isinstance(self.makers.get(value), Load) and self.region.dtypes[value] in _BYTES

    def _stored(self, expr: Expr) -> int | None:
        """The value that is loaded and converted, if it is an 8-bit float less at most a zero point of 0."""
        match expr:
            case Arg(value) if isinstance(stage := self.makers.get(value), Map):
                return self._stored(stage.expr)
            case Apply("sub", (a, b)) if self._is_zero(b):
                return self._stored(a)
            case Convert(Arg(value), dtype) if dtype in _REALS and isinstance(self.makers.get(value), Load):
                return value if self.region.dtypes[value] in FLOATS8 else None
            case Convert(inner, dtype) if dtype in _REALS:
                return self._stored(inner)
        return None

    def _is_zero(self, expr: Expr) -> bool:
        match expr:
            case Literal(number):
                return number == 0
            case Convert(inner, _):
                return self._is_zero(inner)
            case Arg(value) if isinstance(stage := self.makers.get(value), Map):
                return self._is_zero(stage.expr)
        return False

    def _inlined(self, expr: Expr) -> Expr:
        """The level itself, in float32: what it is made of are loads."""
        match expr:
            case Arg(value) if isinstance(stage := self.makers.get(value), Map):
                return self._inlined(stage.expr)
            case Convert(Arg(value), dtype) if dtype in _REALS and isinstance(self.makers.get(value), Load):
                return Convert(Arg(value), DType.F32)
            case Convert(inner, dtype) if dtype in _REALS:
                return Convert(self._inlined(inner), DType.F32)
            case Apply(function, args):
                return Apply(function, tuple(self._inlined(a) for a in args))
        return expr


def _replaced(
    region: Region, position: int, operands: Sequence[Map | int], dtype: DType, scales: Sequence[Expr]
) -> Region:
    """The region with a contraction of other operands, in another type, and its sums multiplied by scales as f32."""
    contract = region.stages[position]
    assert isinstance(contract, Contract)
    old = region.first_values[position]
    stages: list[Stage] = list(region.stages[:position])
    args = []
    for operand in operands:
        args.append(operand if isinstance(operand, int) else old + len(stages) - position)
        stages += [operand] if isinstance(operand, Map) else []
    made = old + len(stages) - position
    total: Expr = Arg(made) if dtype is DType.F32 else Convert(Arg(made), DType.F32)
    for scale in scales:
        total = apply("mul", total, Convert(scale, DType.F32))
    stages += [Contract(contract.axes, (args[0], args[1]), dtype), Map(total, DType.F32)]
    shift = len(stages) - position - 1
    values = {v: v if v < old else v + shift for v in range(len(region.dtypes))}
    names: dict[str, Dim] = {f"v{v}": value_symbol(n) for v, n in values.items() if v != n}
    axes = {n: n for n in range(len(region.extents))}
    stages += [renamed_stage(stage, values, axes, names) for stage in region.stages[position + 1 :]]
    stores = tuple(Store(s.buffer, moved_map(s.map, names), values[s.value]) for s in region.stores)
    return pruned(Region(region.extents, region.inputs, region.outputs, tuple(stages), stores), keep_axes=True)
