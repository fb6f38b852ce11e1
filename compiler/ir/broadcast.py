"""The broadcast of dimensions and shapes as ONNX has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fusible.compiler.ir.symbols import Call, Dim, SymInt, bounds_of, call_of, dim_text

__all__ = ["bcast", "broadcast_of"]


def bcast(a: Dim, b: Dim) -> Dim:
    """The broadcast of two dimensions: equal, or one of them is 1. Raises ValueError if that cannot be."""
    if a == b or (isinstance(b, int) and b == 1):
        return a
    if isinstance(a, int) and a == 1:
        return b
    if isinstance(a, int) and isinstance(b, int):
        raise ValueError(f"dimensions {a} and {b} do not broadcast")
    if isinstance(a, int) or isinstance(b, int):
        # The other one is 1 or equal: in both cases the result is the literal.
        return a if isinstance(a, int) else b
    # Equal or 1, whatever the order and however often: one chain of the distinct dimensions, sorted.
    found = {dim_text(d): d for d in (*_broadcast_parts(a), *_broadcast_parts(b))}
    parts = [part for _, part in sorted(found.items()) if not any(_caps(part, other) for other in found.values())]
    result = parts[0]
    for part in parts[1:]:
        result = call_of("bcast", result, part)
    return result


def broadcast_of(
    shapes: Sequence[Sequence[Dim] | None], joined: Callable[[Dim, Dim], Dim] = bcast
) -> tuple[Dim, ...] | None:
    """The NumPy broadcast of shapes, each two dimensions by `joined`; None if a rank is unknown."""
    known = [s for s in shapes if s is not None]
    if len(known) != len(shapes):
        return None
    rank = max((len(s) for s in known), default=0)
    result: list[Dim] = [1] * rank
    for shape in known:
        for position, dim in enumerate(shape, start=rank - len(shape)):
            result[position] = joined(result[position], dim)
    return tuple(result)


def _lone_call(value: SymInt, function: str) -> tuple[Dim, ...]:
    """The arguments of a value that is one call of `function` and nothing else; () for any other value."""
    monomial, coefficient = value.terms[0]
    atom = monomial[0] if len(value.terms) == len(monomial) == coefficient == 1 else None
    return atom.args if isinstance(atom, Call) and atom.function == function else ()


def _caps(value: SymInt, other: SymInt) -> bool:
    """True for min(other, k) with k >= 2: where the two broadcast they are equal (1 only if the other is)."""
    args = _lone_call(value, "min")
    return other in args and all(a == other or (bounds_of(a)[0] or 0) >= 2 for a in args)


def _broadcast_parts(value: SymInt) -> list[SymInt]:
    args = _lone_call(value, "bcast")
    return [p for a in args if isinstance(a, SymInt) for p in _broadcast_parts(a)] if args else [value]
