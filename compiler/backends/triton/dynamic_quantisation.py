"""`dynamic_quantize_linear` as a Triton kernel: the templates of kernels/triton/dynamic_quantisation.py."""

from __future__ import annotations

from fusible.compiler.backends.triton.launch import AccessFact, LaunchRule
from fusible.compiler.backends.triton.node_kernel import NodeKernel, kernel_source, tensor_of
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.symbols import maximum, product

__all__ = ["print_dynamic_quantisation"]

_WHOLE, _WHOLE_WARPS = 8192, 16  # elements at once of the one program
_BLOCK, _WARPS = 1024, 4
_PARTS = 1024


def print_dynamic_quantisation(node: Node, name: str = "kernel") -> PrintedKernel:
    """The kernel of a node: of one program, or of many where extremes of parts are operands. Raises NotPrintable."""
    operands = [v for v in node.inputs if v is not None]
    shapes = [tensor_of(v).shape for v in operands]
    sizes = {"size": product(shapes[0] or ())}
    whole = len(operands) == 1
    if not whole:
        sizes["parts"] = product(shapes[1] or ())
    kernel = NodeKernel.of(node, sizes)
    arguments = kernel.arguments()
    constants = {"BLOCK": _WHOLE} if whole else {"BLOCK": _BLOCK, "PARTS": _PARTS}
    parameters = [*(a.name for a in arguments), *(f"{c}: tl.constexpr" for c in constants)]
    size = kernel.size("size")
    if whole:
        template, call = "quantise_whole", f"x0, y0, y1, y2, {size}, BLOCK"
    else:
        template = "quantise_block"
        call = f"{kernel.program()}, x0, x1, x2, y0, y1, y2, {size}, {kernel.size('parts')}, BLOCK, PARTS"
    source = kernel_source(
        "a dynamic quantisation", "dynamic_quantisation", [template], [], parameters, [f"{template}({call})"], name
    )
    named = [*((f"x{n}", v) for n, v in enumerate(operands)), *((f"y{n}", v) for n, v in enumerate(node.outputs))]
    facts = tuple(
        AccessFact(n, tensor_of(v).dtype, n[0] == "y", 0 if n in ("y1", "y2") else 1, n not in ("y1", "y2"))
        for n, v in named
    )
    # Of an empty tensor too there are a scale and a zero point to store.
    blocks = ((1, 1),) if whole else ((maximum(sizes["size"], 1), _BLOCK),)
    return PrintedKernel(
        source, LaunchRule(name, arguments, constants, facts, blocks, _WHOLE_WARPS if whole else _WARPS, 1)
    )
