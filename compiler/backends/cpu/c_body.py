"""The stages and stores of a nest at one point (or one vector of points), as C statements."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from fusible.compiler.backends.cpu.c_dims import Names, c_dim, coefficient, mentions
from fusible.compiler.backends.cpu.c_expr import print_expr
from fusible.compiler.backends.cpu.c_kinds import (
    Code,
    Kind,
    c_float,
    kind_of,
    literal,
    number_of,
    promoted,
    rounded,
    stored,
)
from fusible.compiler.backends.cpu.nest import Access, Nest, NotPrintable
from fusible.compiler.ir.symbol_values import symbols_of
from fusible.compiler.ir.symbols import Dim, bounds_of
from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Convert, Literal
from fusible.compiler.region.index import Bound
from fusible.compiler.region.region import Index, Load, Map, Reduce, Stage, Test

__all__ = ["Body", "indented", "names_of", "shape_symbols"]

_OWN = re.compile(r"[iv][0-9]+|w[0-9]+_[0-9]+")  # axes, values, checked indices


def names_of(nest: Nest, call: str, numbers: list[Dim], *, literal: bool = False) -> Names:
    """The C names of axes, shape symbols and parameters. call: what stands before a member of the call's struct."""
    axes = {f"i{n}": f"i{n}" for n in range(len(nest.extents))}
    sizes = {name: f"{call}s_{name}" for name in shape_symbols(nest)}
    return Names(axes | sizes, f"{call}n", numbers, sizes=sizes.keys(), literal=literal)


def shape_symbols(nest: Nest) -> list[str]:
    """The shape symbols that the nest mentions, in order, and those of the strides of what a kernel reads itself."""
    dims: list[Dim] = [e for e in nest.extents if e is not None]
    dims += [d for buffer in (*nest.region.inputs, *nest.region.outputs) for d in buffer.shape]
    for access in nest.accesses():
        dims += [access.offset, *access.conditions(), *(size for _, _, size in access.checked)]
    for stage in nest.region.stages:
        match stage:
            case Index(expr):
                dims.append(expr)
            case Test(bounds):
                dims += [d for b in bounds for d in (b.expr, b.low, b.high)]
    found = dict.fromkeys(s.name for d in dims for s in symbols_of(d))
    return [name for name in found if not _OWN.fullmatch(name)]


