"""TopK as a call of top_k.h: sizes and k go in when it is called, the element type and the direction are literals."""

from __future__ import annotations

from fusible.compiler.backends.cpu.c_library import LibraryCall, exported, in_scratch, shape_of, unless
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.opset.selection import TopKAttrs
from fusible.compiler.ir.symbols import product
from fusible.compiler.ir.types import DType, TensorType

__all__ = ["top_k_call"]

_KINDS = {DType.F32: "TOP_K_F32", DType.I32: "TOP_K_I32"}
_LONGEST = 2**31 - 1  # what the kernel counts


def top_k_call(node: Node, name: str) -> LibraryCall:
    """The call for a `top_k` node of f32 or i32. Raises NotPrintable with what the kernel does not do."""
    attrs, x = node.attrs, node.inputs[0]
    assert isinstance(attrs, TopKAttrs) and x is not None and isinstance(x.type, TensorType)
    shape = shape_of(x)
    if x.type.dtype not in _KINDS:
        raise NotPrintable(f"it has an operand of {x.type.dtype.value}")
    axis = attrs.axis % len(shape)
    size = shape[axis]
    if isinstance(size, int) and size > _LONGEST:
        raise NotPrintable(f"it ranks more than {_LONGEST} elements")
    dims = product(shape[:axis]), size, product(shape[axis + 1 :]), attrs.k
    return LibraryCall(_text(_KINDS[x.type.dtype], attrs.largest, name), dims, (x,), {})


def _text(kind: str, largest: bool, name: str) -> str:
    item = f"static void {name}_task(void *context, long item) {{ top_k_item({kind}, {int(largest)}, context, item); }}"
    lines = [
        "struct top_k call = {.x = buffers[0], .values = buffers[1], .indices = buffers[2],",
        "    .outer = dims[0], .size = dims[1], .inner = dims[2], .k = dims[3]};",
        *unless("top_k_fits(&call)"),
        "top_k_plan(&call, pool);",
        *in_scratch("top_k_floats(&call)", [f"top_k_run(&call, {name}_task, scratch);"]),
    ]
    return f"{item}\n{exported(name, lines)}"
