"""Shape expressions as ONNX nodes: every symbol is read from the shape of the value that defines it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from fusible.compiler.ir.symbols import Dim, Symbol, SymInt, bounds_of
from fusible.errors import UsageError

__all__ = ["DimWriter"]

Emit: TypeAlias = Callable[..., str]  # (operator, input names, **attributes) -> output name


class DimWriter:
    """Writes dimensions as int64 tensors of one element. Names written in an outer graph are visible inside."""

    def __init__(self, emit: Emit, constant: Callable[[np.ndarray], str], outer: DimWriter | None = None) -> None:
        self._emit, self._constant, self._outer = emit, constant, outer
        self._sources: dict[str, tuple[str, int]] = {}
        self._expressions: dict[str, tuple[str, int]] = {}
        self._written: dict[str, str] = {}

    def define(self, symbol: str, value: str, axis: int) -> None:
        """From here on `symbol` is dimension `axis` of the ONNX value."""
        self._sources.setdefault(symbol, (value, axis))

    def note(self, dim: SymInt, value: str, axis: int) -> None:
        """From here on the expression may be read off dimension `axis` of the ONNX value: one node, no arithmetic."""
        self._expressions.setdefault(dim.text, (value, axis))

    def knows(self, symbol: str) -> bool:
        """True if the symbol has a source here or outside."""
        return symbol in self._sources or (self._outer is not None and self._outer.knows(symbol))

    def tensor(self, dims: Sequence[Dim]) -> str:
        """A 1-D int64 tensor of the dimensions."""
        if all(isinstance(d, int) for d in dims):
            return self._constant(np.asarray(dims, dtype=np.int64).reshape(-1))
        parts = [self.dim(d) for d in dims]
        return parts[0] if len(parts) == 1 else self._emit("Concat", parts, axis=0)

    def dim(self, dim: Dim) -> str:
        """One dimension as a tensor of shape [1]."""
        if not isinstance(dim, SymInt):
            return self._constant(np.asarray([dim], dtype=np.int64))
        found = self._find(dim.text)
        if found is None:
            noted = self._noted(dim.text)
            found = self._sum(dim) if noted is None else self._shape(*noted)
            self._written[dim.text] = found
        return found

    def _noted(self, text: str) -> tuple[str, int] | None:
        found = self._expressions.get(text)
        return self._outer._noted(text) if found is None and self._outer is not None else found

    def _shape(self, value: str, axis: int) -> str:
        return self._emit("Shape", [value], start=axis, end=axis + 1)

    def _find(self, text: str) -> str | None:
        found = self._written.get(text)
        return self._outer._find(text) if found is None and self._outer is not None else found

    def _source(self, symbol: str) -> tuple[str, int]:
        if symbol in self._sources:
            return self._sources[symbol]
        if self._outer is None:
            raise UsageError(f"no value of the graph has the dimension {symbol}, so it cannot be exported")
        return self._outer._source(symbol)

    def _sum(self, dim: SymInt) -> str:
        terms = []
        for monomial, coefficient in dim.terms:
            factors = [self._atom(a) for a in monomial]
            if coefficient != 1 or not factors:
                factors.append(self.dim(coefficient))
            terms.append(self._chain("Mul", factors))
        return self._chain("Add", terms)

    def _chain(self, operator: str, names: Sequence[str]) -> str:
        result = names[0]
        for name in names[1:]:
            result = self._emit(operator, [result, name])
        return result

    def _atom(self, atom: Any) -> str:
        if isinstance(atom, Symbol):
            return self._shape(*self._source(atom.name))
        a, b = (self.dim(x) for x in atom.args)
        match atom.function:
            case "max" | "min":
                return self._emit("Max" if atom.function == "max" else "Min", [a, b])
            case "mod":
                return self._emit("Mod", [a, b])
            case "floordiv":
                # ONNX divides towards zero; what remains after the modulus divides exactly.
                if all((bounds_of(x)[0] or 0) >= 0 and bounds_of(x)[0] is not None for x in atom.args):
                    return self._emit("Div", [a, b])
                return self._emit("Div", [self._emit("Sub", [a, self._emit("Mod", [a, b])]), b])
        is_one = self._emit("Equal", [a, self.dim(1)])
        return self._emit("Where", [is_one, b, a])
