"""Extents of slices, reshapes and ranges as shape expressions: ONNX's rules applied to symbolic dimensions."""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.ir.symbols import Dim, bounds_of, ceildiv, exact_div, floordiv, maximum, minimum, product
from fusible.kernels.numpy.movement import slice_bounds

__all__ = ["ENDLESS", "is_negative", "range_extent", "resolve_reshape", "slice_extent", "split_extents", "wrapped"]

# Exporters write the greatest or least int32 or int64 for "to the end"; no symbolic dimension is taken to reach it.
ENDLESS = 2**31 - 1


def is_negative(value: Dim) -> Dim:
    """1 where the value is negative, else 0."""
    return minimum(1, maximum(0, -value))


def wrapped(index: Dim, size: Dim) -> Dim:
    """An index that counts from the end where it is negative, as a count from the start."""
    low, high = bounds_of(index)
    if low is not None and low >= 0:
        return index
    if high is not None and high < 0:
        return index + size
    return index + size * is_negative(index)


def slice_extent(start: Dim, end: Dim, step: int, size: Dim) -> tuple[Dim, Dim]:
    """(first index, number of elements) of one sliced axis. `step` is not 0."""
    if isinstance(start, int) and isinstance(end, int) and isinstance(size, int):
        first, _, count = slice_bounds(start, end, step, size)
        return first, count
    return _forward(start, end, step, size) if step > 0 else _backward(start, end, step, size)


def _forward(start: Dim, end: Dim, step: int, size: Dim) -> tuple[Dim, Dim]:
    to_end = isinstance(end, int) and end >= ENDLESS
    if isinstance(start, int) and -ENDLESS < start < 0 and to_end and step == 1:
        return maximum(0, size + start), minimum(size, -start)
    # A first index beyond the size makes the count negative, hence 0: it needs no clamp of its own.
    first = 0 if isinstance(start, int) and start <= -ENDLESS else maximum(0, wrapped(start, size))
    stop = size if to_end else minimum(wrapped(end, size), size)
    return first, maximum(0, ceildiv(stop - first, step))


def _backward(start: Dim, end: Dim, step: int, size: Dim) -> tuple[Dim, Dim]:
    if isinstance(start, int) and (start == -1 or start >= ENDLESS):
        first: Dim = size - 1
    else:
        from_front: Dim = 0 if isinstance(start, int) and start <= -ENDLESS else maximum(0, wrapped(start, size))
        first = minimum(from_front, size - 1)
    stop = -1 if isinstance(end, int) and end <= -ENDLESS else maximum(wrapped(end, size), -1)
    return first, maximum(0, ceildiv(first - stop, -step))


def split_extents(size: Dim, parts: int) -> tuple[Dim, ...]:
    """The sizes of `parts` pieces: equal, the last ones smaller where they do not divide."""
    exact = exact_div(size, parts)
    if exact is not None:
        return (exact,) * parts
    part = ceildiv(size, parts)
    return tuple(maximum(0, minimum(part, size - part * number)) for number in range(parts))


def resolve_reshape(old: Sequence[Dim] | None, target: Sequence[Dim], allowzero: bool) -> tuple[Dim, ...] | None:
    """The shape that Reshape means by `target`: 0 copies a dimension (unless `allowzero`), -1 is inferred.

    None if the old shape is needed and not known; ValueError if the target makes no sense. A symbolic entry stands for
    itself, whatever its value.
    """
    if any(isinstance(d, int) and d < -1 for d in target) or list(target).count(-1) > 1:
        raise ValueError(f"a reshape target takes sizes and at most one -1, got {list(target)}")
    result = list(target)
    for position, dim in enumerate(result):
        if dim == 0 and not allowzero:
            if old is None:
                return None
            if position >= len(old):
                raise ValueError(f"the reshape target {list(target)} copies a dimension that {list(old)} has not")
            result[position] = old[position]
    if -1 not in result:
        return tuple(result)
    if old is None:
        return None
    place = result.index(-1)
    result[place] = _inferred(old, result[:place] + result[place + 1 :])
    return tuple(result)


def _inferred(old: Sequence[Dim], others: Sequence[Dim]) -> Dim:
    """The -1 of a reshape. Dimensions on both sides cancel first: n*64 // n is 64 even if n may be 0."""
    rest, have = list(others), list(old)
    for dim in others:
        if dim in have and dim != 0:
            have.remove(dim)
            rest.remove(dim)
    known, total = product(rest), product(have)
    if known == 0:
        raise ValueError(f"the -1 of a reshape from {list(old)} is not determined: other dimensions are 0")
    exact = exact_div(total, known)
    if exact is None and isinstance(total, int) and isinstance(known, int):
        raise ValueError(f"{list(old)} cannot be reshaped: its elements do not divide by {known}")
    return floordiv(total, known) if exact is None else exact


def range_extent(start: Dim, limit: Dim, delta: Dim) -> Dim:
    """The number of elements of an integer range. ZeroDivisionError for a literal delta of 0."""
    if isinstance(delta, int) and delta < 0:
        return maximum(0, ceildiv(start - limit, -delta))
    return maximum(0, ceildiv(limit - start, delta))
