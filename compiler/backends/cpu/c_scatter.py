"""Scatters as calls of scatter.h: sizes go in when they are called, element types and reductions are literals."""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.backends.cpu.c_library import LibraryCall, exported, shape_of, unless
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.opset.indexing import ScatterElementsAttrs, ScatterNDAttrs
from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.ir.types import DType, Shape, TensorType

__all__ = ["SCATTERS", "scatter_call"]

SCATTERS = ("scatter_elements", "scatter_nd")
"""The ops."""

_COMBINED = {DType.F32: "SCATTER_F32", DType.I32: "SCATTER_I32", DType.I64: "SCATTER_I64"}
_OF_SIZE = {1: "SCATTER_U8", 2: "SCATTER_U16", 4: "SCATTER_I32", 8: "SCATTER_I64"}
_MOST_RANK = 16  # SCATTER_RANK


def scatter_call(node: Node, name: str) -> LibraryCall:
    """The call for a `scatter_elements` or `scatter_nd` node. Raises NotPrintable with what the kernel does not do."""
    data, indices, updates = node.inputs
    assert data is not None and indices is not None and updates is not None
    dtype, shape = _tensor(data)
    index, places = _tensor(indices)
    given = _tensor(updates)[1]
    attrs = node.attrs
    literals = [_type(dtype, attrs.reduction), f"SCATTER_{attrs.reduction.upper()}", str(int(index is DType.I64))]
    if isinstance(attrs, ScatterElementsAttrs):
        sizes, members = _along_axis(shape, places, attrs.axis)
        kind, expected = "elements", places
    else:
        assert isinstance(attrs, ScatterNDAttrs)
        depth = places[-1]
        if not isinstance(depth, int):
            raise NotPrintable("the length of its index vectors is not known")
        sizes, members = _of_rows(shape, places, depth)
        kind, expected = "rows", (*places[:-1], *shape[depth:])
        literals.append(str(depth))
    pairs = [p for p in zip(expected, given, strict=True) if p[0] != p[1]]
    fits = [f"dims[{len(sizes) + 2 * n}] == dims[{len(sizes) + 2 * n + 1}]" for n in range(len(pairs))]
    if kind == "elements":
        members.append(f".element = {dtype.numpy.itemsize}")
        fits.append("scatter_elements_fit(&call)")
    dims = (*sizes, *(d for pair in pairs for d in pair))
    return LibraryCall(_text(kind, literals, members, fits, name), dims, (data, indices, updates), {})


def _tensor(value: Value) -> tuple[DType, Shape]:
    shape = shape_of(value)
    assert isinstance(value.type, TensorType)
    return value.type.dtype, shape


def _type(dtype: DType, reduction: str) -> str:
    """The name in scatter.h of what elements are combined as, or of what has their size."""
    if reduction != "none":
        if dtype not in _COMBINED:
            raise NotPrintable(f"it combines elements of {dtype.value}")
        return _COMBINED[dtype]
    if dtype is DType.STRING or dtype.numpy.itemsize not in _OF_SIZE:
        raise NotPrintable(f"it has an operand of {dtype.value}")
    return _OF_SIZE[dtype.numpy.itemsize]


def _along_axis(shape: Shape, places: Shape, axis: int) -> tuple[Sequence[Dim], list[str]]:
    """Sizes, and what the members of the call are made of them."""
    rank = len(shape)
    if rank > _MOST_RANK:
        raise NotPrintable(f"it has more than {_MOST_RANK} axes")
    members = [".shape = dims", f".places = dims + {rank}", f".rank = {rank}", f".axis = {axis % rank}"]
    return (*shape, *places), members


def _of_rows(shape: Shape, places: Shape, depth: int) -> tuple[Sequence[Dim], list[str]]:
    """As `_along_axis`, for rows that index vectors name."""
    sizes = (*shape[:depth], product(shape[depth:]), product(places[:-1]))
    members = [".sizes = dims", f".depth = {depth}", f".inner = dims[{depth}]", f".count = dims[{depth + 1}]"]
    return sizes, members


def _text(kind: str, literals: Sequence[str], members: Sequence[str], fits: Sequence[str], name: str) -> str:
    task = f"scatter_{kind}_item({', '.join(literals)}, context, item);"
    lines = [
        f"struct scatter_{kind} call = {{.x = buffers[0], .indices = buffers[1], .updates = buffers[2],",
        f"    .y = buffers[3], .error = error, {', '.join(members)}}};",
        *(unless(" && ".join(fits)) if fits else []),
        f"scatter_{kind}_run(&call, pool, {name}_task);",
    ]
    return f"static void {name}_task(void *context, long item) {{ {task} }}\n{exported(name, lines)}"
