"""A region that is attention: two products with a softmax between them, by the kernel of attention.h.

Whatever stands between the first product and the softmax (scale, mask, soft cap) is printed into the score hook, what
follows the second product into the finish hook. A query whose scores are all -infinity gives zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusible.compiler.backends.cpu.c_body import Body, axis_names, shape_symbols
from fusible.compiler.backends.cpu.c_call import call_fields, call_members, check_elements
from fusible.compiler.backends.cpu.c_dims import Names, c_dim, coefficient
from fusible.compiler.backends.cpu.c_kinds import Code, Kind, c_float
from fusible.compiler.backends.cpu.nest import Access, NotPrintable, check_products, flat_nest
from fusible.compiler.ir.symbol_values import substitute, symbols_of
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt, floordiv
from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Apply, Arg, Expr, Literal
from fusible.compiler.region.region import Contract, Load, Map, Reduce, Region, operands_of

__all__ = ["Attention", "attention_of", "print_attention"]

_LARGEST_HEAD = 256


@dataclass(frozen=True)
class Attention:
    """The parts of attention: stages of q, k, v (loads), the two products, the softmax's operand, and the axes."""

    region: Region
    q: int
    k: int
    v: int
    scores: int  # the first product
    softened: int  # the value that the softmax takes
    output: int  # the second product
    inner: frozenset[int]  # stages that the kernel computes, or that only lead to those
    scale: float
    leading: tuple[int, ...]  # axes of batch and head
    query: int
    key: int
    column: int
    size: int  # of a head
    group: int  # query heads that share a key head


def attention_of(region: Region) -> Attention:
    """The attention that a region is. Raises NotPrintable."""
    if len(region.contractions) != 2:
        raise NotPrintable("it has several contractions")
    first, last = region.contractions
    scores, output = region.stages[first], region.stages[last]
    assert isinstance(scores, Contract) and isinstance(output, Contract)
    if output.dtype is not DType.F32 or scores.dtype is not DType.F32 or len(output.axes) != 1 or len(scores.axes) != 1:
        raise NotPrintable("it has several contractions, which are no attention in f32")
    check_products(region)
    finder = _Finder(region)
    key, size = output.axes[0], scores.axes[0]
    v, weights = finder.load_and_other(output)
    softened, softmax = finder.softmax(weights, key)
    (q, q_scale), (k, k_scale) = (finder.scaled_load(value) for value in scores.args)
    if key in finder.space(q):
        q, k = k, q
    query, leading, column = finder.axes(q, k, v, key, size, region.spaces[region.first_values[last]])
    inner = finder.closed({first, last, q, k, v, *softmax, *finder.path})
    group = finder.shared_heads(k, v, leading)
    return Attention(
        region, q, k, v, first, softened, last, inner, q_scale * k_scale, leading, query, key, column, size, group
    )


