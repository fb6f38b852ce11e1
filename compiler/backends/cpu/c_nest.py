"""A nest without contractions as one C function over a thread pool.

Rows (points of the parallel axes) are independent. Where a row has reductions, it goes over the folded axes once for
each level of reductions: what a pass needs is computed again from the operands, unless it is dear (an exponential) and
the row small, then it is kept in a buffer on the stack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusible.compiler.backends.cpu.c_body import Body, indented, names_of
from fusible.compiler.backends.cpu.c_call import call_fields, call_members, own_call
from fusible.compiler.backends.cpu.c_dims import Names, c_dim, coefficient
from fusible.compiler.backends.cpu.c_folds import (
    SETS,
    accumulators,
    folded_lanes,
    in_any_order,
    merge,
    merge_sets,
    starts,
)
from fusible.compiler.backends.cpu.c_kinds import Code, Kind, kind_of, promoted, rounded
from fusible.compiler.backends.cpu.c_phases import Passes, Phase, is_dear
from fusible.compiler.backends.cpu.c_window import limits_of, print_limits, without_limits
from fusible.compiler.backends.cpu.nest import Nest, NotPrintable
from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.ir.types import DType
from fusible.compiler.region.combiners import COMBINERS
from fusible.compiler.region.region import Map, Reduce, operands_of

__all__ = ["NestPrinter", "indented"]

_STASH_FLOATS = 8192  # 32 KiB of stack, the size of L1
_LEAST_LANES = 8  # lanes that vectors have at least, where they pay


class NestPrinter:
    """The text of one nest. symbols, before: the symbols in the call's `dims`, and its parameters of other nests.
    keeps: whether values may be kept between passes.
    """

    def __init__(self, nest: Nest, name: str, symbols: Sequence[str], before: int = 0, keeps: bool = True) -> None:
        self.nest, self.region, self.name, self.symbols, self.before = nest, nest.region, name, symbols, before
        self.numbers: list[Dim] = []
        self.names = names_of(nest, "c->", self.numbers, literal=True)
        self.folding = nest.vector in nest.folded  # lanes lie along a folded axis
        self.passes = passes = Passes(nest)
        self.positions, self.levels, self.phases = passes.positions, passes.levels, passes.phases
        self.limits = [{} if p.stores else limits_of(nest, p.stages, p.reductions) for p in self.phases]
        self.stash = self._stash() if keeps else {}

    # Analysis

    def _stash(self) -> dict[int, int]:
        """Values kept between passes -> their number."""
        if not self.nest.folded or len(self.phases) < 2:
            return {}
        seen: dict[int, int] = {}
        for phase in filter(self.passes.is_full, self.phases):
            for position in phase.stages:
                seen[position] = seen.get(position, 0) + 1
        kept: dict[int, int] = {}
        for position, times in seen.items():
            stage = self.region.stages[position]
            if times > 1 and isinstance(stage, Map) and stage.dtype is DType.F32 and is_dear(stage.expr):
                if self.passes.in_row(position) and (not self.folding or self.nest.vector in self._space(position)):
                    kept[position] = len(kept)
        size = len(kept) * self._stash_points() * (1 if self.folding else 16)
        return kept if not isinstance(size, int) or size <= _STASH_FLOATS else {}

    def _stash_points(self) -> Dim:
        """The points of a pass. Where they are known only at the call the stash is scratch memory of the thread."""
        return product(self._extent(a) for a in self._open(self.nest.folded))

    @property
    def scratch(self) -> int:
        """How many stashes of `stash_floats` each this nest needs in a thread's scratch memory."""
        return 0 if isinstance(self._stash_points(), int) else len(self.stash)

    def _stashed(self, slot: int) -> str:
        """The place of a point in a stash."""
        whole = f"c->stash + {slot} * c->stash_floats" if self.scratch else f"r->stash[{slot}]"
        return f"{whole} + {self._at()}"

    def _space(self, position: int) -> frozenset[int]:
        return self.nest.spaces[self.region.first_values[position]]

    # Text

    def text(self) -> str:
        """What computes the rows of an item. `numbers` are its parameters then."""
        parts = [*self._phase_functions(), self._row(), self._task(), self._begin()]
        return "\n\n".join([self._structure(), *parts]) + "\n"

    def _structure(self) -> str:
        members = call_members(self.region, self.symbols, len(self.numbers))
        lines = [*members, "    long rows, items;", "    int *error;"]
        if self.scratch:  # of a thread; for all nests of the kernel its own part begins in the same place
            lines += ["    float *stash;", "    long stash_floats, thread_floats;", "    struct pool *pool;"]
        return "\n".join([f"struct {self.name}_call {{", *lines, "};", "", *self._row_structure()])

    def _row_structure(self) -> list[str]:
        lines, sums = list[str](), list[str]()
        for position, stage in enumerate(self.region.stages):
            value = self.region.first_values[position]
            if isinstance(stage, Reduce):
                sums += [f"    {type_} {member};" for member, type_ in accumulators(stage, value).items()]
            if self.nest.folded and not self.passes.in_row(position):
                vector = not self.folding and self.nest.vector in self._space(position)
                for number in self.passes.results(position):
                    lines.append(f"    {kind_of(self.region.dtypes[number]).c_type(vector)} v{number};")
        if self.stash and not self.scratch:
            lanes = f"{self._stash_points()} {'+' if self.folding else '*'} VL"
            lines.append(f"    float stash[{len(self.stash)}][{lanes}];")
        row = [f"struct {self.name}_row {{", *(lines or ["    char none;"]), "};"]
        return [*row, f"struct {self.name}_sums {{", *sums, "};"] if sums else row

    def _row_values(self, level: int) -> dict[int, Code]:
        """What earlier passes have left in the row."""
        found: dict[int, Code] = {}
        for position in range(len(self.region.stages)):
            if self.nest.folded and not self.passes.in_row(position) and self._known(position, level):
                for value in self.passes.results(position):
                    vector = not self.folding and self.nest.vector in self._space(position)
                    found[value] = Code(f"r->v{value}", kind_of(self.region.dtypes[value]), vector)
        return found

    def _known(self, position: int, level: int) -> bool:
        return self.passes.after(position) <= level

    def _phase_functions(self) -> list[str]:
        found = []
        for number, phase in enumerate(self.phases):
            nest = without_limits(self.nest, phase.stages, self.limits[number])
            body, stash = Body(nest, self._row_values(phase.level), self.names), self._stash_of(phase)
            for position, slot in stash.items():
                if position in phase.stages and self._made_before(position, number):
                    value = self.region.first_values[position]
                    body.lines.append(f"const vf v{value} = vf_load({self._stashed(slot)});")
                    body.values[value] = Code(f"v{value}", Kind.FLOAT, True)
            body.stages(self._live(phase, number))
            for position, slot in stash.items():
                if position in phase.stages and not self._made_before(position, number):
                    value = self.region.first_values[position]
                    kept = promoted(body.values[value]).text
                    body.lines.append(f"vf_store({self._stashed(slot)}, {kept});")
            for position in phase.reductions:
                body.lines += self._accumulate(position, body)
            for store in phase.stores:
                body.store(store)
            axes = self._open(self.nest.outer) + self._open(self.nest.folded)
            objects = f"const struct {self.name}_call *c, struct {self.name}_row *r"
            objects += f", struct {self.name}_sums *s" if phase.reductions else ""
            parameters = "".join(f", long i{a}" for a in axes)
            unused = ["(void)c, (void)r, (void)lanes;", *(f"(void)i{a};" for a in axes)]
            head = f"INLINE void {self.name}_phase{number}({objects}{parameters}, const long lanes) {{"
            found.append("\n".join([head, *indented([*unused, *body.lines]), "}"]))
        return found

    def _made_before(self, position: int, number: int) -> bool:
        return any(position in phase.stages for phase in self.phases[:number] if self.passes.is_full(phase))

    def _stash_of(self, phase: Phase) -> dict[int, int]:
        """The kept values that a pass may read and write: none where it does not go over all points."""
        return self.stash if self.passes.is_full(phase) else {}

    def _live(self, phase: Phase, number: int) -> list[int]:
        """The stages of a pass without those that only lead to values kept from an earlier one."""
        kept = {p for p in self._stash_of(phase) if self._made_before(p, number)}
        wanted: set[int] = set()
        waiting = [self.positions[v] for p in phase.reductions for v in operands_of(self.region.stages[p])]
        waiting += [self.positions[self.region.stores[n].value] for n in phase.stores]
        while waiting:
            position = waiting.pop()
            if position in wanted or position in kept or position not in phase.stages:
                continue
            wanted.add(position)
            waiting += [self.positions[v] for v in operands_of(self.region.stages[position])]
        return sorted(wanted)

    def _open(self, axes: Sequence[int]) -> list[int]:
        return [a for a in axes if self.nest.extents[a] is not None]

    def _inwards(self, axes: Sequence[int]) -> list[int]:
        """Axes in the order of their loops."""
        return sorted(self._open(axes), key=lambda axis: axis == self.nest.vector)

    def _at(self) -> str:
        """The number of a point, in floats."""
        text = ""
        for a in self._inwards(self.nest.folded):
            text = f"({text}) * {c_dim(self._extent(a), self.names)} + i{a}" if text else f"i{a}"
        return text if self.folding else f"({text}) * VL"

    def _accumulate(self, position: int, body: Body) -> list[str]:
        """Merge the arguments of a reduction into its accumulators; lanes beyond the last count as the start."""
        stage = self._reduce(position)
        if self.folding and COMBINERS[stage.combiner].width > 1:
            raise NotPrintable(f"it folds by {stage.combiner} along its vectors")
        codes = [promoted(body.values[argument]) for argument in stage.args]
        if self.folding:
            codes = [_within(code, start) for code, start in zip(codes, starts(stage), strict=True)]
        return merge(stage, self.region.first_values[position], codes)

    def _reduce(self, position: int) -> Reduce:
        stage = self.region.stages[position]
        assert isinstance(stage, Reduce)
        return stage

    def _start(self, phase: Phase, sums: str) -> list[str]:
        """Lines that put a set of accumulators to its start."""
        found = [(self.region.first_values[p], starts(self._reduce(p))) for p in phase.reductions]
        return [f"{sums}a{first + n} = {start};" for first, texts in found for n, start in enumerate(texts)]

    def _row(self) -> str:
        outer = self._open(self.nest.outer)
        vector_outside = not self.folding and self.nest.vector >= 0
        parameters = "".join(f", long i{a}" for a in outer) + (", const long lanes" if vector_outside else "")
        head = f"INLINE void {self.name}_row(const struct {self.name}_call *c{parameters}) {{"
        lines = [f"struct {self.name}_row row, *const r = &row;", "(void)c, (void)r;"]
        if any(phase.reductions for phase in self.phases):
            lines.append(f"struct {self.name}_sums sums, *const s = &sums;")
        lines += [] if vector_outside else ["const long lanes = 1;", "(void)lanes;"]
        levels = [phase.level for phase in self.phases]
        for number, phase in enumerate(self.phases):
            if phase.level not in levels[:number]:
                lines += self._row_stages(phase.level)
            lines += self._start(phase, "s->")
            lines += self._pass(number, outer)
            lines += [line for position in phase.reductions for line in self._finished(position)]
        if self.nest.folded:
            lines += self._row_stages(levels[-1] + 1)
            body = Body(self.nest, self._row_values(levels[-1] + 2), self.names)
            for number in range(len(self.region.stores)):
                if not self.passes.stored_in_row(number):
                    body.store(number)
            lines += body.lines
        return "\n".join([head, *indented(lines), "}"])

    def _row_stages(self, level: int) -> list[str]:
        """The stages outside the folded axes that this level makes possible."""
        if not self.nest.folded:
            return []
        positions = [
            p
            for p, s in enumerate(self.region.stages)
            if not self.passes.in_row(p) and not isinstance(s, Reduce) and self.levels[p] == level
        ]
        known = self._row_values(level)
        for position in positions:
            known.pop(self.region.first_values[position], None)
        body = Body(self.nest, known, self.names)
        body.stages(positions)
        kept = [f"r->v{v} = v{v};" for v in (self.region.first_values[p] for p in positions)]
        return ["{", *indented([*body.lines, *kept]), "}"] if positions else []

    def _pass(self, number: int, outer: Sequence[int]) -> list[str]:
        """The loops over the folded axes around a phase, to the ends of its window."""
        if not self.limits[number]:
            return self._loops(number, outer, {})
        extents = self.nest.extents
        return print_limits(self.limits[number], extents, self.names, lambda ends: self._loops(number, outer, ends))

    def _loops(self, number: int, outer: Sequence[int], ends: Mapping[int, tuple[str, str]]) -> list[str]:
        """The loops of all points, or between `ends` by axis; that along the vectors is the innermost."""
        folded = self._inwards(self.phases[number].axes)
        lines: list[str] = []
        for depth, a in enumerate(folded):
            extent = c_dim(self._extent(a), self.names)
            first, last = ends.get(a, ("0", extent))
            if depth == len(folded) - 1:
                inner = self._innermost(number, outer, first, last)
                return [*lines, *("    " * depth + line for line in inner), *_closed(depth)]
            lines.append("    " * depth + f"for (long i{a} = {first}; i{a} < {last}; i{a}++) {{")
        return [self._call(number, outer, "s", "", "lanes")]

    def _innermost(self, number: int, outer: Sequence[int], first: str, last: str) -> list[str]:
        """The innermost loop of a pass: several points at a time, each with its own accumulators, then one by one."""
        phase = self.phases[number]
        axis = self._inwards(phase.axes)[-1]
        vectors = axis == self.nest.vector
        step, lanes = ("VL", "VL") if vectors else ("1", "lanes")
        lines = [f"long i{axis} = {first};"]
        if phase.reductions and self._is_long(axis) and all(in_any_order(self._reduce(p)) for p in phase.reductions):
            calls = [self._call(number, outer, f"&t{n}" if n else "s", f" + {n} * {step}", lanes) for n in range(SETS)]
            others = [f"t{n}" for n in range(1, SETS)]
            lines += [
                f"if (i{axis} + {SETS} * {step} <= {last}) {{",
                f"    struct {self.name}_sums {', '.join(others)};",
                *(f"    {line}" for other in others for line in self._start(phase, f"{other}.")),
                f"    for (; i{axis} + {SETS} * {step} <= {last}; i{axis} += {SETS} * {step}) {{",
                *(f"        {call}" for call in calls),
                "    }",
                *(f"    {line}" for other in others for line in self._merged(phase, other)),
                "}",
            ]
        call = self._call(number, outer, "s", "", lanes)
        if not vectors:
            return ["{", *indented([*lines, f"for (; i{axis} < {last}; i{axis}++) {call}"]), "}"]
        tail = self._call(number, outer, "s", "", f"{last} - i{axis}")
        lines += [f"for (; i{axis} + VL <= {last}; i{axis} += VL) {call}", f"if (i{axis} < {last}) {tail}"]
        return ["{", *indented(lines), "}"]

    def _merged(self, phase: Phase, other: str) -> list[str]:
        pairs = ((self._reduce(p), self.region.first_values[p]) for p in phase.reductions)
        return [line for stage, first in pairs for line in merge_sets(stage, first, other)]

    def _is_long(self, axis: int) -> bool:
        """True if a loop may have points for all sets of accumulators, several times."""
        extent = self._extent(axis)
        return not isinstance(extent, int) or extent >= 2 * SETS * (_LEAST_LANES if axis == self.nest.vector else 1)

    def _call(self, number: int, outer: Sequence[int], sums: str, ahead: str, lanes: str) -> str:
        """The call of a pass at a point, `ahead` of that of the innermost loop, with a set of accumulators."""
        phase = self.phases[number]
        last = self._inwards(phase.axes)[-1:]
        places = {a: f"i{a}{ahead}" if [a] == last else f"i{a}" for a in phase.axes}
        inner = [places.get(a, "0") for a in self._open(self.nest.folded)]
        given = ["c", "r", *([sums] if phase.reductions else []), *(f"i{a}" for a in outer), *inner]
        return f"{self.name}_phase{number}({', '.join(given)}, {lanes});"

    def _extent(self, axis: int) -> Dim:
        extent = self.nest.extents[axis]
        assert extent is not None
        return extent

    def _finished(self, position: int) -> list[str]:
        """The accumulators as the reduction's values."""
        stage, first = self._reduce(position), self.region.first_values[position]
        vector = self.nest.vector in self._space(position)
        lines = []
        for value, dtype in enumerate(stage.dtypes, first):
            code = Code(f"s->a{value}", kind_of(dtype), True)
            if not vector:
                text = folded_lanes(code, stage.combiner) if self.folding else f"{code.text}[0]"
                code = Code(f"({text} != 0)" if code.kind is Kind.MASK else text, code.kind, False)
            lines.append(f"r->v{value} = {rounded(code, dtype).text};")
        return lines

    def _task(self) -> str:
        """Rows of one item; the vector's axis, if it is parallel, is the innermost loop."""
        outer, rows, block, v = self._open(self.nest.outer), self._crossed(), self._block(), self.nest.vector
        arguments = "".join(f", i{a}" for a in outer)
        first, last = "c->rows * item / c->items", "c->rows * (item + 1) / c->items"
        if block and self._flat():
            inner = [f"const long i{a} = 0;" for a in rows]
            end = f"long_min({c_dim(self._extent(v), self.names)}, {last} * {block})"
            inner += self._along(f"{first} * {block}", end, arguments)
        else:
            loop = f"for (long row = {first}; row < last; row++) {{"
            inner = [f"const long last = {last};", loop, "    long rest = row;"]
            for a in reversed(rows):
                extent = c_dim(self._extent(a), self.names)
                inner.append(f"    const long i{a} = rest % {extent}; rest /= {extent};")
            if self.folding or v < 0:
                inner.append(f"    {self.name}_row(c{arguments});")
            else:
                extent = c_dim(self._extent(v), self.names)
                ends = (f"rest * {block}", f"long_min({extent}, (rest + 1) * {block})") if block else ("0", extent)
                inner += indented(self._along(*ends, arguments))
            inner += ["    (void)rest;", "}"]
        lines = [own_call(self.name, "call")]
        lines += ["call.stash += pool_thread(call.pool) * call.thread_floats;"] if self.scratch else []
        lines += [f"const struct {self.name}_call *c = &call;", *inner]
        return "\n".join([f"static void {self.name}_task(void *context, long item) {{", *indented(lines), "}"])

    def _along(self, first: str, end: str, arguments: str) -> list[str]:
        """The loop over the vector's axis."""
        v = self.nest.vector
        return [
            f"long i{v} = {first};",
            f"const long end = {end};",
            f"for (; i{v} + VL <= end; i{v} += VL) {self.name}_row(c{arguments}, VL);",
            f"if (i{v} < end) {self.name}_row(c{arguments}, end - i{v});",
        ]

    def _begin(self) -> str:
        """The function that fills the struct of a call; it notes the most rows, and adds the points."""
        outer = self._open(self.nest.outer)
        points = product(self._extent(a) for a in [*outer, *self._open(self.nest.folded)])
        names = names_of(self.nest, "call->", self.numbers, literal=True)
        row_text, point_text = self._rows(names), c_dim(points, names)
        lanes = "+ VL" if self.folding else "* VL"
        stash = f"({c_dim(self._stash_points(), names)} {lanes} + 15) / 16 * 16" if self.scratch else ""
        fields = call_fields(self.region, self.symbols, len(self.numbers), self.before)
        head = f"static void {self.name}_begin(struct {self.name}_call *call, void *const *buffers,"
        lines = [
            f"*call = (struct {self.name}_call){{{', '.join([*fields, '.error = error'])}}};",
            "(void)dims;",
            f"call->rows = {row_text};",
            "*rows = long_max(*rows, call->rows);",
            f"*points += {point_text};",
            *([f"call->stash_floats = {stash};"] if stash else []),
        ]
        return "\n".join([head, f"    {_REST_OF_BEGIN}", *indented(lines), "}"])

    def _rows(self, names: Names) -> str:
        """How many rows there are."""
        rows, block = c_dim(product(self._extent(a) for a in self._crossed()), names), self._block()
        return f"{rows} * {self._blocks(self.nest.vector, block, names)}" if block else rows

    def _blocks(self, axis: int, block: int, names: Names) -> str:
        """How many blocks an axis is cut into."""
        return f"(({c_dim(self._extent(axis), names)} + {block - 1}) / {block})"

    def _block(self) -> int:
        """The points along the vectors that a row takes, if these are cut into blocks; 0 if not.

        Where elements lie far apart along the vectors, a block's cache lines stay for the rows after it.
        """
        v = self.nest.vector
        if self.folding or v < 0:
            return 0
        if self._flat():
            return _BLOCK
        strided = any(coefficient(access.offset, v) not in (0, 1, 2) for access in self.nest.accesses())
        extent = self._extent(v)
        return _STRIDED_BLOCK if strided and (not isinstance(extent, int) or extent > _STRIDED_BLOCK) else 0

    def _flat(self) -> bool:
        """True if the vectors lie along all the points."""
        return all(self._extent(a) == 1 for a in self._crossed())

    def _crossed(self) -> list[int]:
        """The axes that a row's number stands for."""
        return [a for a in self._open(self.nest.outer) if a != self.nest.vector]


_BLOCK, _STRIDED_BLOCK = 16, 64
_REST_OF_BEGIN = "const int64_t *dims, int *error, long *rows, long *points) {"


def _within(code: Code, start: str) -> Code:
    """A vector whose lanes beyond the last are the start of a fold."""
    kept = f"{code.kind.c_type(True)}_select(vi_first_lanes(lanes), {code.text}, {start})"
    return Code(f"(lanes == VL ? {code.text} : {kept})", code.kind, True)


def _closed(depth: int) -> list[str]:
    return ["    " * d + "}" for d in reversed(range(depth))]
