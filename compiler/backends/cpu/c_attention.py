"""A region that is attention: two products with a softmax between them, by the kernel of attention.h.

Whatever stands between the first product and the softmax (scale, mask, soft cap) is printed into the score hook, what
follows the second product into the finish hook. A query whose scores are all -infinity gives zeros.
"""

from __future__ import annotations

from fusible.compiler.backends.attention import Attention, leading_to, step_of
from fusible.compiler.backends.cpu.c_body import Body, names_of, shape_symbols
from fusible.compiler.backends.cpu.c_call import call_fields, call_members, check_elements, own_call
from fusible.compiler.backends.cpu.c_dims import Names, c_dim, coefficient, mentions
from fusible.compiler.backends.cpu.c_kinds import Code, Kind, c_float
from fusible.compiler.backends.cpu.nest import Access, NotPrintable, check_products, flat_nest
from fusible.compiler.ir.symbol_values import substitute, symbols_of
from fusible.compiler.ir.symbols import Call, Dim, SymInt, dim_text, floordiv
from fusible.compiler.region.region import Load

__all__ = ["print_attention"]


def _heads_of_keys(attention: Attention) -> int:
    """How many query heads share a key head: `floordiv(head, group)` is how the maps of k and v say it."""
    region, leading = attention.region, attention.leading
    groups: set[int] = set()
    for position in (attention.k, attention.v):
        stage = region.stages[position]
        assert isinstance(stage, Load)
        if not leading:
            return 1
        name = f"i{leading[-1]}"
        for component in stage.map.components:
            if any(s.name == name for s in symbols_of(component)):
                groups.add(_divisor(component, leading[-1]))
    if len(groups) > 1:
        raise NotPrintable("its keys and values belong to different heads")
    return groups.pop() if groups else 1


def _divisor(component: Dim, axis: int) -> int:
    """g where an index follows from floordiv(i<axis>, g) and from other axes. Raises NotPrintable."""
    if coefficient(component, axis) not in (None, 0):
        return 1
    terms = component.terms if isinstance(component, SymInt) else ()
    match [monomial for monomial, _ in terms if mentions(SymInt(((monomial, 1),)), f"i{axis}")]:
        case [(Call("floordiv", (head, int(group))),)] if dim_text(head) == f"i{axis}":
            return group
    raise NotPrintable("its heads are not read in order")


def print_attention(attention: Attention, name: str) -> tuple[str, tuple[str | Dim, ...]]:
    """The C text up to the exported function `name`, and what it takes as `dims`. Raises NotPrintable."""
    printer = _Printer(attention, name)
    text = printer.text()
    return text, (*printer.symbols, *printer.numbers)


