"""Data movement: reshape, transpose, broadcast, concatenate, split, slice. Results may be views of the inputs.

Every op takes any element type. Sizes, axes and bounds are static attributes; `<op>_dynamic` takes them as arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def normalise_axis(axis: int, rank: int, what: str = "axis") -> int:
    """The non-negative form of an axis. Raises ValueError outside [-rank, rank)."""
    if not -rank <= axis < rank:
        raise ValueError(f"{what} must lie in [{-rank}, {rank}), got {axis}")
    return axis % rank


def normalise_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """The non-negative forms of several axes. Raises ValueError where one is out of range or named twice."""
    found = tuple(normalise_axis(int(a), rank) for a in axes)
    if len(set(found)) != len(found):
        raise ValueError(f"axes must differ from each other, got {tuple(axes)} for rank {rank}")
    return found


def integers(values: Array) -> tuple[int, ...]:
    """The elements of an integer array of rank at most 1, as Python ints."""
    if values.ndim > 1:
        raise ValueError(f"a list of integers must have rank 1, got shape {values.shape}")
    return tuple(int(v) for v in values.reshape(-1))


def identity(x: Any, /) -> Any:
    """The input itself, for tensors, sequences and optionals."""
    return x


def reshape(x: Array, /, *, shape: Sequence[int]) -> Array:
    """The elements of x, row-major, in another shape. Raises ValueError if it holds another number of elements."""
    if math.prod(shape) != x.size or min(shape, default=0) < 0:
        raise ValueError(f"cannot reshape {x.shape} to {tuple(shape)}: {x.size} elements do not fill it exactly")
    return x.reshape(shape)


def reshape_dynamic(x: Array, shape: Array, /, *, allowzero: bool = False) -> Array:
    """Reshape to a run-time shape: one -1 is inferred; 0 copies the dimension of x unless `allowzero`."""
    return reshape(x, shape=resolve_reshape(x.shape, integers(shape), allowzero))


def resolve_reshape(old: Sequence[int], new: Sequence[int], allowzero: bool) -> tuple[int, ...]:
    """The shape that Reshape means by `new`, with 0 and -1 replaced. Raises ValueError if there is none."""
    if any(d < -1 for d in new) or list(new).count(-1) > 1:
        raise ValueError(f"a reshape target takes sizes and at most one -1, got {tuple(new)}")
    if not allowzero and any(d == 0 for d in new[len(old) :]):
        raise ValueError(f"a reshape target copies a dimension that the input {tuple(old)} has not: {tuple(new)}")
    sizes = [old[i] if d == 0 and not allowzero else d for i, d in enumerate(new)]
    if -1 in sizes:
        known = math.prod(d for d in sizes if d != -1)
        if known == 0 or math.prod(old) % known:
            raise ValueError(f"cannot infer the -1 of reshape {tuple(old)} -> {tuple(new)}")
        sizes[sizes.index(-1)] = math.prod(old) // known
    return tuple(sizes)


def flatten(x: Array, /, *, axis: int = 1) -> Array:
    """A matrix of prod(shape[:axis]) rows and prod(shape[axis:]) columns; axis in [-rank, rank]."""
    split_at = x.ndim if axis == x.ndim else normalise_axis(axis, x.ndim)
    return x.reshape(math.prod(x.shape[:split_at]), math.prod(x.shape[split_at:]))


def squeeze(x: Array, /, *, axes: Sequence[int] | None = None) -> Array:
    """Drop the given axes, which must be of size 1, or all of size 1 for None."""
    if axes is None:
        return x.reshape([d for d in x.shape if d != 1])
    dropped = normalise_axes(axes, x.ndim)
    for axis in dropped:
        if x.shape[axis] != 1:
            raise ValueError(f"squeeze drops axes of size 1, axis {axis} of {x.shape} is {x.shape[axis]}")
    return x.reshape([d for i, d in enumerate(x.shape) if i not in dropped])


def squeeze_dynamic(x: Array, axes: Array, /) -> Array:
    """Squeeze with run-time axes."""
    return squeeze(x, axes=integers(axes))


def unsqueeze(x: Array, /, *, axes: Sequence[int]) -> Array:
    """Insert axes of size 1; `axes` count in the output."""
    rank = x.ndim + len(axes)
    added = normalise_axes(axes, rank)
    sizes = iter(x.shape)
    return x.reshape([1 if d in added else next(sizes) for d in range(rank)])


def unsqueeze_dynamic(x: Array, axes: Array, /) -> Array:
    """Unsqueeze with run-time axes."""
    return unsqueeze(x, axes=integers(axes))


def transpose(x: Array, /, *, perm: Sequence[int] | None = None) -> Array:
    """y.shape[i] = x.shape[perm[i]]; None reverses the axes."""
    if perm is not None and sorted(perm) != list(range(x.ndim)):
        raise ValueError(f"perm must hold every axis of rank {x.ndim} once, got {tuple(perm)}")
    return x.transpose(perm)


def expand(x: Array, /, *, shape: Sequence[int]) -> Array:
    """Broadcast x and a tensor of `shape` against each other, as a read-only view; sizes of 1 in `shape` keep x's."""
    try:
        return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape)))
    except ValueError as error:
        raise ValueError(f"{x.shape} does not broadcast with {tuple(shape)}") from error


