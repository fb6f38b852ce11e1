"""torch functions for what moves, selects, indexes or makes elements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from fusible.benchmarks.kernels.counterparts.forms import Form, Use, need
from fusible.benchmarks.kernels.counterparts.torch_elementwise import DTYPES

__all__ = ["FORMS"]


def _sizes(operand: Any) -> tuple[int, ...]:
    """What a vector operand says, as Python numbers."""
    return tuple(int(n) for n in operand.reshape(-1).tolist())


def _stated(use: Use, attribute: str, operand: int = 1) -> Any:
    """An attribute, or in the dynamic form of an op an operand."""
    return getattr(use.attrs, attribute) if hasattr(use.attrs, attribute) else _sizes(use.operands[operand])


def _squeeze(use: Use) -> Callable[[], Any]:
    axes = _stated(use, "axes") if use.case.op == "squeeze" else _sizes(use.operands[1])
    return partial(torch.squeeze, use.x) if axes is None else partial(torch.squeeze, use.x, tuple(axes))


def _unsqueeze(use: Use) -> Callable[[], Any]:
    shape, axes = list(use.x.shape), _stated(use, "axes")
    rank = len(shape) + len(axes)
    for axis in sorted(a % rank for a in axes):
        shape.insert(axis, 1)
    return partial(use.x.reshape, shape)


def _expand(use: Use) -> Callable[[], Any]:
    return partial(use.x.expand, torch.broadcast_shapes(use.x.shape, _stated(use, "shape")))


def _transpose(use: Use) -> Callable[[], Any]:
    perm = use.attrs.perm
    return partial(torch.permute, use.x, tuple(reversed(range(use.x.ndim))) if perm is None else perm)


def _slice(use: Use) -> Callable[[], Any]:
    x = use.x
    starts, ends = _stated(use, "starts", 1), _stated(use, "ends", 2)
    if hasattr(use.attrs, "axes"):
        axes, steps = use.attrs.axes, use.attrs.steps
    else:
        axes, steps = (() if use.operand(i) is None else _sizes(use.operands[i]) for i in (3, 4))
    places = [slice(None)] * x.ndim
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        step = steps[k] if steps else 1
        need(step > 0, "slices that run backwards")
        places[axes[k] if axes else k] = slice(start, end, step)
    where = tuple(places)
    return lambda: x[where]


def _pad(use: Use) -> Callable[[], Any]:
    x, attrs = use.x, use.attrs
    pads = _stated(use, "pads")
    fill = use.operand(1 if hasattr(attrs, "pads") else 2)
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    need(attrs.mode in modes and len(pads) == 2 * x.ndim, f"mode {attrs.mode}")
    both = [p for axis in reversed(range(x.ndim)) for p in (pads[axis], pads[axis + x.ndim])]
    if attrs.mode == "constant":
        return partial(F.pad, x, both, value=0 if fill is None else fill.item())
    while both and both[-2:] == [0, 0]:
        both = both[:-2]  # these modes take the last axes only
    return partial(F.pad, x, both, modes[attrs.mode])


def _trilu(use: Use) -> Callable[[], Any]:
    k = use.attrs.k if hasattr(use.attrs, "k") else int(use.operands[1])
    return partial(torch.triu if use.attrs.upper else torch.tril, use.x, k)


def _blocks(function: Callable[..., Any]) -> Form:
    def form(use: Use) -> Callable[[], Any]:
        need(use.attrs.mode == "CRD", "blocks before channels")
        return partial(function, use.x, use.attrs.blocksize)

    return form


def _gather(use: Use) -> Callable[[], Any]:
    x, indices, axis = use.x, use.operands[1], use.attrs.axis
    if axis in (0, -x.ndim) and x.ndim == 2 and x.is_floating_point():
        return partial(F.embedding, indices, x)
    if indices.ndim == 1:
        return partial(torch.index_select, x, axis, indices)
    where = (*(slice(None),) * (axis % max(x.ndim, 1)), indices)
    return lambda: x[where]


def _gather_nd(use: Use) -> Callable[[], Any]:
    x, indices = use.x, use.operands[1]
    need(use.attrs.batch_dims == 0, "batches of indices")
    return lambda: x[tuple(indices.unbind(-1))]


def _scatter_elements(use: Use) -> Callable[[], Any]:
    need(use.attrs.reduction == "none", "scatters that add up")
    x, indices, updates = use.operands
    return partial(torch.scatter, x, use.attrs.axis, indices, updates)


def _scatter_nd(use: Use) -> Callable[[], Any]:
    need(use.attrs.reduction == "none", "scatters that add up")
    x, indices, updates = use.operands
    return lambda: torch.index_put(x, tuple(indices.unbind(-1)), updates)


def _one_hot(use: Use) -> Callable[[], Any]:
    values, indices = use.operands[-1], use.x
    depth = use.attrs.depth if hasattr(use.attrs, "depth") else int(use.operands[1])
    need(use.attrs.axis in (-1, indices.ndim) and values.tolist() == [0, 1], "another axis than the last, other values")
    return lambda: F.one_hot(indices, depth).to(values.dtype)


def _top_k(use: Use) -> Callable[[], Any]:
    attrs = use.attrs
    need(use.x.is_floating_point() and attrs.sorted, "ties, whose order torch leaves open")
    k = attrs.k if hasattr(attrs, "k") else int(use.operands[1])
    return lambda: tuple(torch.topk(use.x, k, attrs.axis, attrs.largest))


def _compress(use: Use) -> Callable[[], Any]:
    x, condition, axis = use.x, use.operands[1], use.attrs.axis
    need(axis is not None, "a flattened operand")
    where = (*(slice(None),) * (axis % x.ndim), condition)
    return lambda: x[where]


def _range(use: Use) -> Callable[[], Any]:
    start, limit, delta = (x.item() for x in use.operands)
    return partial(torch.arange, start, limit, delta, dtype=use.x.dtype)


def _eye_like(use: Use) -> Callable[[], Any]:
    need(use.attrs.k == 0, "another diagonal")
    return partial(torch.eye, *use.x.shape, dtype=DTYPES[use.attrs.dtype])


def _drawn(function: Callable[..., Any]) -> Form:
    def form(use: Use) -> Callable[[], Any]:
        attrs = use.attrs
        shape, dtype = attrs.shape if hasattr(attrs, "shape") else use.x.shape, DTYPES[attrs.dtype]
        return partial(function, shape, dtype=dtype)

    return form


def _bernoulli(use: Use) -> Callable[[], Any]:
    return partial(torch.bernoulli, use.x)


def _dropout(use: Use) -> Callable[[], Any]:
    ratio, training = use.operand(1), use.operand(2)
    need(ratio is not None and training is not None and bool(training), "dropout that does nothing")

    def call() -> Any:
        return torch.native_dropout(use.x, float(ratio), True)

    return call


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "identity": lambda use: lambda: use.x,
        "reshape": lambda use: partial(use.x.reshape, use.attrs.shape),
        "reshape_dynamic": lambda use: partial(use.x.reshape, _sizes(use.operands[1])),
        "flatten": lambda use: lambda: use.x.reshape(use.x.shape[: use.attrs.axis].numel(), -1),
        "squeeze": _squeeze,
        "squeeze_dynamic": _squeeze,
        "unsqueeze": _unsqueeze,
        "unsqueeze_dynamic": _unsqueeze,
        "transpose": _transpose,
        "expand": _expand,
        "expand_dynamic": _expand,
        "tile": lambda use: partial(torch.tile, use.x, _stated(use, "repeats")),
        "tile_dynamic": lambda use: partial(torch.tile, use.x, _stated(use, "repeats")),
        "slice": _slice,
        "slice_dynamic": _slice,
        "split": lambda use: lambda: tuple(torch.split(use.x, list(_stated(use, "split")), use.attrs.axis)),
        "split_dynamic": lambda use: lambda: tuple(torch.split(use.x, list(_stated(use, "split")), use.attrs.axis)),
        "concat": lambda use: partial(torch.cat, use.present, use.attrs.axis),
        "concat_from_sequence": lambda use: partial(
            torch.stack if use.attrs.new_axis else torch.cat, use.x, use.attrs.axis
        ),
        "pad": _pad,
        "pad_dynamic": _pad,
        "trilu": _trilu,
        "trilu_dynamic": _trilu,
        "depth_to_space": _blocks(F.pixel_shuffle),
        "space_to_depth": _blocks(F.pixel_unshuffle),
        "bit_cast": lambda use: partial(use.x.view, DTYPES[use.attrs.dtype]),
        "gather": _gather,
        "gather_elements": lambda use: partial(torch.gather, use.x, use.attrs.axis, use.operands[1]),
        "gather_nd": _gather_nd,
        "array_feature_extractor": lambda use: partial(
            torch.index_select, use.x, use.x.ndim - 1, use.operands[1].reshape(-1)
        ),
        "scatter_elements": _scatter_elements,
        "scatter_nd": _scatter_nd,
        "one_hot": _one_hot,
        "one_hot_dynamic": _one_hot,
        "top_k": _top_k,
        "top_k_dynamic": _top_k,
        "non_zero": lambda use: lambda: torch.nonzero(use.x).T,
        "compress": _compress,
        "range": _range,
        "range_dynamic": _range,
        "eye_like": _eye_like,
        "random_normal": _drawn(torch.randn),
        "random_normal_like": _drawn(torch.randn),
        "random_uniform": _drawn(torch.rand),
        "random_uniform_like": _drawn(torch.rand),
        "bernoulli": _bernoulli,
        "dropout": _dropout,
    }
)
