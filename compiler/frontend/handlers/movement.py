"""Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Expand, Tile, Trilu, Identity, ReverseSequence, ConstantOfShape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.broadcast import broadcast_of
from fusible.compiler.ir.constant import Constant
from fusible.compiler.ir.extents import resolve_reshape
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.propagation import truncates
from fusible.compiler.ir.reinfer import bare_symbol
from fusible.compiler.ir.requirements import Relation, decide
from fusible.compiler.ir.symbols import Dim, SymInt, bounds_of, dim_text, exact_div, product


@onnx_op("Identity")
def identity(c: NodeContext) -> Value:
    """Identity: the value itself."""
    return c.required(0)


@onnx_op("Reshape")
def reshape_1(c: NodeContext) -> Value:
    """Reshape with an attribute."""
    return _reshape(c, c.attr_ints("shape") or (), allowzero=False)


@onnx_op("Reshape", since=5)
def reshape(c: NodeContext) -> Value:
    """Reshape with an operand (allowzero since opset 14)."""
    allowzero = bool(c.attr_int("allowzero", 0))
    target = c.dims(1)
    if target is None:
        return c.add("reshape_dynamic", c.required(0), c.required(1), allowzero=allowzero)
    if allowzero and 0 in target and -1 in target:
        c.invalid(f"with allowzero the target {list(target)} cannot hold both 0 and -1")
    return _reshape(c, target, allowzero=allowzero)


def _reshape(c: NodeContext, target: Sequence[Dim], *, allowzero: bool) -> Value:
    try:
        shape = resolve_reshape(c.shape(0), target, allowzero)
    except ValueError as error:
        c.invalid(str(error))
    if shape is None:
        literals = [d for d in target if isinstance(d, int)]
        if len(literals) != len(target):
            c.unsupported("the rank of the operand is not known; state it with shapes={...}")
        return c.add("reshape_dynamic", c.required(0), c.ints_constant(literals), allowzero=allowzero)
    settled = _settled(c, shape)
    perhaps = [d for d in target if isinstance(d, SymInt) and truncates(d) and d in settled and d not in c.scope.sizes]
    if perhaps and not allowzero:  # one of them may be 0, which copies a dimension, or -1
        return c.add("reshape_dynamic", c.required(0), c.required(1), allowzero=allowzero)
    for dim in perhaps:
        c.require_at_most(1 if -1 in target else 0, dim, f"{list(target)} is no shape")
    c.scope.sizes |= {d for d in settled if isinstance(d, SymInt) and truncates(d)}
    return _reshaped(c, settled)


def _settled(c: NodeContext, shape: Sequence[Dim]) -> list[Dim]:
    """A resolved shape in which a size that the model computes is what the number of elements says, if that is simpler.

    Exporters compute the sizes after convolutions anew, with quotients that truncate, where ours are floored.
    """
    result, old = list(shape), list(c.shape(0) or ())
    for dim in shape:
        if dim in old:
            old.remove(dim)
            result.remove(dim)
    computed = [d for d in result if isinstance(d, SymInt)]
    if len(computed) != 1 or not old or bare_symbol(computed[0]) is not None:
        return list(shape)
    (dim,) = computed
    literal = product(d for d in result if isinstance(d, int))
    size = exact_div(product(old), literal) if literal else None
    simpler = size is not None and size != dim and len(dim_text(size)) <= len(dim_text(dim))
    if size is None or not simpler or decide(Relation.EQUAL, dim, size) is False:
        return list(shape)
    c.same_size(dim, size, f"{c.tensor_type(0)} has not as many elements as shape {list(shape)}")
    return [size if d == dim else d for d in shape]


def _reshaped(c: NodeContext, shape: Sequence[Dim]) -> Value:
    """A reshape to a resolved shape, or the operand itself if that is its shape."""
    if c.shape(0) == tuple(shape):
        return c.required(0)
    return c.add("reshape", c.required(0), shape=tuple(shape))


@onnx_op("Flatten")
def flatten(c: NodeContext) -> Value:
    """Flatten to a matrix (negative axes since opset 11)."""
    axis, shape = c.attr_int("axis", 1), c.shape(0)
    if shape is None:
        return c.add("flatten", c.required(0), axis=axis)
    if not -len(shape) <= axis <= len(shape):
        c.invalid(f"axis {axis} is out of range for {c.tensor_type(0)}")
    split_at = axis + len(shape) if axis < 0 else axis
    return _reshaped(c, (product(shape[:split_at]), product(shape[split_at:])))


@onnx_op("Squeeze")
def squeeze_1(c: NodeContext) -> Value:
    """Squeeze with an attribute."""
    return _squeeze(c, c.attr_ints("axes"))


@onnx_op("Squeeze", since=13)
def squeeze(c: NodeContext) -> Value:
    """Squeeze with an operand."""
    if c.optional(1) is None:
        return _squeeze(c, None)
    axes = c.static(1)
    if axes is None:
        return c.add("squeeze_dynamic", c.required(0), c.required(1))
    return _squeeze(c, tuple(int(a) for a in axes.ravel()))


def _squeeze(c: NodeContext, axes: tuple[int, ...] | None) -> Value:
    shape = c.shape(0)
    if shape is None or (axes is None and any(_undecided(d) for d in shape)):
        return c.add("squeeze", c.required(0), axes=axes)
    if axes is None:
        return _reshaped(c, [d for d in shape if d != 1])
    dropped = _axes(c, axes, len(shape))
    for axis in dropped:
        if isinstance(shape[axis], int) and shape[axis] != 1:
            c.invalid(f"axis {axis} of {c.tensor_type(0)} is not of size 1")
    return _reshaped(c, [d for i, d in enumerate(shape) if i not in dropped])


def _undecided(dim: Dim) -> bool:
    """True if a dimension may be 1 and may be something else."""
    low, high = bounds_of(dim)
    return low != high and (low is None or low <= 1) and (high is None or high >= 1)


def _axes(c: NodeContext, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    if any(not -rank <= a < rank for a in axes) or len({a % rank for a in axes}) != len(axes):
        c.invalid(f"axes {list(axes)} are out of range or not distinct for rank {rank}")
    return tuple(a % rank for a in axes)


@onnx_op("Unsqueeze")
def unsqueeze_1(c: NodeContext) -> Value:
    """Unsqueeze with an attribute."""
    return _unsqueeze(c, c.attr_ints("axes") or ())


@onnx_op("Unsqueeze", since=13)
def unsqueeze(c: NodeContext) -> Value:
    """Unsqueeze with an operand."""
    axes = c.static(1)
    if axes is None:
        return c.add("unsqueeze_dynamic", c.required(0), c.required(1))
    return _unsqueeze(c, tuple(int(a) for a in axes.ravel()))


def _unsqueeze(c: NodeContext, axes: tuple[int, ...]) -> Value:
    shape = c.shape(0)
    if shape is None:
        return c.add("unsqueeze", c.required(0), axes=axes)
    rank = len(shape) + len(axes)
    added = _axes(c, axes, rank)
    dims = iter(shape)
    return _reshaped(c, [1 if d in added else next(dims) for d in range(rank)])


@onnx_op("Transpose")
def transpose(c: NodeContext) -> Value:
    """Transpose; a permutation that moves nothing is the operand itself."""
    perm, rank = c.attr_ints("perm"), c.rank(0)
    if rank is not None:
        perm = tuple(reversed(range(rank))) if perm is None else perm
        if perm == tuple(range(rank)):
            return c.required(0)
    return c.add("transpose", c.required(0), perm=perm)


@onnx_op("Expand")
def expand(c: NodeContext) -> Value:
    """Expand: the attribute is the whole broadcast shape."""
    target = c.dims(1)
    if target is None:
        return c.add("expand_dynamic", c.required(0), c.required(1))
    return _expanded(c, c.required(0), target)


def _expanded(c: NodeContext, value: Value, target: Sequence[Dim]) -> Value:
    if any(isinstance(d, int) and d < 0 for d in target):
        c.invalid(f"the shape {list(target)} has a negative dimension")
    shape = c.shape(0) if value is c.optional(0) else ()
    try:
        full = broadcast_of([shape, target], c.broadcast)
    except ValueError as error:
        c.invalid(str(error))
    if full is not None and full == shape:
        return value
    return c.add("expand", value, shape=tuple(target) if full is None else full)


@onnx_op("ConstantOfShape")
def constant_of_shape(c: NodeContext) -> Value:
    """ConstantOfShape: an expand of its value."""
    given = c.attr_tensor("value")
    if given is None:
        given = Constant(np.zeros(1, np.float32))
    if given.size != 1:
        c.invalid(f"the value must have one element, got shape {list(given.shape)}")
    value = c.constant(np.array(given.array).reshape(()))
    target = c.dims(0)
    if target is None:
        return c.add("expand_dynamic", value, c.required(0))
    return _expanded(c, value, target)


@onnx_op("Tile")
def tile_1(c: NodeContext) -> Value:
    """Tile along one axis, given with the count as operands."""
    tiles, axis = c.static(1), c.static(2)
    if tiles is None or axis is None or tiles.size != 1 or axis.size != 1:
        c.unsupported("tiles and axis must be constants of one element")
    rank, along = c.known_rank(0), int(axis.ravel()[0])
    (along,) = _axes(c, (along,), rank)
    return c.add("tile", c.required(0), repeats=tuple(int(tiles.ravel()[0]) if d == along else 1 for d in range(rank)))


@onnx_op("Tile", since=6)
def tile(c: NodeContext) -> Value:
    """Tile along every axis."""
    repeats = c.dims(1)
    if repeats is None:
        return c.add("tile_dynamic", c.required(0), c.required(1))
    if repeats and all(r == 1 for r in repeats) and c.rank(0) == len(repeats):
        return c.required(0)
    return c.add("tile", c.required(0), repeats=repeats)


@onnx_op("Trilu")
def trilu(c: NodeContext) -> Value:
    """Trilu."""
    upper = bool(c.attr_int("upper", 1))
    if c.optional(1) is None:
        return c.add("trilu", c.required(0), upper=upper)
    diagonal = c.dims(1)
    if diagonal is None:
        return c.add("trilu_dynamic", c.required(0), c.required(1), upper=upper)
    if len(diagonal) != 1:
        c.invalid(f"k must be one number, got {list(diagonal)}")
    return c.add("trilu", c.required(0), k=diagonal[0], upper=upper)


@onnx_op("ReverseSequence")
def reverse_sequence(c: NodeContext) -> Value:
    """ReverseSequence."""
    axes = {"batch_axis": c.attr_int("batch_axis", 1), "time_axis": c.attr_int("time_axis", 0)}
    return c.add("reverse_sequence", c.required(0), c.required(1), **axes)
