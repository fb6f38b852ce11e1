"""The NumPy backend: one generated Python function a step, in one readable module.

Element-wise work prints the op's definition through its Region; everything else calls the op's NumPy kernel (or a
registered replacement). Names of the model appear in comments only, escaped.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from fusible.compiler.backends.base import Block, CustomFunction, Emitted, Support
from fusible.compiler.backends.numpy_expr import PrintedRegion, print_region
from fusible.compiler.ir.facts import replacement_kernel
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.ops import kernel_arguments, kernel_module
from fusible.compiler.ir.structure import structure
from fusible.compiler.ir.symbols import Dim, SymInt
from fusible.compiler.ir.types import DType, OptionalType, SequenceType, TensorType
from fusible.compiler.region.build import is_elementwise, region_of
from fusible.errors import LoweringError
from fusible.passes.ledger import Entry
from fusible.runtime.native.program import NativeCode

__all__ = ["NumpyBackend", "writes_buffers"]

_CUSTOM = "custom_"  # and a number: functions that users registered, in the generated module


class NumpyBackend:
    """Emits NumPy kernels; collects the custom functions they use.

    host: of targets with other kernels, the steps that nevertheless are calls of NumPy, and why. entries: what a
    backend adds to the ledger.
    """

    target = "numpy"

    def __init__(self) -> None:
        self.custom: list[CustomFunction] = []
        self.host: dict[str, str] = {}
        self.entries: list[Entry] = []
        self._modules: dict[str, None] = {}
        self._printed_statements: dict[str, PrintedRegion | None] = {}

    def supports(self, node: Node) -> Support:
        """Every op with a NumPy meaning, and control flow, works here."""
        if node.op.numpy_missing and node.op.name not in ("if", "loop", "fused"):
            return Support(False, f"op {node.op.name} has no NumPy kernel")
        return Support(True)

    def prepare(self, graph: Graph) -> None:
        """Look at the whole graph before its nodes are planned, and change it where kernels demand that."""

    def order(self, value: Value) -> tuple[int, ...] | None:
        """In which order a result's dimensions are stored: row-major, None."""
        return None

    def block(self, value: Value) -> Block | None:
        """Where a result lives if not in a buffer of its own: nowhere, None."""
        return None

    def done(self, node: Node) -> bool:
        """True for a node that needs no step, because its operands lie where its result is: none does."""
        return False

    def native_code(self) -> NativeCode | None:
        """The C of all kernels that were emitted; None if there is none."""
        return None

    def notes(self) -> list[str]:
        """What the report should say of what was emitted, beyond `host` and `entries`."""
        return []

    def language(self, kernel: str) -> str:
        """What an emitted kernel is written in: numpy, c or triton."""
        return "numpy"

    def kernel_facts(self, kernel: str) -> dict[str, object]:
        """What the report says of an emitted kernel beside its name."""
        return {"language": self.language(kernel)}

    def emit(self, node: Node, name: str) -> Emitted:
        """The function for one node."""
        fixed = writes_buffers(node)
        # A registered kernel goes before the printed definition.
        printed = self._statements(node) if fixed and replacement_kernel(node, self.target) is None else None
        if printed is not None:
            parameters = [f"x{i}" for i in range(len(node.inputs))] + [f"out{i}" for i in range(len(node.outputs))]
            body = [f"    {line}" for line in printed.lines]
            return self._function(node, name, parameters, body, (), True, printed.inplace)
        if node.op.name == "fused":
            raise LoweringError(
                f"the group at {node.where}", {"numpy": "one of its element types has no direct printing"}
            )
        return self._call(node, name, fixed)

    def _statements(self, node: Node) -> PrintedRegion | None:
        """Element-wise work as statements, None for other work; nodes of the same structure share the answer."""
        group = node.subgraphs[0] if node.op.name == "fused" else None
        if group is None and not is_elementwise(node):
            return None
        parts = ([node], node.outputs, ()) if group is None else (list(group), group.outputs, group.inputs)
        key, _ = structure(*parts)
        if key not in self._printed_statements:
            region = region_of(node)
            self._printed_statements[key] = None if region is None else print_region(region)
        return self._printed_statements[key]

    def module(self, kernels: list[Emitted]) -> str:
        """The generated module."""
        title = '"""Generated by Fusible: one function a step."""'
        if not kernels:
            return title + "\n"
        head = [title, "", "import numpy as np", ""]
        if any("scalar." in kernel.text for kernel in kernels):
            head.append("from fusible.kernels.numpy import scalar")
        head.extend(f"import {m} as {_alias(m)}" for m in sorted(self._modules))
        if any("fitting(" in kernel.text for kernel in kernels):
            head.append("from fusible.runtime.custom import fitting")
        head.append("from fusible.runtime.signature import DTYPES")
        return "\n".join(head) + "\n\n\n" + "\n\n".join(k.text for k in kernels) + "\n"

    def _call(self, node: Node, name: str, fixed: bool) -> Emitted:
        dims: list[Dim] = []
        inputs = [f"x{i}" if v is not None else "None" for i, v in enumerate(node.inputs)]
        parameters = [f"x{i}" for i in range(len(node.inputs))]
        arguments = [*inputs, *(f"{k}={_literal(v, dims)}" for k, v in kernel_arguments(node.attrs).items())]
        function, accepts_out = self._kernel(node)
        outs = [f"out{i}" for i in range(len(node.outputs))]
        if not fixed:
            parameters += [f"d{i}" for i in range(len(dims))]
            body = [f"    return {function}({', '.join(arguments)})"]
        else:
            parameters += [*outs, *(f"d{i}" for i in range(len(dims)))]
            if accepts_out and len(outs) == 1 and not self._strided(node):
                body = [f"    {function}({', '.join([*arguments, 'out=out0'])})"]
            else:
                targets = ", ".join(f"{o}[...]" for o in outs)
                result = f"{function}({', '.join(arguments)})"
                if function.startswith(_CUSTOM):
                    result = f"fitting({', '.join([result, *outs])})"
                body = [f"    {targets} = {result}"]
        return self._function(node, name, parameters, body, tuple(dims), fixed, ())

    def _function(
        self,
        node: Node,
        name: str,
        parameters: list[str],
        body: list[str],
        dims: tuple[Dim, ...],
        writes: bool,
        inplace: tuple[int, ...],
    ) -> Emitted:
        comment = ", ".join(_escaped(o) for o in node.origin[:4]) or "made by the compiler"
        types = ", ".join("none" if v is None else str(v.type) for v in node.inputs[:8])
        results = ", ".join(str(v.type) for v in node.outputs[:8])
        lines = [
            f"def {name}({', '.join(parameters)}):",
            f"    # {comment}",
            f"    # {node.op.name}: ({_escaped(types, 200)}) -> {_escaped(results, 200)}",
            *body,
        ]
        return Emitted(name, "\n".join(lines) + "\n", writes, dims, inplace, node.op.view)

    def _strided(self, node: Node) -> bool:
        """True if a result is not stored row-major and without gaps, as kernels want what they compute into."""
        return any(self.order(v) is not None or self.block(v) is not None for v in node.outputs)

    def _kernel(self, node: Node) -> tuple[str, bool]:
        """The text that names the node's kernel, and whether it takes `out`."""
        replacement = replacement_kernel(node, self.target)
        if replacement is not None:
            return self._custom(replacement.function, replacement.path, replacement.version), False
        if node.op.function is not None:
            path = node.op.kernel or f"{node.op.function.__module__}:{node.op.function.__qualname__}"
            return self._custom(node.op.function, path, node.op.version), False
        assert node.op.kernel is not None
        module = kernel_module(node.op.kernel)
        self._modules[module] = None
        return f"{_alias(module)}.{node.op.kernel.partition(':')[2]}", node.op.accepts_out

    def _custom(self, function: Any, path: str, version: int) -> str:
        for number, known in enumerate(self.custom):
            if known.function is function:
                return f"{_CUSTOM}{number}"
        self.custom.append(CustomFunction(function, path, version))
        return f"{_CUSTOM}{len(self.custom) - 1}"


