"""NumPy expressions for what moves, selects, indexes or makes elements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from fusible.benchmarks.kernels.counterparts.forms import Form, Use, need
from fusible.compiler.ir.types import DType

__all__ = ["FORMS"]


def _sizes(operand: Any) -> tuple[int, ...]:
    """What a vector operand says, as Python numbers."""
    return tuple(int(n) for n in np.asarray(operand).reshape(-1))


def _reshape_dynamic(use: Use) -> Callable[[], Any]:
    target = _sizes(use.operands[1])
    need(0 not in target, "a target that copies dimensions")
    return partial(np.reshape, use.x, target)


def _flatten(use: Use) -> Callable[[], Any]:
    x = use.x
    rows = int(np.prod(x.shape[: use.attrs.axis]))
    return partial(np.reshape, x, (rows, -1))


def _squeeze_axes(use: Use) -> tuple[int, ...] | None:
    if len(use.operands) > 1:
        return _sizes(use.operands[1])
    axes: tuple[int, ...] | None = use.attrs.axes
    return axes


def _unsqueeze(use: Use) -> Callable[[], Any]:
    axes = _sizes(use.operands[1]) if len(use.operands) > 1 else use.attrs.axes
    return partial(np.expand_dims, use.x, axes)


def _expand(use: Use) -> Callable[[], Any]:
    target = _sizes(use.operands[1]) if len(use.operands) > 1 else use.attrs.shape
    return partial(np.broadcast_to, use.x, np.broadcast_shapes(use.x.shape, target))


def _tile(use: Use) -> Callable[[], Any]:
    repeats = _sizes(use.operands[1]) if len(use.operands) > 1 else use.attrs.repeats
    return partial(np.tile, use.x, repeats)


def _slice(use: Use) -> Callable[[], Any]:
    x = use.x
    if len(use.operands) > 1:
        starts, ends = _sizes(use.operands[1]), _sizes(use.operands[2])
        given, step = use.operand(3), use.operand(4)
        axes = tuple(range(len(starts))) if given is None else _sizes(given)
        steps = (1,) * len(starts) if step is None else _sizes(step)
    else:
        starts, ends, axes, steps = use.attrs.starts, use.attrs.ends, use.attrs.axes, use.attrs.steps
    places = [slice(None)] * x.ndim
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis, step = (axes[k] if axes else k), (steps[k] if steps else 1)
        need(step > 0, "slices that run backwards")
        places[axis] = slice(start, end, step)
    where = tuple(places)
    return lambda: x[where]


def _split(use: Use) -> Callable[[], Any]:
    sizes = use.attrs.split if hasattr(use.attrs, "split") else _sizes(use.operands[1])
    cuts = np.cumsum(sizes)[:-1].tolist()
    return lambda: tuple(np.split(use.x, cuts, axis=use.attrs.axis))


def _pad(use: Use) -> Callable[[], Any]:
    x, attrs = use.x, use.attrs
    pads = attrs.pads if hasattr(attrs, "pads") else _sizes(use.operands[1])
    fill = use.operand(1 if hasattr(attrs, "pads") else 2)
    need(min(pads, default=0) >= 0 and len(pads) == 2 * x.ndim, "pads that cut, pads of some axes")
    border = [(pads[a], pads[a + x.ndim]) for a in range(x.ndim)]
    if attrs.mode == "constant":
        return partial(np.pad, x, border, constant_values=0 if fill is None else fill.item())
    need(attrs.mode in ("reflect", "edge", "wrap"), f"mode {attrs.mode}")
    return partial(np.pad, x, border, mode=attrs.mode)


def _trilu(use: Use) -> Callable[[], Any]:
    k = use.attrs.k if hasattr(use.attrs, "k") else int(use.operands[1])
    return partial(np.triu if use.attrs.upper else np.tril, use.x, k)


def _depth_to_space(use: Use) -> Callable[[], Any]:
    x, b = use.x, use.attrs.blocksize
    n, c, h, w = x.shape
    if use.attrs.mode == "DCR":
        blocks, perm = (n, b, b, c // (b * b), h, w), (0, 3, 4, 1, 5, 2)
    else:
        blocks, perm = (n, c // (b * b), b, b, h, w), (0, 1, 4, 2, 5, 3)
    return lambda: x.reshape(blocks).transpose(perm).reshape(n, c // (b * b), h * b, w * b)


def _space_to_depth(use: Use) -> Callable[[], Any]:
    x, b = use.x, use.attrs.blocksize
    need(use.attrs.mode == "DCR", f"mode {use.attrs.mode}")
    n, c, h, w = x.shape
    blocks = (n, c, h // b, b, w // b, b)
    return lambda: x.reshape(blocks).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


def _resize(use: Use) -> Callable[[], Any]:
    x, attrs = use.x, use.attrs
    scales = attrs.scales
    whole = attrs.mode == "nearest" and scales is not None and all(s == int(s) for s in scales)
    need(whole and attrs.axes is None and attrs.coordinate_transformation_mode == "asymmetric", "interpolation")
    repeats = [(axis, int(s)) for axis, s in enumerate(scales) if s != 1]

    def call() -> Any:
        y = x
        for axis, count in repeats:
            y = np.repeat(y, count, axis)
        return y

    return call


# Indices


def _gather(use: Use) -> Callable[[], Any]:
    return partial(np.take, use.x, use.operands[1], axis=use.attrs.axis)


def _gather_nd(use: Use) -> Callable[[], Any]:
    x, indices = use.x, use.operands[1]
    need(use.attrs.batch_dims == 0, "batches of indices")
    return lambda: x[tuple(np.moveaxis(indices, -1, 0))]


def _scatter_elements(use: Use) -> Callable[[], Any]:
    x, indices, updates = use.operands
    need(use.attrs.reduction == "none", "scatters that add up")

    def call() -> Any:
        y = x.copy()
        np.put_along_axis(y, indices, updates, axis=use.attrs.axis)
        return y

    return call


def _scatter_nd(use: Use) -> Callable[[], Any]:
    x, indices, updates = use.operands
    need(use.attrs.reduction == "none", "scatters that add up")

    def call() -> Any:
        y = x.copy()
        y[tuple(np.moveaxis(indices, -1, 0))] = updates
        return y

    return call


def _one_hot(use: Use) -> Callable[[], Any]:
    indices, values = use.x, use.operands[-1]
    depth = use.attrs.depth if hasattr(use.attrs, "depth") else int(use.operands[1])
    need(use.attrs.axis in (-1, indices.ndim), "another axis than the last")
    return lambda: np.where(np.arange(depth) == indices[..., None], values[1], values[0])


def _top_k(use: Use) -> Callable[[], Any]:
    x, attrs = use.x, use.attrs
    k = attrs.k if hasattr(attrs, "k") else int(use.operands[1].item())
    axis = attrs.axis
    need(x.dtype.kind == "f" and attrs.sorted, "integers, whose order ties leave open")

    def call() -> Any:
        order = np.argsort(-x if attrs.largest else x, axis=axis)
        best = np.take(order, np.arange(k), axis=axis)
        return np.take_along_axis(x, best, axis=axis), best

    return call


def _compress(use: Use) -> Callable[[], Any]:
    return partial(np.compress, use.operands[1], use.x, axis=use.attrs.axis)


def _unique(use: Use) -> Callable[[], Any]:
    x = use.x
    need(use.attrs.sorted and use.attrs.axis is None, "slices, or the order of occurrence")

    def call() -> Any:
        values, first, inverse, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True)
        return values, first, inverse.reshape(-1), counts

    return call


def _range(use: Use) -> Callable[[], Any]:
    start, limit, delta = (x.item() for x in use.operands)
    return partial(np.arange, start, limit, delta, dtype=use.x.dtype)


def _eye_like(use: Use) -> Callable[[], Any]:
    return partial(np.eye, *use.x.shape, k=use.attrs.k, dtype=use.attrs.dtype.numpy)


def _max_unpool(use: Use) -> Callable[[], Any]:
    x, places = use.operands[:2]
    need(len(use.operands) > 2, "sizes that follow from the window")
    whole = _sizes(use.operands[2])

    def call() -> Any:
        y = np.zeros(whole, x.dtype)
        np.put(y, places, x)
        return y

    return call


def _drawn(method: str) -> Form:
    """Numbers from a generator that is there already."""

    def form(use: Use) -> Callable[[], Any]:
        attrs, generator = use.attrs, np.random.default_rng(0)
        need(attrs.dtype in (DType.F32, DType.F64), "random halves")
        shape = attrs.shape if hasattr(attrs, "shape") else use.x.shape
        draw = partial(getattr(generator, method), shape, attrs.dtype.numpy)
        if method == "random":
            return lambda: draw() * (attrs.high - attrs.low) + attrs.low
        return lambda: draw() * attrs.scale + attrs.mean

    return form


_NORMAL, _UNIFORM = _drawn("standard_normal"), _drawn("random")

FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "bit_cast": lambda use: partial(use.x.view, use.attrs.dtype.numpy),
        "size": lambda use: lambda: np.asarray(use.x.size, np.int64),
        "max_unpool_dynamic": _max_unpool,
        "random_normal": _NORMAL,
        "random_normal_like": _NORMAL,
        "random_uniform": _UNIFORM,
        "random_uniform_like": _UNIFORM,
        "reshape": lambda use: partial(np.reshape, use.x, use.attrs.shape),
        "reshape_dynamic": _reshape_dynamic,
        "flatten": _flatten,
        "squeeze": lambda use: partial(np.squeeze, use.x, _squeeze_axes(use)),
        "squeeze_dynamic": lambda use: partial(np.squeeze, use.x, _squeeze_axes(use)),
        "unsqueeze": _unsqueeze,
        "unsqueeze_dynamic": _unsqueeze,
        "transpose": lambda use: partial(np.transpose, use.x, use.attrs.perm),
        "expand": _expand,
        "expand_dynamic": _expand,
        "tile": _tile,
        "tile_dynamic": _tile,
        "slice": _slice,
        "slice_dynamic": _slice,
        "split": _split,
        "split_dynamic": _split,
        "concat": lambda use: partial(np.concatenate, use.present, axis=use.attrs.axis),
        "concat_from_sequence": lambda use: partial(
            np.stack if use.attrs.new_axis else np.concatenate, use.x, axis=use.attrs.axis
        ),
        "pad": _pad,
        "pad_dynamic": _pad,
        "trilu": _trilu,
        "trilu_dynamic": _trilu,
        "depth_to_space": _depth_to_space,
        "space_to_depth": _space_to_depth,
        "resize": _resize,
        "gather": _gather,
        "gather_elements": lambda use: partial(np.take_along_axis, use.x, use.operands[1], axis=use.attrs.axis),
        "gather_nd": _gather_nd,
        "array_feature_extractor": lambda use: lambda: use.x[..., use.operands[1].reshape(-1)],
        "scatter_elements": _scatter_elements,
        "scatter_nd": _scatter_nd,
        "one_hot": _one_hot,
        "one_hot_dynamic": _one_hot,
        "top_k": _top_k,
        "top_k_dynamic": _top_k,
        "non_zero": lambda use: lambda: np.stack(np.nonzero(use.x)),
        "compress": _compress,
        "unique": _unique,
        "range": _range,
        "range_dynamic": _range,
        "eye_like": _eye_like,
    }
)