class _Printer:
    def __init__(self, attention: Attention, name: str) -> None:
        self.attention, self.region, self.name = attention, attention.region, name
        check_elements(self.region)
        check_products(self.region)
        if attention.query is None or len(attention.leading) > 2:
            raise NotPrintable("its queries are no axis, or its heads and batches more than two")
        if any(self.region.extents[n] != 1 for n in attention.others):
            raise NotPrintable("its result is broadcast")
        self.query, self.others = attention.query, attention.others
        self.group = _heads_of_keys(attention)
        hidden = (attention.q, attention.k, attention.v)
        self.whole = flat_nest(self.region, ())
        self.loads = self.whole.loads
        self.by_query = flat_nest(self.region, hidden, self.query)
        self.by_column = flat_nest(self.region, hidden, attention.column)
        self.symbols = shape_symbols(self.whole)
        self.numbers: list[Dim] = []

    def text(self) -> str:
        """Everything."""
        score = self._score()
        hook = f"{self.name}_score" if score else "score_unchanged"
        functions = [*filter(None, [score]), self._finish(), self._task(hook)]
        export = self._export()
        return "\n\n".join([self._structure(), *functions, export]) + "\n"

    def _structure(self) -> str:
        members = call_members(self.region, self.symbols, len(self.numbers))
        kernel = ["    struct attention kernel;", "    float *scratch;", "    long scratch_size;"]
        lines = [*members, *kernel, "    struct pool *pool;", "    int *error;"]
        place = f"struct {self.name}_place {{ const struct {self.name}_call *c; long head; }};"
        return "\n".join([f"struct {self.name}_call {{", *lines, "};", place])

    def _score(self) -> str:
        """The hook of the scores: the stages between the first product and the softmax. "" if there are none."""
        a = self.attention
        names = names_of(self.by_query, "c->", self.numbers)
        product = self.region.first_values[a.scores]
        body = Body(self.by_query, {product: Code("score", Kind.FLOAT, True)}, names)
        body.stages(leading_to(self.region, a.softened, product))
        result = body.values[a.softened]
        if result.vector and result.text == "score" and not body.lines:
            return ""
        text = result.text if result.vector else f"vf_all({result.text})"
        query, key = f"i{self.query}", f"i{a.key}"
        axes = [f"const long {query} = query, {key} = key;", f"(void){query}, (void){key}, (void)lanes;"]
        head = f"INLINE vf {self.name}_score(const void *context, vf score, long query, long key, long lanes) {{"
        lines = [*self._heads(names), *axes, *body.lines, f"return {text};"]
        return "\n".join([head, *(f"    {line}" for line in lines), "}"])

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
        names = names_of(self.by_column, "c->", self.numbers)
        body = Body(self.by_column, {self.region.first_values[a.output]: Code("value", Kind.FLOAT, True)}, names)
        wanted: set[int] = set()
        for store in self.region.stores:
            wanted.update(leading_to(self.region, store.value, self.region.first_values[a.output]))
        body.stages(sorted(wanted))
        for number in range(len(self.region.stores)):
            body.store(number)
        axes = [f"const long i{self.query} = row, i{a.column} = column;", f"(void)i{self.query}, (void)i{a.column};"]
        head = f"INLINE void {self.name}_finish(const void *context, vf value, long row, long column, long lanes) {{"
        lines = [*self._heads(names), *axes, *body.lines]
        return "\n".join([head, *(f"    {line}" for line in lines), "}"])

    def _task(self, hook: str) -> str:
        lines = [
            f"const struct {self.name}_call *c = context;",
            own_call(self.name),
            f"const struct {self.name}_place place = {{&hooks, attention_item_head(&c->kernel, item)}};",
            "float *scratch = c->scratch + pool_thread(c->pool) * c->scratch_size;",
            f"attention_item(&c->kernel, item, scratch, {hook}, {self.name}_finish, &place);",
        ]
        head = f"static void {self.name}_task(void *context, long item) {{"
        return "\n".join([head, *(f"    {line}" for line in lines), "}"])

    def _export(self) -> str:
        a = self.attention
        names = names_of(self.whole, "call.", self.numbers)
        extents = self.region.extents
        batch: Dim = extents[a.leading[0]] if len(a.leading) == 2 else 1
        heads: Dim = extents[a.leading[-1]] if a.leading else 1
        shared = floordiv(heads, self.group)
        sizes = [batch, heads, shared, extents[self.query], extents[a.key], extents[a.size], extents[a.column]]
        operands = [self._operand(a.q, self.query, a.size, 1, names)]
        operands.append(self._operand(a.k, a.key, a.size, self.group, names))
        operands.append(self._operand(a.v, a.key, a.column, self.group, names))
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
        steps += [step_of(access, row), step_of(access, column)]
        base = f"call.x{access.buffer} + {c_dim(substitute(access.offset, zero), names)}"
        return base, ", ".join(c_dim(step, names) for step in steps)


def _step(access: Access, axis: int, group: int) -> Dim:
    """The distance in memory from one index of an axis to the next: of a key head, if `group` query heads share it."""
    if group > 1:
        name = f"i{axis}"
        return substitute(access.offset, {name: group}) - substitute(access.offset, {name: 0})
    return step_of(access, axis)