class _Finder:
    def __init__(self, region: Region) -> None:
        self.region = region
        self.positions = {v: p for p, f in enumerate(region.first_values) for v in range(f, f + self._count(p))}
        self.path: set[int] = set()

    def _count(self, position: int) -> int:
        return len(self.region.results(self.region.stages[position]))

    def space(self, position: int) -> frozenset[int]:
        return self.region.spaces[self.region.first_values[position]]

    def load_and_other(self, contract: Contract) -> tuple[int, int]:
        """(stage of the operand that is a load, value of the other one)."""
        if len(contract.args) == 2:
            for value, other in (contract.args, contract.args[::-1]):
                if isinstance(self.region.stages[self.positions[value]], Load):
                    return self.positions[value], other
        raise NotPrintable("its second product reads no operand as it is")

    def _expr(self, value: int) -> Expr:
        stage = self.region.stages[self.positions[value]]
        if not isinstance(stage, Map) or stage.dtype is not DType.F32:
            raise NotPrintable("what its products have between them is no softmax")
        self.path.add(self.positions[value])
        return stage.expr

    def _fold(self, value: int, combiner: str, key: int) -> int:
        stage = self.region.stages[self.positions[value]]
        if not isinstance(stage, Reduce) or stage.combiner != combiner or stage.axes != (key,):
            raise NotPrintable("what its products have between them is no softmax over the keys")
        return stage.args[0]

    def softmax(self, value: int, key: int) -> tuple[int, set[int]]:
        """(the softmax's operand, its stages)."""
        expr = self._expr(value)
        guard: Expr | None = None
        chosen: Expr | None = None
        if isinstance(expr, Apply) and expr.function == "select" and expr.args[1] == Literal(0.0):
            guard, chosen = expr.args[0], expr.args[2]
            expr = self._through(chosen)
        match expr:
            case Apply("div", (Arg(exponential), Arg(total))):
                pass
            case _:
                raise NotPrintable("what its products have between them is no softmax")
        raised = self._expr(exponential)
        inside = self._through(raised.args[0]) if isinstance(raised, Apply) and raised.function == "exp" else None
        match inside:
            case Apply("sub", (Arg(operand), Arg(top))):
                pass
            case _:
                raise NotPrintable("what its products have between them is no softmax")
        if self._fold(total, "sum", key) != exponential or self._fold(top, "max", key) != operand:
            raise NotPrintable("what its products have between them is no softmax")
        stages = {self.positions[v] for v in (exponential, total, top)}
        if isinstance(guard, Arg):
            condition = self.region.stages[self.positions[guard.index]]
            hidden = Apply("eq", (Arg(top), Literal(float("-inf")))), Apply("isnan", (chosen or guard,))
            if not isinstance(condition, Map) or condition.expr not in hidden:
                raise NotPrintable("its softmax is guarded in a way of its own")
            stages.add(self.positions[guard.index])
        return operand, stages

    def _through(self, expr: Expr) -> Expr:
        """The expression that a lone argument stands for."""
        return self._expr(expr.index) if isinstance(expr, Arg) else expr

    def scaled_load(self, value: int) -> tuple[int, float]:
        """(stage, factor) of an operand that is a load, or a load times a number."""
        stage = self.region.stages[self.positions[value]]
        if isinstance(stage, Load):
            return self.positions[value], 1.0
        match self._expr(value):
            case Apply("mul", (Arg(inner), Literal(number)) | (Literal(number), Arg(inner))):
                position, factor = self.scaled_load(inner)
                return position, factor * float(number)
            case Apply("div", (Arg(inner), Literal(number))) if number:
                position, factor = self.scaled_load(inner)
                return position, factor / float(number)
        raise NotPrintable("an operand of its first product is computed in the region")

    def axes(
        self, q: int, k: int, v: int, key: int, size: int, space: frozenset[int]
    ) -> tuple[int, tuple[int, ...], int]:
        """(the queries' axis, those of batch and head, that of the columns)."""
        queries = self.space(q) - self.space(k) - self.space(v)
        columns = self.space(v) - self.space(q) - self.space(k)
        if len(queries) != 1 or len(columns) != 1 or size not in self.space(k) or key not in self.space(k):
            raise NotPrintable("its queries, keys and columns are not an axis each")
        query, column = next(iter(queries)), next(iter(columns))
        leading = tuple(sorted(space - {query, column}))
        if len(leading) > 2:
            raise NotPrintable("its heads and batches are more than two axes")
        extent, width = self.region.extents[size], self.region.extents[column]
        if not isinstance(extent, int) or not isinstance(width, int) or max(extent, width) > _LARGEST_HEAD:
            raise NotPrintable(f"the size of its heads is not known, or above {_LARGEST_HEAD}")
        return query, leading, column

    def shared_heads(self, k: int, v: int, leading: Sequence[int]) -> int:
        """How many query heads share a key head: `floordiv(head, group)` is how the maps of k and v say it."""
        groups: set[int] = set()
        for position in (k, v):
            stage = self.region.stages[position]
            assert isinstance(stage, Load)
            if not leading:
                return 1
            name = f"i{leading[-1]}"
            for component in stage.map.components:
                if any(s.name == name for s in symbols_of(component)):
                    groups.add(_divisor(component, leading[-1], self.region.extents[leading[-1]]))
        if len(groups) > 1:
            raise NotPrintable("its keys and values belong to different heads")
        return groups.pop() if groups else 1

    def closed(self, stages: set[int]) -> frozenset[int]:
        """The stages, less those that something outside reads as well."""
        results = {v for p in stages for v in range(self.region.first_values[p], self.region.first_values[p] + 1)}
        last = self.region.first_values[self.region.contractions[1]]
        for position, stage in enumerate(self.region.stages):
            if position not in stages and results & set(operands_of(stage)) - {last}:
                first = self.region.first_values[self.region.contractions[0]]
                if results & set(operands_of(stage)) - {last, first}:
                    raise NotPrintable("a part of its softmax is used elsewhere in the region")
        return frozenset(stages)


