"""Matrix products: matmul, gemm, einsum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fusible.compiler.ir.broadcast import bcast
from fusible.compiler.ir.definition import Composite, Contraction, Definition, Opaque
from fusible.compiler.ir.graph import Graph, Node
from fusible.compiler.ir.inference import broadcast_shapes
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import Shape, TensorType
from fusible.compiler.region.index import IndexMap, axis, broadcast
from fusible.kernels.numpy.einsum import Equation, parse_equation

__all__ = ["EinsumAttrs", "GemmAttrs", "same_types"]

_UNKNOWN_RANK = Opaque("the rank of an operand is not known")
_MAY_BROADCAST = Opaque("a symbolic dimension of one operand may be 1 where that of another is not")


@dataclass(frozen=True, slots=True)
class GemmAttrs:
    """alpha * A' @ B' + beta * C; transA, transB: the operand is stored transposed."""

    alpha: float = 1.0
    beta: float = 1.0
    transA: bool = False  # noqa: N815 - ONNX's name
    transB: bool = False  # noqa: N815


@dataclass(frozen=True, slots=True)
class EinsumAttrs:
    """equation: as in NumPy."""

    equation: str


def same_types(ctx: Infer) -> None:
    """Fail unless all operands present have the element type of the first."""
    types = {i: ctx.dtype(i) for i in range(len(ctx.inputs)) if ctx.has(i)}
    if len(set(types.values())) > 1:
        ctx.fail(f"operands differ in element type: {', '.join(t.value for t in types.values())}")


def _matmul(ctx: Infer) -> TensorType:
    same_types(ctx)
    a, b = ctx.shape(0), ctx.shape(1)
    if a is None or b is None:
        return TensorType(ctx.dtype(0), None)
    if not a or not b:
        ctx.fail(f"takes matrices or vectors, got {ctx.type(0)} and {ctx.type(1)}")
    if not ctx.equal(a[-1], b[-2] if len(b) > 1 else b[0]):
        ctx.fail(f"the columns of {ctx.type(0)} and the rows of {ctx.type(1)} differ in number")
    batch = broadcast_shapes(ctx, [a[:-2], b[:-2]])
    assert batch is not None
    return TensorType(ctx.dtype(0), (*batch, *a[-2:-1], *(b[-1:] if len(b) > 1 else ())))


def _matmul_definition(node: Node) -> Definition:
    a, b, y = _shape(node, 0), _shape(node, 1), _output_shape(node)
    if a is None or b is None or y is None:
        return _UNKNOWN_RANK
    batch = y[: max(len(a), len(b), 2) - 2]
    if not _broadcasts_plainly(a[:-2], batch) or not _broadcasts_plainly(b[:-2], batch):
        return _MAY_BROADCAST
    inner = axis(len(y))
    rows: tuple[Dim, ...] = (axis(len(batch)),) if len(a) > 1 else ()
    columns: tuple[Dim, ...] = (axis(len(y) - 1),) if len(b) > 1 else ()
    left = IndexMap((*broadcast(a[:-2], len(batch)).components, *rows, inner))
    right = IndexMap((*broadcast(b[:-2], len(batch)).components, inner, *columns))
    return Contraction((a[-1],), (left, right))


def _broadcasts_plainly(part: Shape, whole: Shape) -> bool:
    """True if each dimension of an operand is 1 for certain or that of the result for certain."""
    return all(d in (1, w) for d, w in zip(part, whole[len(whole) - len(part) :], strict=True))


def _gemm(ctx: Infer) -> TensorType:
    same_types(ctx)
    left, right = ctx.shape(0), ctx.shape(1)
    for index, shape in enumerate((left, right)):
        if shape is not None and len(shape) != 2:
            ctx.fail(f"input {index} must be a matrix, got {ctx.type(index)}")
    if left is None or right is None:
        return TensorType(ctx.dtype(0), None)
    (m, k), (k2, n) = left, right
    if ctx.attrs.transA:
        m, k = k, m
    if ctx.attrs.transB:
        k2, n = n, k2
    if not ctx.equal(k, k2):
        ctx.fail(f"the inner dimensions {k} and {k2} differ")
    added = ctx.shape(2) if ctx.has(2) else None
    if added is not None:
        fits = len(added) <= 2 and all(ctx.fits(d, e) for d, e in zip(reversed(added), (n, m), strict=False))
        if not fits:
            ctx.fail(f"C must broadcast to [{m}, {n}], got {ctx.type(2)}")
    return TensorType(ctx.dtype(0), (m, n))


def _gemm_definition(node: Node) -> Definition:
    a, b, y = _shape(node, 0), _shape(node, 1), _output_shape(node)
    if a is None or b is None or y is None:
        return _UNKNOWN_RANK
    attrs = node.attrs
    added = _shape(node, 2) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        if added is None:
            return _UNKNOWN_RANK
        if not _broadcasts_plainly(added, y):
            return _MAY_BROADCAST
    if attrs.alpha != 1 or (added is not None and attrs.beta != 1):
        return Composite(_scaled_gemm)
    left = (axis(2), axis(0)) if attrs.transA else (axis(0), axis(2))
    right = (axis(1), axis(2)) if attrs.transB else (axis(2), axis(1))
    depth = a[0] if attrs.transA else a[1]
    bias = None if added is None else broadcast(added, 2)
    return Contraction((depth,), (IndexMap(left), IndexMap(right)), bias=bias)


def _scaled_gemm(node: Node) -> Graph:
    """alpha * (A' @ B') + beta * C."""
    g, attrs = Graph("gemm"), node.attrs
    a, b, *rest = (g.input(v.type, name) for v, name in zip(node.inputs, "ABC", strict=False) if v is not None)
    y = g.add("gemm", a, b, transA=attrs.transA, transB=attrs.transB)
    assert isinstance(y.type, TensorType)
    dtype = y.type.dtype.numpy
    y = g.add("mul", y, g.constant(np.asarray(attrs.alpha, dtype)))
    for c in rest:
        y = g.add("add", y, g.add("mul", c, g.constant(np.asarray(attrs.beta, dtype))))
    g.set_outputs([y], ["Y"])
    return g


def _einsum(ctx: Infer) -> TensorType:
    same_types(ctx)
    shapes = [ctx.shape(i) for i in range(len(ctx.inputs))]
    known = [s for s in shapes if s is not None]
    if len(known) != len(shapes):
        return TensorType(ctx.dtype(0), None)
    parsed = parse_equation(ctx.attrs.equation, [len(s) for s in known])
    sizes = _label_dims(parsed, known, ctx.broadcast)
    return TensorType(ctx.dtype(0), tuple(sizes[label] for label in parsed.output))


def _label_dims(
    parsed: Equation, shapes: list[Shape], joined: Callable[[Dim, Dim], Dim]
) -> dict[str, Dim]:
    """The dimension of each label; ValueError where two literal ones differ and neither is 1."""
    sizes: dict[str, Dim] = {}
    for term, shape in zip(parsed.terms, shapes, strict=True):
        for label, dim in zip(term, shape, strict=True):
            sizes[label] = joined(sizes.get(label, 1), dim)
    return sizes


def _einsum_definition(node: Node) -> Definition:
    shapes = [_shape(node, i) for i in range(len(node.inputs))]
    known = [s for s in shapes if s is not None]
    if len(known) != len(shapes):
        return _UNKNOWN_RANK
    parsed = parse_equation(node.attrs.equation, [len(s) for s in known])
    sizes = _label_dims(parsed, known, bcast)
    summed = [label for label in sizes if label not in parsed.output]
    place = {label: axis(k) for k, label in enumerate((*parsed.output, *summed))}
    maps = []
    for term, shape in zip(parsed.terms, known, strict=True):
        if any(dim not in (1, sizes[label]) for label, dim in zip(term, shape, strict=True)):
            return _MAY_BROADCAST
        maps.append(IndexMap(tuple(0 if dim == 1 else place[label] for label, dim in zip(term, shape, strict=True))))
    return Contraction(tuple(sizes[label] for label in summed), tuple(maps), tuple(range(len(maps))))


def _shape(node: Node, index: int) -> Shape | None:
    value = node.inputs[index]
    return value.type.shape if value is not None and isinstance(value.type, TensorType) else None


def _output_shape(node: Node) -> Shape | None:
    type_ = node.output.type
    return type_.shape if isinstance(type_, TensorType) else None


OPS.register(Op("matmul", _matmul, _matmul_definition, "contraction:matmul", inputs=(2, 2), accepts_out=True))
OPS.register(Op("gemm", _gemm, _gemm_definition, "contraction:gemm", GemmAttrs, inputs=(2, 3), accepts_out=True))
OPS.register(Op("einsum", _einsum, _einsum_definition, "einsum:einsum", EinsumAttrs, inputs=(1, None)))
