"""Ranges, diagonal matrices and random tensors.

ConstantOfShape is imported as `expand` of its value: there is no second way to fill a tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusible.compiler.ir.composition import tensor_of
from fusible.compiler.ir.definition import Definition, Opaque, Positions, same
from fusible.compiler.ir.extents import range_extent
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.ops import CONTENT_LIMIT, OPS, Content, Infer, Op
from fusible.compiler.ir.symbols import Dim, SymInt
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.index import axis
from fusible.kernels.numpy.creation import range_count

__all__ = [
    "BernoulliAttrs",
    "EyeLikeAttrs",
    "MultinomialAttrs",
    "RandomNormalAttrs",
    "RandomNormalLikeAttrs",
    "RandomUniformAttrs",
    "RandomUniformLikeAttrs",
    "known_range",
]


@dataclass(frozen=True, slots=True)
class EyeLikeAttrs:
    """dtype: of the result; k: the diagonal that holds ones."""

    dtype: DType
    k: int = 0


@dataclass(frozen=True, slots=True)
class RandomNormalAttrs:
    """shape, dtype: of the result; mean, scale: of the distribution; seed: None for other numbers at each run."""

    shape: tuple[Dim, ...]
    dtype: DType
    mean: float = 0.0
    scale: float = 1.0
    seed: float | None = None


@dataclass(frozen=True, slots=True)
class RandomNormalLikeAttrs:
    """As RandomNormalAttrs, the shape being the operand's."""

    dtype: DType
    mean: float = 0.0
    scale: float = 1.0
    seed: float | None = None


@dataclass(frozen=True, slots=True)
class RandomUniformAttrs:
    """shape, dtype: of the result; low, high: of the interval; seed: None for other numbers at each run."""

    shape: tuple[Dim, ...]
    dtype: DType
    low: float = 0.0
    high: float = 1.0
    seed: float | None = None


@dataclass(frozen=True, slots=True)
class RandomUniformLikeAttrs:
    """As RandomUniformAttrs, the shape being the operand's."""

    dtype: DType
    low: float = 0.0
    high: float = 1.0
    seed: float | None = None


@dataclass(frozen=True, slots=True)
class BernoulliAttrs:
    """dtype: of the result; seed: None for other numbers at each run."""

    dtype: DType
    seed: float | None = None


@dataclass(frozen=True, slots=True)
class MultinomialAttrs:
    """dtype: of the result (i32 or i64); sample_size: draws a row; seed: None for other numbers at each run."""

    dtype: DType
    sample_size: int = 1
    seed: float | None = None


def known_range(bounds: list[Content | None], dtype: DType) -> Dim | None:
    """The number of elements of a range with these contents (start, limit, delta); None if one is not known.

    ValueError for a delta of 0 or a range without end.
    """
    scalars = [c.reshape(-1)[0] for c in bounds if c is not None and c.size == 1]
    if len(scalars) != 3:
        return None
    if any(isinstance(s, SymInt) for s in scalars):
        return range_extent(*scalars) if dtype.is_integer else None
    return range_count(*(np.array(s).astype(dtype.numpy) for s in scalars))


def _range(ctx: Infer) -> TensorType:
    if len({ctx.dtype(i) for i in range(3)}) != 1:
        ctx.fail("start, limit and delta differ in element type")
    extent = known_range([ctx.content(i) for i in range(3)], ctx.dtype(0))
    if extent is None:
        ctx.fail("the number of elements is not known; range_dynamic takes such bounds")
    return TensorType(ctx.dtype(0), (extent,))


def _range_content(ctx: Infer) -> Content | None:
    extent = known_range([ctx.content(i) for i in range(3)], ctx.dtype(0))
    start, delta = ctx.content(0), ctx.content(2)
    if start is None or delta is None or not isinstance(extent, int) or extent > CONTENT_LIMIT:
        return None
    if not ctx.dtype(0).is_integer:
        return None  # rounding is the kernel's
    first, step = start.reshape(-1)[0], delta.reshape(-1)[0]
    content = np.empty(extent, dtype=object)
    content[:] = [first + step * i for i in range(extent)]
    return content


def _range_dynamic(ctx: Infer) -> TensorType:
    return TensorType(ctx.dtype(0), (ctx.fresh("range"),))


def _eye_like(ctx: Infer) -> TensorType:
    shape = ctx.shape(0)
    if shape is not None and len(shape) != 2:
        ctx.fail(f"takes a matrix, got {ctx.type(0)}")
    return TensorType(ctx.attrs.dtype, shape)


def _shaped(ctx: Infer) -> TensorType:
    if any(isinstance(d, int) and d < 0 for d in ctx.attrs.shape):
        ctx.fail(f"the shape {list(ctx.attrs.shape)} has a negative dimension")
    return TensorType(ctx.attrs.dtype, ctx.attrs.shape)


def _like(ctx: Infer) -> TensorType:
    return TensorType(ctx.attrs.dtype, ctx.shape(0))


def _multinomial(ctx: Infer) -> TensorType:
    shape = ctx.shape(0)
    if shape is not None and len(shape) != 2:
        ctx.fail(f"takes log-probabilities [batch, classes], got {ctx.type(0)}")
    if ctx.attrs.sample_size < 0 or ctx.attrs.dtype not in (DType.I32, DType.I64):
        ctx.fail(f"draws {ctx.attrs.sample_size} samples of type {ctx.attrs.dtype.value}: i32 or i64 expected")
    batch: Dim = ctx.fresh("batch") if shape is None else shape[0]
    return TensorType(ctx.attrs.dtype, (batch, ctx.attrs.sample_size))


def _range_definition(node: Node) -> Definition:
    start, _, delta = (None if value is None else value.content for value in node.inputs)
    if start is None or delta is None or not tensor_of(node.outputs[0]).dtype.is_integer:
        return Opaque("its first element or its step is known only when it runs, or rounded")
    return Positions(start.reshape(-1)[0] + delta.reshape(-1)[0] * axis(0))


def _positions(_: Node) -> Definition:
    return Opaque("its elements are made of their positions")


def _random(name: str, attrs: type, *, like: bool) -> None:
    infer = _like if like else _shaped
    if name == "multinomial":
        infer = _multinomial
    definition = same(Opaque("its elements are random"))
    inputs = (1, 1) if like else (0, 0)
    OPS.register(Op(name, infer, definition, f"random:{name}", attrs, inputs, pure=False))


OPS.register(Op("range", _range, _range_definition, "creation:range_", inputs=(3, 3), propagate=_range_content))
OPS.register(Op("range_dynamic", _range_dynamic, _positions, "creation:range_", inputs=(3, 3), dynamic=True))
OPS.register(Op("eye_like", _eye_like, _positions, "creation:eye_like", EyeLikeAttrs))
_random("random_normal", RandomNormalAttrs, like=False)
_random("random_normal_like", RandomNormalLikeAttrs, like=True)
_random("random_uniform", RandomUniformAttrs, like=False)
_random("random_uniform_like", RandomUniformLikeAttrs, like=True)
_random("bernoulli", BernoulliAttrs, like=True)
_random("multinomial", MultinomialAttrs, like=True)