def expand_dynamic(x: Array, shape: Array, /) -> Array:
    """Expand to a run-time shape."""
    return expand(x, shape=integers(shape))


def tile(x: Array, /, *, repeats: Sequence[int]) -> Array:
    """Repeat x `repeats[i]` times along axis i."""
    if len(repeats) != x.ndim or min(repeats, default=0) < 0:
        raise ValueError(f"repeats takes one non-negative count for each axis of {x.shape}, got {tuple(repeats)}")
    sizes = tuple(r * d for r, d in zip(repeats, x.shape, strict=True))
    paired = tuple(p for r, d in zip(repeats, x.shape, strict=True) for p in (r, d))
    if math.prod(sizes) == 0 or x.ndim > 32:
        return np.tile(x, tuple(repeats))
    # One copy: insert an axis before each, broadcast it, merge.
    spread = np.broadcast_to(x.reshape([p for d in x.shape for p in (1, d)]), paired)
    return spread.reshape(sizes)


def tile_dynamic(x: Array, repeats: Array, /) -> Array:
    """Tile with run-time repeats."""
    return tile(x, repeats=integers(repeats))


def concat(*inputs: Array, axis: int) -> Array:
    """Join along an existing axis; the other dimensions agree."""
    if not inputs:
        raise ValueError("concat takes at least one input")
    axis = normalise_axis(axis, inputs[0].ndim)
    rest = {x.shape[:axis] + x.shape[axis + 1 :] for x in inputs}
    if len(rest) != 1 or any(x.ndim != inputs[0].ndim for x in inputs):
        raise ValueError(f"concat inputs may differ along axis {axis} only, got {[x.shape for x in inputs]}")
    return np.concatenate(inputs, axis=axis)


def split(x: Array, /, *, axis: int, split: Sequence[int]) -> tuple[Array, ...]:
    """Cut into parts of the given sizes along an axis (views). Raises ValueError unless they sum to its size."""
    axis = normalise_axis(axis, x.ndim)
    if min(split, default=0) < 0 or sum(split) != x.shape[axis]:
        raise ValueError(f"split sizes {tuple(split)} must add up to {x.shape[axis]}, the size of axis {axis}")
    parts, start = [], 0
    for size in split:
        parts.append(x[(slice(None),) * axis + (slice(start, start + size),)])
        start += size
    return tuple(parts)


def split_dynamic(x: Array, split_: Array, /, *, axis: int, num_outputs: int) -> tuple[Array, ...]:
    """Split with run-time sizes, whose number is known."""
    sizes = integers(split_)
    if len(sizes) != num_outputs:
        raise ValueError(f"split has {num_outputs} outputs, got {len(sizes)} sizes")
    return split(x, axis=axis, split=sizes)


