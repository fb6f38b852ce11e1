"""Sequences and optionals. A sequence is a Python list of arrays, an empty optional is None, a full one its element.

Lists are never changed in place: each op returns a new one. A tensor is copied when it enters a list, so that a list
outlives the buffers its tensors were computed in; from then on lists share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

Array = np.ndarray[Any, Any]
Tensors: TypeAlias = list[Array]
Element: TypeAlias = "Array | Tensors"


def sequence_empty(*, dtype: np.dtype[Any]) -> Tensors:
    """A sequence of nothing; `dtype`, of the tensors that may follow, leaves no trace in it."""
    return []


def sequence_construct(*inputs: Array) -> Tensors:
    """The sequence of (copies of) the inputs."""
    return [x.copy() for x in inputs]


def sequence_insert(sequence: Tensors, tensor: Array, position: Array | None = None, /) -> Tensors:
    """The sequence with `tensor` before `position` in [-n, n], at the end without one. Raises ValueError outside."""
    count = len(sequence)
    at = count if position is None else _index(position, count, count, "sequence_insert")
    return [*sequence[:at], tensor.copy(), *sequence[at:]]


def sequence_erase(sequence: Tensors, position: Array | None = None, /) -> Tensors:
    """The sequence less the element at `position` in [-n, n-1], the last without one. Raises ValueError outside."""
    count = len(sequence)
    at = _index(np.array(-1) if position is None else position, count, count - 1, "sequence_erase")
    return [*sequence[:at], *sequence[at + 1 :]]


def sequence_at(sequence: Tensors, position: Array, /) -> Array:
    """The element at `position` in [-n, n-1]. Raises ValueError outside."""
    count = len(sequence)
    return sequence[_index(position, count, count - 1, "sequence_at")]


def sequence_length(sequence: Tensors, /) -> Array:
    """The number of elements, int64 []."""
    return np.array(len(sequence), np.int64)


def split_to_sequence(
    x: Array, /, *, axis: int = 0, split: int | Sequence[int] | None = None, keepdims: int = 1
) -> Tensors:
    """The pieces of x along `axis`.

    split: their lengths, or one length for all but a shorter last; None cuts into slices of length 1, which lose that
    axis if keepdims is 0. Raises ValueError for lengths that do not add up.
    """
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"split_to_sequence: axis {axis} is out of range for rank {x.ndim}")
    axis %= x.ndim
    extent = x.shape[axis]
    lengths = _lengths(split, extent)
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    whole = (slice(None),) * axis
    pieces = [x[(*whole, slice(end - length, end))].copy() for length, end in zip(lengths, ends, strict=True)]
    if split is None and not keepdims:
        return [piece.reshape(x.shape[:axis] + x.shape[axis + 1 :]) for piece in pieces]
    return pieces


def split_to_sequence_dynamic(x: Array, split: Array, /, *, axis: int = 0) -> Tensors:
    """`split_to_sequence` with the lengths (int [n]) or the one length (int []) as an array."""
    return split_to_sequence(x, axis=axis, split=int(split) if split.ndim == 0 else [int(n) for n in split])


def concat_from_sequence(sequence: Tensors, /, *, axis: int, new_axis: int = 0) -> Array:
    """The elements joined along `axis`, which is a new one if `new_axis`. Raises ValueError for an empty sequence."""
    if not sequence:
        raise ValueError("concat_from_sequence takes a sequence of at least one tensor")
    return np.stack(sequence, axis=axis) if new_axis else np.concatenate(sequence, axis=axis)


def optional(element: Element | None = None, /) -> Element | None:
    """An optional that holds the element, or nothing."""
    return element


def optional_has_element(element: Element | None = None, /) -> Array:
    """Whether there is an element: bool []."""
    return np.array(element is not None)


def optional_get_element(element: Element | None, /) -> Element:
    """The element. Raises ValueError if there is none."""
    if element is None:
        raise ValueError("optional_get_element takes an optional that holds an element, got an empty one")
    return element


def _lengths(split: int | Sequence[int] | None, extent: int) -> list[int]:
    if isinstance(split, Sequence):
        lengths = list(split)
        if sum(lengths) != extent or min(lengths, default=0) < 0:
            raise ValueError(f"split_to_sequence: lengths {lengths} do not add up to {extent}")
        return lengths
    step = 1 if split is None else split
    if step < 1:
        raise ValueError(f"split_to_sequence: the length of the pieces must be positive, got {step}")
    return [min(step, extent - start) for start in range(0, extent, step)]


def _index(position: Array, count: int, last: int, op: str) -> int:
    """A position counted from the front, given that [-count, last] is allowed."""
    at = int(position.reshape(()))
    if not -count <= at <= last:
        raise ValueError(f"{op}: position {at} is outside [{-count}, {last}] of a sequence of {count} tensors")
    return at + count if at < 0 else at
