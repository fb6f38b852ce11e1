"""Print a region of element-wise stages as NumPy statements that write into the output arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Apply, Arg, Convert, Expr, Literal, arguments
from fusible.compiler.region.region import Load, Map, Region
from fusible.kernels.numpy import scalar

__all__ = ["PrintedRegion", "print_region"]

_DIRECT = {DType.F32, DType.F64, DType.I64, DType.I32, DType.I16, DType.I8, DType.U8, DType.BOOL}


@dataclass(frozen=True, slots=True)
class PrintedRegion:
    """Statements over x0.. (operands) and out0.. (outputs); `inplace`: operands whose memory out0 may be."""

    lines: tuple[str, ...]
    inplace: tuple[int, ...]


def print_region(region: Region) -> PrintedRegion | None:
    """Statements for a region of element-wise stages over operands that NumPy broadcasts.

    None for any other region, and if an element type needs a kernel's care (small floats, strings).
    """
    if not all(isinstance(stage, (Load, Map)) for stage in region.stages):
        return None
    if any(dtype not in _DIRECT for dtype in region.dtypes):
        return None
    values = _Values(region)
    if any(_awkward(region, stage) for stage in region.stages if isinstance(stage, Map)):
        return None
    lines: list[str] = []
    for number, stage in enumerate(region.stages):
        if isinstance(stage, Map):
            stored = [store.buffer for store in region.stores if store.value == number]
            target = f"out{stored[0]}" if stored else f"t{values.maps[number]}"
            lines.append(_statement(stage.expr, values.names, target, bool(stored)))
            lines.extend(f"out{other}[...] = {target}" for other in stored[1:])
            values.names[number] = target
    for store in region.stores:
        if isinstance(region.stages[store.value], Load):
            lines.append(f"out{store.buffer}[...] = {values.names[store.value]}")
    return PrintedRegion(tuple(lines), _inplace(region))


class _Values:
    """The Python name of each value, and the position of each map among the maps."""

    def __init__(self, region: Region) -> None:
        self.names = [f"x{stage.buffer}" if isinstance(stage, Load) else "" for stage in region.stages]
        self.maps = {n: sum(isinstance(s, Map) for s in region.stages[:n]) for n in range(len(region.stages))}


def _awkward(region: Region, stage: Map) -> bool:
    """True if NumPy's own type rules would not give the stage's dtype."""
    used = {region.dtypes[i] for i in arguments(stage.expr)}
    return (len(used) > 1 and not _contains_select(stage.expr)) or _has_literal_clash(stage.expr, used)


def _contains_select(expr: Expr) -> bool:
    return isinstance(expr, Apply) and (expr.function == "select" or any(_contains_select(a) for a in expr.args))


def _has_literal_clash(expr: Expr, used: set[DType]) -> bool:
    """A float literal beside integers would make NumPy compute in float64."""
    floats = any(d.is_float for d in used)
    match expr:
        case Literal(value):
            return isinstance(value, float) and not floats
        case Apply(_, args):
            return any(_has_literal_clash(a, used) for a in args)
        case Convert():
            return True
    return False


def _inplace(region: Region) -> tuple[int, ...]:
    """Operands read at the same place as the output is written, in a region of one statement without temporaries."""
    maps = [stage for stage in region.stages if isinstance(stage, Map)]
    if len(maps) != 1 or not isinstance(maps[0].expr, Apply) or not _is_ufunc(maps[0].expr.function):
        return ()
    return tuple(n for n, buffer in enumerate(region.inputs) if buffer == region.outputs[0])


def _is_ufunc(function: str) -> bool:
    return isinstance(getattr(scalar, function), np.ufunc)


def _statement(expr: Expr, names: list[str], target: str, stored: bool) -> str:
    if not stored:
        return f"{target} = {_print(expr, names)}"
    if isinstance(expr, Apply) and _is_ufunc(expr.function):
        parts = ", ".join(_print(a, names) for a in expr.args)
        return f"{_name(expr.function)}({parts}, out={target})"
    return f"{target}[...] = {_print(expr, names)}"


def _print(expr: Expr, names: list[str]) -> str:
    match expr:
        case Arg(index):
            return names[index]
        case Literal(value):
            finite = not isinstance(value, float) or np.isfinite(value)
            return repr(value) if finite else f"float({str(value)!r})"
        case Convert(arg, dtype):
            return f"{_print(arg, names)}.astype(DTYPES[{dtype.value!r}])"
    return f"{_name(expr.function)}({', '.join(_print(a, names) for a in expr.args)})"


def _name(function: str) -> str:
    found = getattr(scalar, function)
    return f"np.{found.__name__}" if isinstance(found, np.ufunc) else f"scalar.{function}"
