"""`dynamic_quantize_lstm` as a Triton kernel: the template of kernels/triton/quantised_lstm.py with its activations.

Sequences that have lengths of their own are refused: the range of the states would be that of those not yet ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.launch import AccessFact, LaunchRule
from fusible.compiler.backends.triton.node_kernel import tensor_of
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.backends.triton.recurrent import RecurrentPrinter
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.opset.recurrent import LstmAttrs
from fusible.compiler.ir.types import DType

__all__ = ["QUANTISED_RECURRENT", "print_quantised_recurrent"]

QUANTISED_RECURRENT = "dynamic_quantize_lstm"
"""The op."""

_PARAMETERS = ("w_scale", "w_zero", "r_scale", "r_zero")
_BYTES = ("w", "r", "w_zero", "r_zero")
_UNITS, _DEPTH, _RANGE, _WARPS = 32, 32, 1024, 8


def print_quantised_recurrent(node: Node, name: str = "kernel") -> PrintedKernel:
    """The kernel of a `dynamic_quantize_lstm` node; arguments as for other recurrent layers. Raises NotPrintable."""
    return _Printer(node, name).printed()


class _Printer(RecurrentPrinter):
    template = "quantised_lstm"
    members = ("x", "w", "r", "bias", "lengths", "h", "c", "peepholes", *_PARAMETERS)
    hidden_along = 1

    def _checked(self) -> DType:
        if "lengths" in self.operands:
            raise NotPrintable("its sequences have lengths of their own")
        for member, value in (*self.operands.items(), *self.results.items()):
            wanted = (DType.I8, DType.U8) if member in _BYTES else (DType.F32,)
            if (dtype := tensor_of(value).dtype) not in wanted:
                raise NotPrintable(f"it has an operand of {dtype.value}")
        return DType.F32

    def printed(self) -> PrintedKernel:
        """One program for each direction."""
        arguments = self.kernel.arguments()
        constants = {"ROWS": 16, "UNITS": _UNITS, "DEPTH": _DEPTH, "RANGE": _RANGE}
        rule = LaunchRule(self.name, arguments, constants, self._facts(), ((self.directions, 1),), _WARPS, 1)
        return PrintedKernel(self._source(arguments, constants), rule)

    def _facts(self) -> tuple[AccessFact, ...]:
        names = self._names()
        found = [(m, False) for m in self.operands] + [(m, True) for m in self.results]
        values = {**self.operands, **self.results}
        return tuple(AccessFact(names[m], tensor_of(values[m]).dtype, stores, 1, True) for m, stores in found)

    def _direction(self) -> Iterator[str]:
        yield f"direction = {self.kernel.program()}"

    def _offsets(self) -> dict[str, str]:
        hidden = self.kernel.size("hidden")
        own = {m: f"4 * {hidden}" if self._by_column(m) else "1" for m in _PARAMETERS}
        return super()._offsets() | own

    def _by_column(self, member: str) -> bool:
        return len(tensor_of(self.operands[member]).shape or ()) == 2

    def _members(self) -> list[str]:
        return [*(m for m in self.members if m != "lengths"), "y", "y_h", "y_c"]

    def _place(self) -> Mapping[str, str]:
        return {}

    def _last(self) -> str:
        columns = f"W_COLUMNS={int(self._by_column('w_scale'))}, R_COLUMNS={int(self._by_column('r_scale'))}"
        return f"ROWS=ROWS, UNITS=UNITS, DEPTH=DEPTH, RANGE=RANGE, {columns},"

    def _flags(self) -> list[str]:
        assert isinstance(self.attrs, LstmAttrs)
        if self._by_column("w_scale") != self._by_column("w_zero"):
            raise NotPrintable("it has scales of columns and one zero point, or the other way round")
        if self._by_column("r_scale") != self._by_column("r_zero"):
            raise NotPrintable("it has scales of columns and one zero point, or the other way round")
        return [f"COUPLED={bool(self.attrs.input_forget)}"]
