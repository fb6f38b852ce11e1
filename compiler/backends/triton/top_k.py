"""`top_k` as a Triton kernel: the template of kernels/triton/top_k.py."""

from __future__ import annotations

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.launch import AccessFact, LaunchRule
from fusible.compiler.backends.triton.node_kernel import NodeKernel, kernel_source, tensor_of
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.opset.selection import TopKAttrs
from fusible.compiler.ir.symbols import bounds_of, product

__all__ = ["print_top_k"]

_LONGEST = 65536  # beyond, comparing all pairs takes longer than a sort on the host
_BLOCK, _OTHERS, _WARPS = 16, 64, 4


def print_top_k(node: Node, name: str = "kernel") -> PrintedKernel:
    """The kernel of a `top_k` node. Raises NotPrintable for rows that are too long, or of unknown length."""
    attrs = node.attrs
    assert isinstance(attrs, TopKAttrs)
    operand = node.inputs[0]
    assert operand is not None
    type_ = tensor_of(operand)
    shape = type_.shape
    assert shape is not None
    if not shape:
        raise NotPrintable("its operand has no axis")
    axis = attrs.axis % len(shape)
    longest = bounds_of(shape[axis])[1]
    if longest is None or longest > _LONGEST:
        raise NotPrintable(f"its rows may be longer than {_LONGEST}")
    sizes = {"size": shape[axis], "inner": product(shape[axis + 1 :]), "k": attrs.k}
    kernel = NodeKernel.of(node, sizes)
    arguments = kernel.arguments()
    constants = {"BLOCK": _BLOCK, "OTHERS": _OTHERS}
    parameters = [*(a.name for a in arguments), *(f"{c}: tl.constexpr" for c in constants)]
    size, inner, k = (kernel.size(n) for n in sizes)
    body = [f"ranked({kernel.program()}, x0, y0, y1, {size}, {inner}, {k}, {attrs.largest}, BLOCK, OTHERS)"]
    source = kernel_source(f"top_k of {type_.dtype.value}", "top_k", ["ranked"], [], parameters, body, name)
    facts = tuple(
        AccessFact(n, tensor_of(v).dtype, n[0] == "y", sizes["inner"] if n == "x0" else None, True)
        for n, v in (("x0", operand), *((f"y{m}", o) for m, o in enumerate(node.outputs)))
    )
    blocks = ((product((*shape[:axis], *shape[axis + 1 :])), 1), (shape[axis], _BLOCK))
    rule = LaunchRule(name, arguments, constants, facts, blocks, _WARPS, 1)
    return PrintedKernel(source, rule)
