"""`dims` as a Triton kernel: a small tensor of sizes, which are numbers that its launch is given."""

from __future__ import annotations

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.launch import AccessFact, LaunchRule
from fusible.compiler.backends.triton.node_kernel import NodeKernel, tensor_of
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.ir.graph import Graph, Node
from fusible.compiler.ir.opset.symbolic import DimsAttrs
from fusible.compiler.ir.symbol_values import symbols_of
from fusible.compiler.ir.symbols import Dim, Symbol
from fusible.compiler.ir.types import TensorType

__all__ = ["EXTENTS", "print_extents", "sizes_in", "sizes_of_inputs"]

EXTENTS = "dims"
"""The op."""

_MOST = 32  # elements


def sizes_in(node: Node) -> set[Symbol]:
    """The symbols that the elements of a `dims` node consist of."""
    assert isinstance(node.attrs, DimsAttrs)
    return {symbol for value in node.attrs.values for symbol in symbols_of(value)}


def sizes_of_inputs(graph: Graph) -> set[Symbol]:
    """The symbols that the shapes of a graph's inputs give."""
    types = [value.type for value in graph.inputs]
    shapes = [type_.shape or () for type_ in types if isinstance(type_, TensorType)]
    return {symbol for shape in shapes for dim in shape for symbol in symbols_of(dim)}


def print_extents(node: Node, name: str = "kernel") -> PrintedKernel:
    """The kernel of a `dims` node: one program stores each element. Raises NotPrintable for long tensors."""
    attrs = node.attrs
    assert isinstance(attrs, DimsAttrs)
    if len(attrs.values) > _MOST:
        raise NotPrintable(f"it has more than {_MOST} elements")
    names: dict[Dim, str] = {}
    for value in attrs.values:
        if not isinstance(value, int):
            names.setdefault(value, f"s{len(names)}")
    kernel = NodeKernel.of(node, {text: value for value, text in names.items()})
    arguments = kernel.arguments()
    texts = [str(value) if isinstance(value, int) else names[value] for value in attrs.values]
    parameters = ", ".join([*(argument.name for argument in arguments), "BLOCK: tl.constexpr"])
    head = ['"""One kernel: sizes."""', "", "import triton", "import triton.language as tl", "", ""]
    body = [f"    tl.store(y0 + {place}, {text})" for place, text in enumerate(texts)] or ["    pass"]
    source = "\n".join([*head, f"@triton.jit\ndef {name}({parameters}):", *body, ""])
    facts = (AccessFact("y0", tensor_of(node.output).dtype, True, 1, False),)
    return PrintedKernel(source, LaunchRule(name, arguments, {"BLOCK": 1}, facts, ((1, 1),), 1, 1))