def writes_buffers(node: Node, *, views: bool = False) -> bool:
    """True if the outputs' sizes are known before the node runs, so that buffers can be planned.

    views: whether those of views are, which need none.
    """
    if node.op.dynamic or (node.op.view and not views) or node.defines:
        return False
    return all(
        isinstance(v.type, TensorType) and v.type.shape is not None and v.type.dtype is not DType.STRING
        for v in node.outputs
    )


def _alias(module: str) -> str:
    return "k_" + module.removeprefix("fusible.kernels.numpy.").replace(".", "_")


def _escaped(text: str, limit: int = 120) -> str:
    """One printable ASCII line."""
    return re.sub(r"[^ -~]", "?", ascii(text)[1:-1])[:limit]


def _literal(value: Any, dims: list[Dim]) -> str:
    """Python source for an attribute; symbolic dims become parameters d0, d1, ..."""
    match value:
        case SymInt():
            dims.append(value)
            return f"d{len(dims) - 1}"
        case bool() | int() | None | str():
            return ascii(value)
        case TensorType() | SequenceType() | OptionalType():
            return ascii(str(value))
        case float():
            return repr(value) if np.isfinite(value) else f"float({str(value)!r})"
        case np.dtype():
            return f"DTYPES[{DType.of(value).value!r}]"
        case tuple():
            return "(" + "".join(f"{_literal(v, dims)}, " for v in value).rstrip() + ")"
    raise TypeError(f"attribute {value!r} cannot be printed")
