"""`scatter_elements` and `scatter_nd` as Triton kernels: the template of kernels/triton/scatter.py."""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.launch import AccessFact, LaunchRule
from fusible.compiler.backends.triton.node_kernel import NodeKernel, kernel_source, tensor_of
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.opset.indexing import ScatterElementsAttrs, ScatterNDAttrs
from fusible.compiler.ir.symbols import Dim, bounds_of, product
from fusible.compiler.ir.types import Shape

__all__ = ["SCATTERS", "print_scatter"]

SCATTERS = ("scatter_elements", "scatter_nd")
"""The ops."""

_COMBINE = {"none": "taken", "add": "added", "mul": "multiplied", "max": "larger", "min": "smaller"}
_MOST = 4096  # updates that each element looks through
_BLOCK, _WARPS = 256, 4


def print_scatter(node: Node, name: str = "kernel") -> PrintedKernel:
    """The kernel of a scatter. Raises NotPrintable for many updates, and for indices that leave rows out."""
    attrs, (data, indices, updates) = node.attrs, node.inputs
    assert isinstance(attrs, (ScatterElementsAttrs, ScatterNDAttrs))
    assert data is not None and indices is not None and updates is not None
    type_, shape, places = tensor_of(data), _shape(tensor_of(data).shape), _shape(tensor_of(indices).shape)
    if isinstance(attrs, ScatterElementsAttrs):
        sizes, functions, place, extra = _along_axis(shape, places, attrs.axis)
    else:
        sizes, functions, place, extra = _of_rows(shape, places)
    most = bounds_of(sizes["count"])[1]
    if most is None or most > _MOST:
        raise NotPrintable(f"it may have more than {_MOST} updates")
    sizes["points"] = product(shape)
    kernel = NodeKernel.of(node, sizes)
    combine = _COMBINE[attrs.reduction]
    named = {n: kernel.size(n) for n in sizes}
    body = [
        f"extra = ({', '.join(named.get(n, n) for n in extra)},)",
        f"scatter({kernel.program()}, x0, x2, y0, {named['points']}, {named['count']},",
        f"        extra, {place}, {combine}, BLOCK)",
    ]
    arguments = kernel.arguments()
    parameters = [*(a.name for a in arguments), "BLOCK: tl.constexpr"]
    imported = ["scatter", combine, *([place] if not functions else [])]
    source = kernel_source(
        f"{node.op.name} of {type_.dtype.value}", "scatter", imported, functions, parameters, body, name
    )
    facts = (
        AccessFact("x0", type_.dtype, False, 1, True),
        AccessFact("x1", tensor_of(indices).dtype, False, None, True),
        AccessFact("x2", type_.dtype, False, None, True),
        AccessFact("y0", type_.dtype, True, 1, True),
    )
    rule = LaunchRule(name, arguments, {"BLOCK": _BLOCK}, facts, ((sizes["points"], _BLOCK),), _WARPS, 1)
    return PrintedKernel(source, rule)


_Form = tuple[dict[str, Dim], list[str], str, list[str]]


def _shape(shape: Shape | None) -> Shape:
    assert shape is not None
    return shape


def _along_axis(shape: Shape, places: Shape, axis: int) -> _Form:
    """Sizes, functions, the name of the place hook, and what it is handed over."""
    axis %= len(shape)
    if any(a != b for d, (a, b) in enumerate(zip(shape, places, strict=True)) if d != axis):
        raise NotPrintable("its indices leave rows out")
    sizes: dict[str, Dim] = {"size": shape[axis], "inner": product(shape[axis + 1 :]), "count": places[axis]}
    return sizes, [], "along_axis", ["x1", "size", "inner", "count"]


def _of_rows(shape: Shape, places: Shape) -> _Form:
    """As `_along_axis`, for updates of rows that index vectors name."""
    depth = places[-1]
    if not isinstance(depth, int):
        raise NotPrintable("the length of its index vectors is not known")
    names = [f"size{d}" for d in range(depth)]
    sizes: dict[str, Dim] = dict(zip(names, shape, strict=False))
    sizes |= {"inner": product(shape[depth:]), "count": product(places[:-1])}
    return sizes, [_place_of_rows(names)], "place", ["x1", "inner", *names]


def _place_of_rows(names: Sequence[str]) -> str:
    lines = ["@triton.jit\ndef place(point, j, inside, extra):", "    row, named = point * 0, j >= 0"]
    for number in range(len(names)):
        lines += [
            f"    size = extra[{number + 2}]",
            f"    index = tl.load(extra[0] + j * {len(names)} + {number}).to(tl.int64)",
            "    index = tl.where(index < 0, index + size, index)",
            "    named &= (index >= 0) & (index < size)",
            "    row = row * size + index",
        ]
    lines.append("    return inside & named & (row == point // extra[1]), j * extra[1] + point % extra[1]")
    return "\n".join(lines)