class Body:
    """Prints stages one after the other. `values`: what is known so far; names of values are v0, v1, ...

    Inside, `i<vector>` is the first lane's index and `lanes` the number of lanes.
    """

    def __init__(self, nest: Nest, values: dict[int, Code], names: Names) -> None:
        self.nest, self.region = nest, nest.region
        self.values: dict[int, Code] = {}
        self.names = names.copy()
        self.lines: list[str] = []
        for value, code in values.items():
            self._know(value, code)

    def stages(self, positions: Iterable[int]) -> None:
        """Print the stages that are no reductions, in order."""
        for position in positions:
            self._stage(position, self.region.stages[position])

    def varies(self, value: int) -> bool:
        """True if the value differs from lane to lane."""
        return self.nest.vector in self.nest.spaces[value]

    def _stage(self, position: int, stage: Stage) -> None:
        value = self.region.first_values[position]
        if value in self.values:
            return
        dtype = self.region.dtypes[value]
        kind = kind_of(dtype)
        match stage:
            case Load():
                self._load(value, position, kind, dtype)
            case Map(expr):
                code = print_expr(expr, self.values, kind)
                if code.kind is not kind:
                    raise NotPrintable(f"a stage gives {code.kind.name.lower()}s as {dtype.value}")
                done = isinstance(expr, Convert) and expr.dtype is dtype
                code = code if done else rounded(code, dtype)
                self._define(value, code)
                if isinstance(expr, Literal) and code.text == literal(expr.value, kind):
                    self.values[value] = code  # what is computed with numbers alone is a number
            case Index(expr):
                self._define(value, self._index(expr, kind))
            case Test(bounds):
                self._define(value, self._test(bounds))
            case Reduce():
                raise AssertionError("reductions are printed by the nest")

    def _define(self, value: int, code: Code) -> None:
        if code.number:  # of which the integer is made, if somebody wants it
            self.lines.append(f"const {Kind.FLOAT.c_type(code.vector)} f{value} = {code.number};")
            code = replace(code, text=code.text.replace(code.number, f"f{value}"), number=f"f{value}")
        self.lines.append(f"const {code.kind.c_type(code.vector)} v{value} = {code.text};")
        self._know(value, replace(code, text=f"v{value}"))

    def _know(self, value: int, code: Code) -> None:
        """Keep a value; an integer may be mentioned by indices and bounds."""
        self.values[value] = code
        if code.kind in (Kind.INT, Kind.LONG):
            text = f"{code.text}[lane]" if code.vector else code.text
            self.names[f"v{value}"] = f"(long){text}" if code.kind is Kind.INT else text

    # Axes as values

    def _index(self, expr: Dim, kind: Kind) -> Code:
        vector = self.nest.vector
        step = coefficient(expr, vector) if vector >= 0 else 0
        if step == 0 and not self._mentions_lanes(expr):
            return Code(f"({kind.c_type(False)})({c_dim(expr, self.names)})", kind, False)
        if step is None or self._mentions_lanes(expr):
            return self._lane_by_lane(f"({kind.c_type(False)})({c_dim(expr, self._lane_names())})", kind)
        first, pace = (f"({kind.c_type(False)})({c_dim(d, self.names)})" for d in (expr, step))
        return Code(f"{kind.c_type(True)}_all({first}) + {kind.c_type(True)}_lanes() * {pace}", kind, True)

    def _test(self, bounds: Sequence[Bound]) -> Code:
        if not any(self._along(b) for b in bounds):
            return Code(self.condition(bounds), Kind.MASK, False)
        if not all(self._slides(b) for b in bounds):
            return self._lane_by_lane(f"{self.condition(bounds, self._lane_names())} ? -1 : 0", Kind.MASK)
        first, last = self._interval(bounds)
        lanes = f"(vi)(vi_lanes() >= vi_all((int32_t)({first}))) & (vi)(vi_lanes() < vi_all((int32_t)({last})))"
        return Code(f"({lanes})", Kind.MASK, True)

    def _slides(self, bound: Bound) -> bool:
        """True if the bound holds for an interval of lanes: its index takes steps of 1 along them, or none."""
        if any(self._mentions_lanes(d) for d in (bound.expr, bound.low, bound.high)):
            return False
        ends = all(not mentions(d, f"i{self.nest.vector}") for d in (bound.low, bound.high))
        return ends and coefficient(bound.expr, self.nest.vector) in (0, 1)

    def _interval(self, bounds: Sequence[Bound]) -> tuple[str, str]:
        """The first lane for which all bounds hold, and the lane after the last one, as C expressions."""
        plain = [b for b in bounds if not self._along(b)]
        first, last = "0", "VL"
        for bound in (b for b in bounds if self._along(b)):
            low, index, high = (c_dim(d, self.names) for d in (bound.low, bound.expr, bound.high))
            first, last = f"long_max({first}, {low} - {index})", f"long_min({last}, {high} - {index})"
        return first, f"({self.condition(plain)} ? {last} : 0)" if plain else last

    def _lane_by_lane(self, element: str, kind: Kind) -> Code:
        """A vector whose elements are computed one after the other, over `lane`."""
        name = f"t{len(self.lines)}"
        self.lines.append(f"{kind.c_type(True)} {name};")
        self.lines.append(f"for (int lane = 0; lane < VL; lane++) {name}[lane] = {element};")
        return Code(name, kind, True)

    def _along(self, bound: Bound) -> bool:
        dims = (bound.expr, bound.low, bound.high)
        return any(mentions(d, f"i{self.nest.vector}") or self._mentions_lanes(d) for d in dims)

    def _mentions_lanes(self, dim: Dim) -> bool:
        """True if the expression mentions a value that differs from lane to lane."""
        numbers = (s.name[1:] for s in symbols_of(dim) if s.name[0] == "v")
        return any(n.isdigit() and self.varies(int(n)) for n in numbers)

    def condition(self, bounds: Sequence[Bound], names: Names | None = None) -> str:
        """The bounds as one C condition."""
        known = names or self.names
        parts: list[str] = []
        for bound in bounds:
            low, expr, high = (c_dim(d, known) for d in (bound.low, bound.expr, bound.high))
            least = bounds_of(bound.expr - bound.low)[0]
            parts += [f"{expr} >= {low}"] if least is None or least < 0 else []
            parts.append(f"{expr} < {high}")
        return f"({' && '.join(parts)})" if parts else "1"

    # Loads and stores

    def _load(self, value: int, position: int, kind: Kind, dtype: DType) -> None:
        access = self._settled(self.nest.loads[position])
        if not self.varies(value):
            self._checks(access, self.names, access.bounds)
            read = number_of(f"c->x{access.buffer}[{c_dim(access.offset, self.names)}]", dtype)
            self._define(value, Code(self._guarded(access, read, kind, False), kind, False))
            return
        step = coefficient(access.offset, self.nest.vector)
        even = step is not None and not access.checked and not any(self._along(b) for b in access.bounds)
        if even and step is not None and (step == 1 or kind is not Kind.MASK):
            place = f"c->x{access.buffer} + {c_dim(access.offset, self.names)}"
            read = self._read(place, step, dtype)
            self._define(value, Code(self._guarded(access, read, kind, True), kind, True))
        elif step == 1 and not access.checked and dtype is DType.F32 and all(self._slides(b) for b in access.bounds):
            self._load_interval(value, access)
        else:
            self._load_lanes(value, access, dtype)

    def _read(self, place: str, step: Dim, dtype: DType) -> str:
        """A vector of elements that lie `step` apart."""
        match dtype:
            case DType.BOOL:
                return f"mask_load({place}, lanes)"
            case DType.F32 if step == 1:
                return f"vf_load_first({place}, lanes)"
            case DType.F32:
                return f"vf_load_step({place}, {c_dim(step, self.names)}, lanes)"
        return f"load_{dtype.value}({place}, {c_dim(step, self.names)}, lanes)"

    def _guarded(self, access: Access, read: str, kind: Kind, vector: bool) -> str:
        if not access.bounds:
            return read
        other = Code(literal(access.fill or 0, kind), kind, False)
        return f"{self.condition(access.bounds)} ? {read} : {promoted(other).text if vector else other.text}"

    def _load_interval(self, value: int, access: Access) -> None:
        """Adjacent elements where an interval of lanes holds: one load if that is all of them, none if it is empty."""
        first, last = self._interval(access.bounds)
        place = f"c->x{access.buffer} + {c_dim(access.offset, self.names)}"
        arguments = f"{place}, lanes, {first}, {last}, {c_float(float(access.fill or 0))}"
        self._define(value, Code(f"vf_load_interval({arguments})", Kind.FLOAT, True))

    def _load_lanes(self, value: int, access: Access, dtype: DType) -> None:
        names, kind = self._lane_names(), kind_of(dtype)
        other = literal(access.fill or 0, kind)
        self.lines.append(f"{kind.c_type(True)} v{value} = {promoted(Code(other, kind, False)).text};")
        self.lines.append("for (long lane = 0; lane < lanes; lane++) {")
        outer, self.lines = self.lines, []
        self._checks(access, names, access.bounds)
        read = number_of(f"c->x{access.buffer}[{c_dim(access.offset, names)}]", dtype)
        element = f"{read} ? -1 : 0" if kind is Kind.MASK else read
        condition = f"if {self.condition(access.bounds, names)} " if access.bounds else ""
        self.lines.append(f"{condition}v{value}[lane] = {element};")
        outer += [f"    {line}" for line in self.lines] + ["}"]
        self.lines = outer
        self._know(value, Code(f"v{value}", kind, True))

    def _settled(self, access: Access) -> Access:
        """The access without indices that data gave, if these are the same for all lanes: they are checked here."""
        indices = [index for _, index, _ in access.checked]
        if access.bounds or any(self._mentions_lanes(d) or mentions(d, f"i{self.nest.vector}") for d in indices):
            return access
        self._checks(access, self.names)
        return replace(access, checked=())

    def _lane_names(self) -> Names:
        vector = self.nest.vector
        return self.names | {f"i{vector}": f"(i{vector} + lane)"}

    def _checks(self, access: Access, names: Names, bounds: Sequence[Bound] = ()) -> None:
        """Indices that data gave, as names of their own that are within the buffer."""
        for name, index, size in access.checked:
            text = f"index_within({c_dim(index, names)}, {c_dim(size, names)}, c->error)"
            if bounds:
                text = f"{self.condition(bounds, names)} ? {text} : 0"
            self.lines.append(f"const long {name} = {text};")
            names[name] = name

    def store(self, number: int) -> None:
        """Print store `number`: along the lanes if its place depends on them."""
        access, value = self.nest.stores[number], self.region.stores[number].value
        code, dtype = self.values[value], self.region.dtypes[value]
        place = f"c->y{access.buffer} + {c_dim(access.offset, self.names)}"
        step = coefficient(access.offset, self.nest.vector) if self.nest.vector >= 0 else 0
        along = any(self._along(b) for b in access.bounds)
        if step == 0 and not along:
            if code.vector:
                raise NotPrintable("lanes are stored to one place")
            self._if(access.bounds, f"*({place}) = {stored(code.text, dtype)};")
        elif step is not None and not along and (step == 1 or dtype is not DType.BOOL):
            self._if(access.bounds, self._write(place, step, promoted(code).text, dtype))
        else:
            self._store_lanes(access, code, dtype)

    def _write(self, place: str, step: Dim, value: str, dtype: DType) -> str:
        """Store a vector as elements that lie `step` apart."""
        match dtype:
            case DType.BOOL:
                return f"mask_store({place}, {value}, lanes);"
            case DType.F32 if step == 1:
                return f"vf_store_first({place}, {value}, lanes);"
            case DType.F32:
                return f"vf_store_step({place}, {c_dim(step, self.names)}, {value}, lanes);"
        return f"store_{dtype.value}({place}, {c_dim(step, self.names)}, {value}, lanes);"

    def _if(self, bounds: Sequence[Bound], statement: str) -> None:
        self.lines.append(f"if {self.condition(bounds)} {statement}" if bounds else statement)

    def _store_lanes(self, access: Access, code: Code, dtype: DType) -> None:
        names = self._lane_names()
        value = f"{code.text}[lane]" if code.vector else code.text
        if code.kind is Kind.MASK:
            value = f"({value} != 0)"
        condition = f"if {self.condition(access.bounds, names)} " if access.bounds else ""
        place = f"c->y{access.buffer}[{c_dim(access.offset, names)}]"
        self.lines.append("for (long lane = 0; lane < lanes; lane++)")
        self.lines.append(f"    {condition}{place} = {stored(value, dtype)};")


def indented(lines: Sequence[str]) -> list[str]:
    """One level deeper."""
    return [f"    {line}" for line in lines]