def split_sizes(size: int, num_outputs: int) -> tuple[int, ...]:
    """The sizes of `num_outputs` parts: equal, the last one smaller if they do not divide (possibly empty)."""
    part = -(-size // num_outputs)
    return tuple(max(0, min(part, size - i * part)) for i in range(num_outputs))


def slice_bounds(start: int, end: int, step: int, size: int) -> tuple[int, int, int]:
    """ONNX's clamped (first, stop, count) of one sliced axis; stop is -1 where a negative step runs to the front.

    Negative bounds count from the end; then start is clamped to [0, size] and end to [0, size] for a positive step,
    to [0, size-1] and [-1, size-1] for a negative one.
    """
    if step == 0:
        raise ValueError("a slice step must not be 0")
    low, high = (0, size) if step > 0 else (-1, size - 1)
    first = min(max(start + size if start < 0 else start, 0), high)
    stop = min(max(end + size if end < 0 else end, low), high)
    count = max(0, -((first - stop) // step)) if step > 0 else max(0, -((stop - first) // -step))
    return first, stop, count


def slice_(
    x: Array,
    /,
    *,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
) -> Array:
    """The view x[starts:ends:steps] along `axes` (default: the leading ones); bounds as in `slice_bounds`."""
    axes = normalise_axes(range(len(starts)) if axes is None else axes, x.ndim)
    steps = (1,) * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise ValueError(f"slice takes as many starts, ends, axes and steps, got {starts}, {ends}, {axes}, {steps}")
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        first, stop, count = slice_bounds(int(start), int(end), int(step), x.shape[axis])
        index[axis] = slice(first, None if stop < 0 else stop, step) if count else slice(0, 0)
    return x[tuple(index)]


def slice_dynamic(
    x: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None, /
) -> Array:
    """Slice with run-time bounds."""
    return slice_(
        x,
        starts=integers(starts),
        ends=integers(ends),
        axes=None if axes is None else integers(axes),
        steps=None if steps is None else integers(steps),
    )


def trilu(x: Array, /, *, k: int = 0, upper: bool = True) -> Array:
    """Keep the triangle on and above (upper) or on and below diagonal k of the last two axes; zeros elsewhere."""
    if x.ndim < 2:
        raise ValueError(f"trilu takes matrices, got shape {x.shape}")
    rows, columns = np.ogrid[: x.shape[-2], : x.shape[-1]]
    k = min(max(k, -x.shape[-2] - 1), x.shape[-1] + 1)
    keep = columns - rows >= k if upper else columns - rows <= k
    return np.where(keep, x, zero_of(x.dtype))


def trilu_dynamic(x: Array, k: Array | None = None, /, *, upper: bool = True) -> Array:
    """Trilu with a run-time diagonal."""
    return trilu(x, k=0 if k is None else int(k.reshape(())), upper=upper)


def zero_of(dtype: np.dtype[Any]) -> Array:
    """The zero of an element type as a 0-d array (strings: the empty string)."""
    return np.array("", dtype=object) if dtype.kind == "O" else np.zeros((), dtype)


def reverse_sequence(x: Array, sequence_lens: Array, /, *, batch_axis: int = 1, time_axis: int = 0) -> Array:
    """Reverse the first `sequence_lens[b]` steps along `time_axis` of each batch item b; later steps stay.

    Axes 0 and 1 of x are batch and time in either order; sequence_lens: int64 [batch], each in [0, time].
    """
    if x.ndim < 2 or {batch_axis, time_axis} != {0, 1}:
        raise ValueError(f"batch_axis and time_axis must be 0 and 1, got {batch_axis}, {time_axis} for {x.shape}")
    batch, time = x.shape[batch_axis], x.shape[time_axis]
    if sequence_lens.shape != (batch,):
        raise ValueError(f"sequence_lens must have shape ({batch},), got {sequence_lens.shape}")
    if batch and (sequence_lens.min() < 0 or sequence_lens.max() > time):
        raise ValueError(f"sequence_lens must lie in [0, {time}], got {sequence_lens.min()} to {sequence_lens.max()}")
    steps, lengths = np.arange(time), sequence_lens[:, None]
    source = np.where(steps < lengths, lengths - 1 - steps, steps)
    items = np.arange(batch)[:, None]
    return x[items, source] if batch_axis == 0 else x[source.T, items.T]
