"""A kernel's TTIR becomes one C translation unit that runs its whole grid."""

from __future__ import annotations

from dataclasses import dataclass

from fusible.compiler.backends.triton.elements import c_type
from fusible.compiler.backends.triton.lower_control import CONTROL_HANDLERS, lower_body
from fusible.compiler.backends.triton.lower_dot import DOT_HANDLERS
from fusible.compiler.backends.triton.lower_fold import FOLD_HANDLERS
from fusible.compiler.backends.triton.lower_functions import FUNCTION_HANDLERS
from fusible.compiler.backends.triton.lower_memory import MEMORY_HANDLERS
from fusible.compiler.backends.triton.lower_shape import SHAPE_HANDLERS
from fusible.compiler.backends.triton.pointers import pointed_arguments, row_strides
from fusible.compiler.backends.triton.state import Handler, Lowering
from fusible.compiler.backends.triton.ttir import Element, Function, Operation, Pointer, Value, refuse
from fusible.compiler.backends.triton.ttir_parse import parse_ttir

__all__ = ["HANDLERS", "LAUNCH_SYMBOL", "LoweredKernel", "Parameter", "lower_ttir"]

LAUNCH_SYMBOL = "fusible_triton_launch"
"""By default the function that runs a grid; it takes a `struct launch *` of tile.h."""

HANDLERS: dict[str, Handler] = {
    **SHAPE_HANDLERS,
    **FUNCTION_HANDLERS,
    **FOLD_HANDLERS,
    **DOT_HANDLERS,
    **MEMORY_HANDLERS,
    **CONTROL_HANDLERS,
}
"""Every operation that can be lowered, but those that end blocks."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument of a kernel: its name in the TTIR and its type."""

    name: str
    type: Element | Pointer


@dataclass(frozen=True, slots=True)
class LoweredKernel:
    """A kernel as C.

    source: the translation unit; it includes tile.h. scratch_bytes: the memory that each thread needs for tiles.
    symbol: the function that runs a grid. checked: whether it checks accesses. sites: the operations that checks name
    by number.
    """

    name: str
    parameters: tuple[Parameter, ...]
    source: str
    symbol: str
    scratch_bytes: int
    checked: bool
    sites: tuple[Operation, ...]

    @property
    def site_texts(self) -> tuple[str, ...]:
        """The sites as people should read them: operation, line of the TTIR, place in the source."""
        return tuple(_place(each) for each in self.sites)


def _place(operation: Operation) -> str:
    place = f"{operation.name}, line {operation.line} of its TTIR"
    return f"{place} ({operation.location})" if operation.location else place


def lower_ttir(text: str, *, checked: bool = False, symbol: str = LAUNCH_SYMBOL) -> LoweredKernel:
    """Lower the one kernel of a TTIR module.

    checked: whether the C checks loads and stores (slow). symbol: the C name of the function that runs a grid, by which
    kernels of one library are told apart. Raises LoweringError that names the kernel, the operation and its line, for
    text that cannot be read and for operations, types or forms that are not known.
    """
    function = parse_ttir(text)
    parameters = tuple(_parameter(function, value) for value in function.arguments)
    state = Lowering(function, checked, HANDLERS, pointed_arguments(function), row_strides(function))
    for number, (value, parameter) in enumerate(zip(function.arguments, parameters, strict=True)):
        state.scalars[value] = _argument(state, number, parameter)
    lower_body(state, function.body)
    body, scratch_bytes = state.code.placed()
    lines = [
        f"/* Triton kernel {function.name}, one program. */",
        "#define _GNU_SOURCE",
        '#include "tile.h"',
        "",
        "static void body(const struct launch *launch, const int32_t *program, char *scratch) {",
        "    (void)launch, (void)program, (void)scratch;",
        *body,
        "}",
        "",
        f"EXPORT void {symbol}(const struct launch *launch) {{ launch_programs(launch, body); }}",
        "",
    ]
    source = "\n".join(lines)
    return LoweredKernel(function.name, parameters, source, symbol, scratch_bytes, checked, tuple(state.sites))


def _parameter(function: Function, value: Value) -> Parameter:
    if not isinstance(value.type, Element | Pointer):
        raise refuse(function.name, None, f"its argument {value.name!r} is neither a number nor a pointer")
    return Parameter(value.name, value.type)


def _argument(state: Lowering, number: int, parameter: Parameter) -> str:
    """Declare an argument, which the launch hands over as 64 bits; returns its name."""
    name, held = state.code.fresh("x"), f"launch->arguments[{number}]"
    kind = c_type(parameter.type)
    bits = {Element.F32: f"f32_of_bits((uint32_t){held})", Element.F64: f"f64_of_bits((uint64_t){held})"}
    value = bits.get(parameter.type, f"({kind}){held}") if isinstance(parameter.type, Element) else held
    state.code.line(f"const {kind} {name} = {value};")
    return name