def _divisor(component: Dim, axis: int, extent: Dim) -> int:
    if coefficient(component, axis) not in (None, 0):
        return 1
    for group in range(2, extent + 1 if isinstance(extent, int) else 0):
        symbol = SymInt.of(Symbol(f"i{axis}", 0, extent - 1 if isinstance(extent, int) else None))
        if component == floordiv(symbol, group):
            return group
    raise NotPrintable("its heads are not read in order")


def print_attention(attention: Attention, name: str) -> tuple[str, tuple[str | int, ...]]:
    """The C text up to the exported function `name`, and what it takes as `dims`. Raises NotPrintable."""
    printer = _Printer(attention, name)
    text = printer.text()
    return text, (*printer.symbols, *printer.numbers)


class _Printer:
    def __init__(self, attention: Attention, name: str) -> None:
        self.attention, self.region, self.name = attention, attention.region, name
        check_elements(self.region)
        hidden = (attention.q, attention.k, attention.v)
        self.whole = flat_nest(self.region, ())
        self.loads = self.whole.loads
        self.by_query = flat_nest(self.region, hidden, attention.query)
        self.by_column = flat_nest(self.region, hidden, attention.column)
        self.others = self._other_axes()
        self.symbols = shape_symbols(self.whole)
        self.numbers: list[int] = []

    def _other_axes(self) -> list[int]:
        """Axes that neither product has: what follows has them, where there is one index only."""
        a = self.attention
        found = [n for n in range(len(self.region.extents)) if n not in (*a.leading, a.query, a.key, a.column, a.size)]
        if any(self.region.extents[n] != 1 for n in found):
            raise NotPrintable("its result is broadcast")
        return found

    def text(self) -> str:
        """Everything."""
        functions = [self._score(), self._finish(), self._task()]
        export = self._export()
        return "\n\n".join([self._structure(), *functions, export]) + "\n"

    def _structure(self) -> str:
        members = call_members(self.region, self.symbols, len(self.numbers))
        kernel = ["    struct attention kernel;", "    float *scratch;", "    long scratch_size;"]
        lines = [*members, *kernel, "    struct pool *pool;", "    int *error;"]
        place = f"struct {self.name}_place {{ const struct {self.name}_call *c; long head; }};"
        return "\n".join([f"struct {self.name}_call {{", *lines, "};", place])

    def _score(self) -> str:
        """The hook of the scores: the stages between the first product and the softmax."""
        a = self.attention
        names = Names(axis_names(self.by_query), "c->n", self.numbers)
        product = self.region.first_values[a.scores]
        body = Body(self.by_query, {product: Code("score", Kind.FLOAT, True)}, names)
        body.stages(self._leading_to(a.softened, product))
        result = body.values[a.softened]
        text = result.text if result.vector else f"vf_all({result.text})"
        axes = [f"const long i{a.query} = query, i{a.key} = key;", f"(void)i{a.query}, (void)i{a.key}, (void)lanes;"]
        head = f"INLINE vf {self.name}_score(const void *context, vf score, long query, long key, long lanes) {{"
        lines = [*self._heads(names), *axes, *body.lines, f"return {text};"]
        return "\n".join([head, *(f"    {line}" for line in lines), "}"])

    def _leading_to(self, value: int, product: int) -> list[int]:
        positions = {v: p for p, v in enumerate(self.region.first_values)}
        found: set[int] = set()
        waiting = [value]
        while waiting:
            wanted = waiting.pop()
            if wanted == product or positions[wanted] in found:
                continue
            if isinstance(self.region.stages[positions[wanted]], (Reduce, Contract)):
                raise NotPrintable("its scores depend on a fold")
            found.add(positions[wanted])
            waiting += operands_of(self.region.stages[positions[wanted]])
        return sorted(found)

    def _heads(self, names: Names) -> list[str]:
        """The axes of batch and head, taken out of the head's number."""
        lines = [
            f"const struct {self.name}_place *place = context;",
            f"const struct {self.name}_call *c = place->c;",
            "(void)c;",
        ]
        leading = self.attention.leading
        lines += [f"const long i{axis} = 0;" for axis in self.others]
        if len(leading) == 2:
            heads = c_dim(self.region.extents[leading[1]], names)
            lines += [f"const long i{leading[1]} = place->head % {heads}, i{leading[0]} = place->head / {heads};"]
        elif leading:
            lines += [f"const long i{leading[0]} = place->head;"]
        return [*lines, *(f"(void)i{axis};" for axis in (*leading, *self.others))]

    def _finish(self) -> str:
        """The hook of the output: what follows the second product."""
        a = self.attention
        names = Names(axis_names(self.by_column), "c->n", self.numbers)
        body = Body(self.by_column, {self.region.first_values[a.output]: Code("value", Kind.FLOAT, True)}, names)
        wanted: set[int] = set()
        for store in self.region.stores:
            wanted.update(self._leading_to(store.value, self.region.first_values[a.output]))
        body.stages(sorted(wanted))
        for number in range(len(self.region.stores)):
            body.store(number)
        axes = [f"const long i{a.query} = row, i{a.column} = column;", f"(void)i{a.query}, (void)i{a.column};"]
        head = f"INLINE void {self.name}_finish(const void *context, vf value, long row, long column, long lanes) {{"
        lines = [*self._heads(names), *axes, *body.lines]
        return "\n".join([head, *(f"    {line}" for line in lines), "}"])

    def _task(self) -> str:
        lines = [
            f"const struct {self.name}_call *c = context;",
            f"const struct {self.name}_place place = {{c, attention_item_head(&c->kernel, item)}};",
            "float *scratch = c->scratch + pool_thread(c->pool) * c->scratch_size;",
            f"attention_item(&c->kernel, item, scratch, {self.name}_score, {self.name}_finish, &place);",
        ]
        head = f"static void {self.name}_task(void *context, long item) {{"
        return "\n".join([head, *(f"    {line}" for line in lines), "}"])

    def _export(self) -> str:
        a = self.attention
        names = Names(axis_names(self.whole, "call."), "call.n", self.numbers)
        extents = self.region.extents
        batch: Dim = extents[a.leading[0]] if len(a.leading) == 2 else 1
        heads: Dim = extents[a.leading[-1]] if a.leading else 1
        shared = floordiv(heads, a.group)
        sizes = [batch, heads, shared, extents[a.query], extents[a.key], extents[a.size], extents[a.column]]
        operands = [self._operand(a.q, a.query, a.size, 1, names), self._operand(a.k, a.key, a.size, a.group, names)]
        operands.append(self._operand(a.v, a.key, a.column, a.group, names))
        values = [c_dim(size, names) for size in sizes]
        values += [base for base, _ in operands] + [f"{{{strides}}}" for _, strides in operands]
        values += [c_float(a.scale), "0", "0"]
        fields = call_fields(self.region, self.symbols, len(self.numbers))
        lines = [
            f"struct {self.name}_call call = {{{', '.join([*fields, '.pool = pool', '.error = error'])}}};",
            f"call.kernel = (struct attention){{{', '.join(values)}}};",
            "call.scratch_size = (attention_scratch_size(&call.kernel) + 15) / 16 * 16;",
            "if (!scratch_get(&call.scratch, call.scratch_size * pool_threads(pool), error)) return;",
            f"pool_run(pool, {self.name}_task, &call, attention_items(&call.kernel));",
            "scratch_give(call.scratch);",
        ]
        head = f"EXPORT void {self.name}(struct pool *pool, void *const *buffers, const int64_t *dims, int *error) {{"
        return "\n".join([head, *(f"    {line}" for line in lines), "}"])

    def _operand(self, position: int, row: int, column: int, group: int, names: Names) -> tuple[str, str]:
        """The address of an operand's first element, and its strides."""
        access = self.loads[position]
        if access.bounds or access.checked:
            raise NotPrintable("an operand of its products is not read everywhere")
        zero: dict[str, Dim] = {f"i{n}": 0 for n in range(len(self.region.extents))}
        leading = self.attention.leading
        steps: list[Dim] = [0] * (2 - len(leading))
        for number, axis in enumerate(leading):
            last = number == len(leading) - 1
            steps.append(_step(access, axis, group if last else 1))
        steps += [_step(access, row, 1), _step(access, column, 1)]
        base = f"call.x{access.buffer} + {c_dim(substitute(access.offset, zero), names)}"
        return base, ", ".join(c_dim(step, names) for step in steps)


def _step(access: Access, axis: int, group: int) -> Dim:
    """The distance in memory from one index of an axis to the next: of a key head, if `group` query heads share it."""
    name = f"i{axis}"
    if group > 1:
        return substitute(access.offset, {name: group}) - substitute(access.offset, {name: 0})
    step = coefficient(access.offset, axis)
    if step is None or any(s.name[0] == "i" and s.name[1:].isdigit() for s in symbols_of(step)):
        raise NotPrintable("an operand of its products does not lie in even steps")
    return step

