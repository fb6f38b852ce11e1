"""What kernels of nodes have in common: operands and results by address, then the sizes that are not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.launch import POINTER_TYPES, Argument
from fusible.compiler.backends.triton.narrow import FOUR_BITS
from fusible.compiler.backends.triton.template_import import template_import
from fusible.compiler.backends.triton.tile import exceeds_32_bits
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.ir.types import TensorType
from fusible.compiler.region.scales import FLOATS8

__all__ = ["NodeKernel", "kernel_source", "tensor_of"]


def tensor_of(value: Value) -> TensorType:
    """The type of a value as a tensor of known rank with elements that Triton has. Raises NotPrintable."""
    type_ = value.type
    if not isinstance(type_, TensorType) or type_.shape is None:
        raise NotPrintable("the rank of an operand is not known")
    if type_.dtype not in POINTER_TYPES or type_.dtype in (*FOUR_BITS, *FLOATS8):
        raise NotPrintable(f"it has an operand of {type_.dtype.value}")
    return type_


@dataclass(frozen=True)
class NodeKernel:
    """A node's values that a kernel takes, and sizes that its text mentions by name."""

    inputs: Sequence[Value]
    outputs: Sequence[Value]
    sizes: Mapping[str, Dim]

    @staticmethod
    def of(node: Node, sizes: Mapping[str, Dim]) -> NodeKernel:
        """The kernel of all inputs that are there. Raises NotPrintable."""
        return NodeKernel([v for v in node.inputs if v is not None], node.outputs, sizes)

    @property
    def wide(self) -> bool:
        """True if positions may need 64 bits."""
        shapes = [tensor_of(v).shape for v in (*self.inputs, *self.outputs)]
        return any(exceeds_32_bits(product(shape)) for shape in shapes if shape is not None)

    def size(self, name: str) -> str:
        """A size as text: the number, or the name of an argument."""
        dim = self.sizes[name]
        return str(dim) if isinstance(dim, int) else name

    def arguments(self) -> tuple[Argument, ...]:
        """x0, ... and y0, ... by address, then sizes. Raises NotPrintable for elements that Triton lacks."""
        found = [Argument(f"x{n}", POINTER_TYPES[tensor_of(v).dtype], None, 16) for n, v in enumerate(self.inputs)]
        found += [Argument(f"y{n}", POINTER_TYPES[tensor_of(v).dtype], None, 16) for n, v in enumerate(self.outputs)]
        kind = "i64" if self.wide else "i32"
        return (*found, *(Argument(n, kind, d) for n, d in self.sizes.items() if not isinstance(d, int)))

    def program(self) -> str:
        """The number of the program, as wide as positions are."""
        return f"tl.program_id(0){'.to(tl.int64)' if self.wide else ''}"


def kernel_source(
    title: str,
    template: str,
    imported: Sequence[str],
    functions: Sequence[str],
    parameters: Sequence[str],
    body: Sequence[str],
    name: str,
) -> str:
    """The text of a file: `functions`, and the kernel of that name. template: the module that `imported` come from."""
    head = [f'"""One kernel: {title}."""', "", "import triton", "import triton.language as tl"]
    if any("libdevice." in text for text in functions):
        head.append("from triton.language.extra import libdevice")
    head += ["", template_import(template, imported), "", ""]
    kernel = [f"@triton.jit\ndef {name}({', '.join(parameters)}):", *(f"    {line}" for line in body), ""]
    return "\n".join([*head, *(f"{f}\n\n" for f in functions), *kernel])
