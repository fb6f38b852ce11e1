"""A nest whose loads lie along another axis than its stores: in squares, of which rows and columns change places.

Strided loads would take an element of a cache line at a time; where rows are a power of two apart, the few lines that a
set of the cache holds are gone before their next element is wanted. Here every line is read and written whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.backends.cpu.c_body import Body, indented
from fusible.compiler.backends.cpu.c_call import own_call
from fusible.compiler.backends.cpu.c_dims import Names, c_dim
from fusible.compiler.backends.cpu.c_kinds import Code, Kind
from fusible.compiler.backends.cpu.c_nest import NestPrinter
from fusible.compiler.backends.cpu.nest import Nest, turned_loads
from fusible.compiler.ir.symbols import Dim, product

__all__ = ["TurnedPrinter", "is_turned"]

_CHUNK = 64  # points along either axis of the squares that a row of the nest takes


def is_turned(nest: Nest) -> bool:
    """True if `TurnedPrinter` is to print the nest."""
    return bool(turned_loads(nest, nest.vector)[1])


class TurnedPrinter(NestPrinter):
    """The text of such a nest. A row is a chunk along both axes, of some points of the others."""

    def __init__(self, nest: Nest, name: str, symbols: Sequence[str], before: int = 0, keeps: bool = True) -> None:
        super().__init__(nest, name, symbols, before, keeps)
        self.across, loads = turned_loads(nest, nest.vector)
        self.turned = sorted(loads)

    def _phase_functions(self) -> list[str]:
        """The function of a vector of points, for which the turned loads are made."""
        made = {
            self.region.first_values[p]: Code(f"turned[{k} * VL]", Kind.FLOAT, True) for k, p in enumerate(self.turned)
        }
        body = Body(self.nest, made, self.names)
        body.stages(range(len(self.region.stages)))
        for store in range(len(self.region.stores)):
            body.store(store)
        axes = self._open(self.nest.outer)
        parameters = "".join(f", long i{a}" for a in axes)
        unused = ["(void)c, (void)lanes;", *(f"(void)i{a};" for a in axes)]
        head = f"INLINE void {self.name}_vector(const struct {self.name}_call *c{parameters}, const vf *turned,"
        return ["\n".join([head, "    const long lanes) {", *indented([*unused, *body.lines]), "}"])]

    def _row(self) -> str:
        """The function of a square: loads along the one axis, then vectors along the other."""
        axes, v, across = self._open(self.nest.outer), self.nest.vector, self.across
        names = self.names | {f"i{v}": f"(i{v} + lane)"}
        lines = [f"vf turned[{len(self.turned)} * VL];"]
        for number, position in enumerate(self.turned):
            access = self.nest.loads[position]
            dtype = self.region.dtypes[self.region.first_values[position]].value
            load = "vf_load_first(" if dtype == "f32" else f"load_{dtype}("
            step = "" if dtype == "f32" else "1, "
            place = f"c->x{access.buffer} + {c_dim(access.offset, names)}"
            lines += [
                "UNROLL for (long lane = 0; lane < VL; lane++)",
                f"    turned[{number} * VL + lane] = lane < lanes ? {load}{place}, {step}count) : vf_all(0);",
                f"vf_turn(turned + {number} * VL);",
            ]
        points = "".join(f", i{a} + n" if a == across else f", i{a}" for a in axes)
        call = f"{self.name}_vector(c{points}, turned + n, lanes);"
        lines.append(f"UNROLL for (long n = 0; n < VL; n++) if (n < count) {call}")
        parameters = "".join(f", long i{a}" for a in axes)
        head = f"INLINE void {self.name}_square(const struct {self.name}_call *c{parameters},"
        return "\n".join([head, "    const long count, const long lanes) {", *indented(lines), "}"])

    def _rows(self, names: Names) -> str:
        others: Dim = product(self._extent(a) for a in self._crossed() if a != self.across)
        blocks = [self._blocks(a, _CHUNK, names) for a in (self.across, self.nest.vector)]
        return " * ".join([c_dim(others, names), *blocks])

    def _task(self) -> str:
        v, across = self.nest.vector, self.across
        arguments = "".join(f", i{a}" for a in self._open(self.nest.outer))
        inner = ["long rest = row;"]
        for a in reversed([*self._crossed(), v]):
            extent = c_dim(self._extent(a), self.names)
            if a in (v, across):
                blocks = self._blocks(a, _CHUNK, self.names)
                inner.append(f"const long first{a} = rest % {blocks} * {_CHUNK}; rest /= {blocks};")
                inner.append(f"const long end{a} = long_min({extent}, first{a} + {_CHUNK});")
            else:
                inner.append(f"const long i{a} = rest % {extent}; rest /= {extent};")
        square = f"{self.name}_square(c{arguments}"
        inner += [
            f"for (long i{across} = first{across}; i{across} < end{across}; i{across} += VL)",
            f"    for (long i{v} = first{v}; i{v} < end{v}; i{v} += VL) {{",
            f"        const long lanes = long_min(VL, end{v} - i{v}), count = long_min(VL, end{across} - i{across});",
            f"        if (lanes == VL && count == VL) {square}, VL, VL);",
            f"        else {square}, count, lanes);",
            "    }",
            "(void)rest;",
        ]
        lines = [
            own_call(self.name, "call"),
            f"const struct {self.name}_call *c = &call;",
            "const long last = c->rows * (item + 1) / c->items;",
            "for (long row = c->rows * item / c->items; row < last; row++) {",
            *indented(inner),
            "}",
        ]
        return "\n".join([f"static void {self.name}_task(void *context, long item) {{", *indented(lines), "}"])
