"""A region around one product of matrices: the kernels of gemm.h and gemv.h, the rest of the region in their hook.

The right operand is packed into panels: a constant when the model is compiled, another one when the kernel is called.
Whatever follows the product in the region (bias, activation, residual, another place for each element) is printed into
the finish hook.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from fusible.compiler.backends.cpu.c_body import Body, names_of, shape_symbols
from fusible.compiler.backends.cpu.c_call import call_fields, call_members, check_elements, own_call
from fusible.compiler.backends.cpu.c_dims import Names, c_dim, coefficient, mentions
from fusible.compiler.backends.cpu.c_kinds import Code, Kind
from fusible.compiler.backends.cpu.c_start import print_start, start_of
from fusible.compiler.backends.cpu.nest import Access, Nest, NotPrintable, check_packed, check_products, nest_of
from fusible.compiler.ir.symbol_values import substitute, symbols_of
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt
from fusible.compiler.ir.types import DType
from fusible.compiler.region.evaluate import run_region
from fusible.compiler.region.index import IndexMap
from fusible.compiler.region.region import Buffer, Contract, Load, Region, Store, axes_of, operands_of
from fusible.kernels.cpu.packing import pack_panels, pack_panels_bf16, packed_size

__all__ = ["Product", "packed_operand", "packed_type", "print_product", "product_of"]

_FEW_ROWS = 4  # gemv.h takes as many


@dataclass(frozen=True)
class Product:
    """A product in a nest: stages of the operands and of the sum, and the axes of its batch, rows, columns and depth.

    An axis is None where there is but one. bf16: the right operand is packed so, and what it meets is rounded.
    computed: the right operand is no constant.
    """

    nest: Nest
    contract: int
    left: int
    right: int
    batch: int | None
    row: int | None
    column: int
    depth: int | None
    buffer: int  # the input that holds the right operand
    rights: tuple[tuple[int, ...], int]  # axes of the depth, and the column's axis, before collapsing
    bf16: bool = False
    computed: bool = False


def product_of(region: Region, constants: Collection[int], *, bf16: bool = False) -> Product:
    """The product that a region is built around; `constants`: the inputs known at compile time. Raises NotPrintable."""
    if len(region.contractions) != 1:
        raise NotPrintable("it has several contractions")
    position = region.contractions[0]
    contract = region.stages[position]
    assert isinstance(contract, Contract)
    if contract.dtype is not DType.F32 or len(contract.args) != 2:
        raise NotPrintable("its contraction is no product of two operands in f32")
    check_products(region)
    loads = [_load_of(region, value) for value in contract.args]
    sides = _sides(region, loads, constants)
    if sides is None:
        return _computed_product(region, position, loads)
    left, right = sides
    check_packed(region, right)
    column = _column(region, left, right, contract)
    if not all(isinstance(region.extents[axis], int) for axis in (*contract.axes, column)):
        raise NotPrintable("the sizes of its constant operand are not literal")
    nest = nest_of(region, contraction=position, aside=(right,), vector=column)
    rows = [a for a in nest.outer if a != column and nest.extents[a] is not None]
    depths = [a for a in nest.folded if nest.extents[a] is not None]
    if len(rows) > 2 or len(depths) > 1:
        raise NotPrintable("its rows or its depth do not lie in even steps")
    load = region.stages[right]
    assert isinstance(load, Load)
    rights = tuple(sorted(contract.axes)), column
    return Product(
        nest, position, left, right, rows[0] if len(rows) == 2 else None, rows[-1] if rows else None, column,
        depths[0] if depths else None, load.buffer, rights, bf16,
    )  # fmt: skip


def _load_of(region: Region, value: int) -> int:
    position = region.first_values.index(value)
    if not isinstance(region.stages[position], Load):
        raise NotPrintable("an operand of its product is computed in the region")
    return position


def _computed_product(region: Region, position: int, loads: Sequence[int]) -> Product:
    """A product of two operands that are computed. Raises NotPrintable."""
    left, right, column = _computed_sides(region, position, loads)
    nest = nest_of(region, contraction=position, vector=column)
    outer = [a for a in nest.outer if a != column and nest.extents[a] is not None]
    batches = [a for a in outer if coefficient(nest.loads[right].offset, a) != 0]
    rows = [a for a in outer if a not in batches]
    depths = [a for a in nest.folded if nest.extents[a] is not None]
    if len(batches) > 1 or len(rows) + len(batches) > 2 or len(depths) > 1:
        raise NotPrintable("its batch, its rows or its depth do not lie in even steps")
    batch, row = (*batches, *rows[:-1], None)[0], rows[-1] if rows else None
    count = 1 if row is None else nest.extents[row]
    if isinstance(count, int) and count < _FEW_ROWS:
        raise NotPrintable("its right operand is computed, and has too few rows to be packed for")
    load = region.stages[right]
    assert isinstance(load, Load)
    depth = depths[0] if depths else None
    return Product(nest, position, left, right, batch, row, column, depth, load.buffer, ((), column), computed=True)


def _computed_sides(region: Region, position: int, loads: Sequence[int]) -> tuple[int, int, int]:
    """The stages of the operands and the columns' axis: the right one has it alone, best where results lie along it."""
    contract, found = region.stages[position], list[tuple[int, int, int]]()
    assert isinstance(contract, Contract)
    for left, right in (loads, loads[::-1]):
        other, mine = (set(axes_of(region.stages[n])) - set(contract.axes) for n in (left, right))
        stages = [region.stages[n] for n in (left, right)]
        plain = all(isinstance(s, Load) and not s.map.bounds and not _values_in(s) for s in stages)
        if left != right and plain and len(mine - other) == 1:
            found.append((left, right, (mine - other).pop()))
    if not found:
        raise NotPrintable("neither operand of its product is a constant, or has columns along one axis")
    places = [s.map.components[-1] for s in region.stores if s.map.components]
    return min(found, key=lambda sides: not any(mentions(place, f"i{sides[2]}") for place in places))


def _values_in(stage: Load) -> bool:
    """True if data say where a load reads."""
    return any(name[0] == "v" for name in _symbol_names(stage))


def _sides(region: Region, loads: list[int], constants: Collection[int]) -> tuple[int, int] | None:
    """The stages of the left and the right operand: the right one is the constant. None if there is none."""
    for right, left in ((loads[1], loads[0]), (loads[0], loads[1])):
        stage = region.stages[right]
        assert isinstance(stage, Load)
        if stage.buffer in constants and not stage.map.bounds and right != left:
            if not _values_in(stage):
                return left, right
    return None


def _symbol_names(stage: Load) -> list[str]:
    return [s.name for c in stage.map.components for s in symbols_of(c)]


def _column(region: Region, left: int, right: int, contract: Contract) -> int:
    """The axis of the right operand that the left one has not."""
    mine = set(axes_of(region.stages[right])) - set(contract.axes)
    if mine & set(axes_of(region.stages[left])):
        raise NotPrintable("its right operand is a batch")
    if len(mine) != 1:
        raise NotPrintable("its columns are several axes")
    return mine.pop()


def packed_type(region: Region, product: Product) -> tuple[tuple[int], np.dtype]:
    """The shape and type of `packed_operand`."""
    depths, column = product.rights
    *sizes, columns = (extent for a in (*depths, column) if isinstance(extent := region.extents[a], int))
    depth = math.prod(sizes)
    if product.bf16:
        return (2 * packed_size(-(-depth // 2), columns),), np.dtype(ml_dtypes.bfloat16)
    return (packed_size(depth, columns),), np.dtype(np.float32)


def packed_operand(region: Region, product: Product, array: np.ndarray) -> np.ndarray:
    """The constant right operand in panels, 1-D float32 or bfloat16."""
    load = region.stages[product.right]
    assert isinstance(load, Load)
    depths, column = product.rights
    order = {axis: n for n, axis in enumerate((*depths, column))}
    sizes = [extent for a in order if isinstance(extent := region.extents[a], int)]
    assert len(sizes) == len(order)
    plain = _plain_axes(load.map)
    read = [1 if a is None else sizes[order[a]] for a in plain or ()]
    if 0 in sizes:
        matrix = np.empty(sizes, np.float32)
    elif plain is not None and read == list(array.shape):
        present = [a for a in plain if a is not None]
        shaped = array.reshape([sizes[order[a]] for a in present])
        matrix = np.transpose(shaped, np.argsort([order[a] for a in present]))
    else:
        names: dict[str, Dim] = {f"i{a}": SymInt.of(Symbol(f"i{n}", 0, sizes[n] - 1)) for a, n in order.items()}
        map_ = IndexMap(tuple(substitute(c, names) for c in load.map.components))
        place = IndexMap(tuple(SymInt.of(Symbol(f"i{n}", 0, sizes[n] - 1)) for n in range(len(sizes))))
        buffers = (region.inputs[load.buffer],), (Buffer(DType.F32, tuple(sizes)),)
        (matrix,) = run_region(Region(tuple(sizes), *buffers, (Load(0, map_),), (Store(0, place, 0),)), [array])
    pack = pack_panels_bf16 if product.bf16 else pack_panels
    return pack(matrix.reshape(math.prod(sizes[:-1]), sizes[-1]))


def _plain_axes(map_: IndexMap) -> list[int | None] | None:
    """The axis that each component is (None: 0), if that is all that they are."""
    found: list[int | None] = []
    for component in map_.components:
        if component == 0:
            found.append(None)
        elif isinstance(component, SymInt) and component.text[0] == "i" and component.text[1:].isdigit():
            found.append(int(component.text[1:]))
        else:
            return None
    axes = [a for a in found if a is not None]
    return found if len(set(axes)) == len(axes) else None


def print_product(region: Region, product: Product, name: str) -> tuple[str, tuple[str | Dim, ...]]:
    """The C text of a region around a product, up to the exported function `name`, and what it takes as `dims`.

    Raises NotPrintable.
    """
    printer = _Printer(region, product, name)
    text = printer.text()
    return text, (*printer.symbols, *printer.numbers)


class _Printer:
    def __init__(self, region: Region, product: Product, name: str) -> None:
        self.region, self.product, self.nest, self.name = region, product, product.nest, name
        check_elements(region)
        self.symbols = shape_symbols(self.nest)
        self.numbers: list[Dim] = []
        self.left = self.nest.loads[product.left]
        if self.left.bounds or self.left.checked:
            raise NotPrintable("its left operand is not read everywhere")
        if product.computed and (self.right.bounds or self.right.checked):
            raise NotPrintable("its right operand is not read everywhere")
        alone = product.batch is None and not product.computed
        self.few = alone and self._few_rows()
        self.perhaps_one = alone and not isinstance(self._row_count(), int)
        self.suffix = "_bf16" if product.bf16 else ""
        self.rounds = product.bf16 and not self.few  # all of the left operand, before anything is multiplied
        self.start = start_of(self.nest, product.contract, product.column)
        self.start_name = "start_zero" if self.start is None else f"{name}_start"

    @property
    def right(self) -> Access:
        """How the right operand is read, where it is computed."""
        return self.nest.loads[self.product.right]

    def _row_count(self) -> Dim:
        return 1 if self.product.row is None else _extent(self.nest, self.product.row)

    def _few_rows(self) -> bool:
        rows = self._row_count()
        return isinstance(rows, int) and 1 <= rows <= _FEW_ROWS

    def text(self) -> str:
        """Everything."""
        functions = [self._start(), self._finish(), self._rounds(), self._packs(), self._tasks()]
        export = self._export()
        return "\n\n".join([self._structure(), *filter(None, functions), export]) + "\n"

    def _start(self) -> str:
        if self.start is None:
            return ""
        head = [f"const struct {self.name}_call *c = ((const struct {self.name}_place *)context)->c;"]
        names = names_of(self.nest, "c->", self.numbers)
        return print_start(self.nest, self.start, self.name, self.product.column, head, names)

    def _structure(self) -> str:
        members = call_members(self.region, self.symbols, len(self.numbers))
        kernel = ["    struct gemv gemv;"] if self.few or self.perhaps_one else []
        kernel += [] if self.few else ["    struct gemm gemm;", "    struct gemm_tiling tiling;"]
        lines = [*members, *kernel, "    float *scratch;", "    long scratch_size, items;"]
        lines += ["    struct gemm words;", "    float *rounded;", "    long parts;"] if self.rounds else []
        if self.product.computed:
            lines += ["    struct panels_source right;", "    float *packed;"]
            lines += ["    long right_batch, packed_batch, parts;"]
        lines += ["    struct pool *pool;", "    int *error;"]
        place = f"struct {self.name}_place {{ const struct {self.name}_call *c; long batch; }};"
        return "\n".join([f"struct {self.name}_call {{", *lines, "};", place])

    def _finish(self) -> str:
        """The hook: every stage but the product and its operands, for one vector of columns."""
        p = self.product
        sum_ = self.region.first_values[p.contract] if self.start is None else self.start.value
        names = names_of(self.nest, "c->", self.numbers)
        body = Body(self.nest, {sum_: Code("value", Kind.FLOAT, True)}, names)
        hidden = {p.contract, p.left, p.right}
        hidden |= set() if self.start is None else {self.start.total, self.start.bias}
        operands = {self.region.first_values[p.left], self.region.first_values[p.right]}
        for position, stage in enumerate(self.region.stages):
            if position not in hidden and operands & set(operands_of(stage)):
                raise NotPrintable("an operand of its product is used elsewhere in the region")
        body.stages(n for n in range(len(self.region.stages)) if n not in hidden)
        for number in range(len(self.region.stores)):
            body.store(number)
        axes = [f"i{p.column} = column"]
        axes += [] if p.row is None else [f"i{p.row} = row"]
        axes += [] if p.batch is None else [f"i{p.batch} = place->batch"]
        lines = [
            f"const struct {self.name}_place *place = context;",
            f"const struct {self.name}_call *c = place->c;",
            f"const long {', '.join(axes)};",
            "(void)c, (void)row, (void)" + ", (void)".join(a.split(" ")[0] for a in axes) + ";",
            *body.lines,
        ]
        head = f"INLINE void {self.name}_finish(const void *context, vf value, long row, long column, long lanes) {{"
        return "\n".join([head, *(f"    {line}" for line in lines), "}"])

    def _tasks(self) -> str:
        """What computes an item: of few rows, or of any number."""
        place = f"const struct {self.name}_place place = {{&hooks, "
        hooks = f"{self.start_name}, {self.name}_finish, &place"
        few = [
            own_call(self.name),
            f"{place}0}};",
            "struct gemv gemv = c->gemv;",
            f"gemv.rows = {self._rows()};",  # the compiler must know which of gemv.h's code is needed
            f"gemv{self.suffix}_item(&gemv, c->items, item, {hooks});",
        ]
        if self.few:
            return self._pooled("task", few)
        any_number = [
            own_call(self.name),
            f"{place}gemm_item_batch(&c->tiling, item)}};",
            "float *scratch = c->scratch + pool_thread(c->pool) * c->scratch_size;",
            f"gemm{self.suffix}_item(&c->{'words' if self.rounds else 'gemm'}, &c->tiling, item, scratch, {hooks});",
        ]
        one = [self._pooled("one", few)] if self.perhaps_one else []
        return "\n\n".join([*one, self._pooled("task", any_number)])

    def _pooled(self, word: str, lines: Sequence[str]) -> str:
        """A function for the pool."""
        head = f"static void {self.name}_{word}(void *context, long item) {{"
        lines = [f"const struct {self.name}_call *c = context;", *lines]
        return "\n".join([head, *(f"    {line}" for line in lines), "}"])

    def _rounds(self) -> str:
        """What rounds a part of the left operand."""
        return self._pooled("round", ["gemm_bf16_round(&c->gemm, c->rounded, item, c->parts);"]) if self.rounds else ""

    def _packs(self) -> str:
        """What packs a part of the right operand's panels."""
        lines = [
            "const long panels = panels_count(c->right.columns), all = panels * (c->packed_batch ? c->gemm.batch : 1);",
            "for (long n = part_begin(all, c->parts, item); n < part_begin(all, c->parts, item + 1); n++) {",
            "    struct panels_source source = c->right;",
            "    source.data += n / panels * c->right_batch;",
            "    panels_pack(&source, c->packed + n / panels * c->packed_batch, n % panels);",
            "}",
        ]
        return self._pooled("pack", lines) if self.product.computed else ""

    def _rows(self) -> str:
        """The number of rows, if they are few: gemv.h has code of its own for each."""
        return str(self._row_count()) if self.few else "1"

    def _export(self) -> str:
        p, nest = self.product, self.nest
        names = names_of(nest, "call.", self.numbers)
        zero: dict[str, Dim] = {f"i{n}": 0 for n in range(len(nest.extents))}
        steps = [_step(nest, self.left, axis) for axis in (p.batch, p.row, p.depth)]
        sizes = ["1" if a is None else c_dim(_extent(nest, a), names) for a in (p.batch, p.row, p.column, p.depth)]
        if self.few:
            sizes[1] = self._rows()
        a = f"call.x{self.left.buffer} + {c_dim(substitute(self.left.offset, zero), names)}"
        b = "NULL" if p.computed else f"call.x{p.buffer}"
        a_batch, a_row, a_depth = (c_dim(step, names) for step in steps)
        batch, rows, columns, depth = sizes
        words = f"bf16_pairs({depth})" if p.bf16 else depth
        packing = self._packing(names, columns, depth) if p.computed else []
        fields = call_fields(self.region, self.symbols, len(self.numbers))
        lines = [f"struct {self.name}_call call = {{{', '.join([*fields, '.pool = pool', '.error = error'])}}};"]
        lines.append("(void)dims;")
        few = [
            f"call.gemv = (struct gemv){{{self._rows()}, {columns}, {depth}, {a}, {a_row}, {a_depth}, {b}}};",
            f"call.items = gemv_items({columns}, {words}, pool_threads(pool));",
            f"pool_run(pool, {self.name}_{'task' if self.few else 'one'}, &call, call.items);",
        ]
        if self.few:
            lines += few
        else:
            lines += [f"if ({rows} == 1) {{", *(f"    {line}" for line in [*few, "return;"]), "}"] * self.perhaps_one
            lines += [
                f"call.gemm = (struct gemm){{{', '.join([*sizes, a, a_batch, a_row, a_depth, b])}, 0}};",
                f"call.tiling = gemm_items({batch}, {rows}, {columns}, {words}, pool_threads(pool));",
                f"call.scratch_size = gemm_scratch_size(&call.tiling, {rows}, {words});",
                "if (!scratch_get(&call.scratch, call.scratch_size * pool_threads(pool), error)) return;",
                *(self._rounding() if self.rounds else []),
                *packing,
                f"pool_run(pool, {self.name}_task, &call, call.tiling.items);",
                *(["scratch_give(call.rounded);"] if self.rounds else []),
                *(["scratch_give(call.packed);"] if p.computed else []),
                "scratch_give(call.scratch);",
            ]
        head = f"EXPORT void {self.name}(struct pool *pool, void *const *buffers, const int64_t *dims, int *error) {{"
        return "\n".join([head, *(f"    {line}" for line in lines), "}"])

    def _rounding(self) -> list[str]:
        return [
            "if (!scratch_get(&call.rounded, gemm_bf16_size(&call.gemm), error)) {",
            "    scratch_give(call.scratch);",
            "    return;",
            "}",
            "call.parts = gemm_bf16_parts(&call.gemm, pool_threads(pool));",
            "call.words = gemm_bf16_words(&call.gemm, call.rounded);",
            f"pool_run(pool, {self.name}_round, &call, call.parts);",
        ]

    def _packing(self, names: Names, columns: str, depth: str) -> list[str]:
        p, zero = self.product, dict[str, Dim]({f"i{n}": 0 for n in range(len(self.nest.extents))})
        steps = [_step(self.nest, self.right, axis) for axis in (p.depth, p.column, p.batch)]
        place = f"call.x{p.buffer} + {c_dim(substitute(self.right.offset, zero), names)}"
        along_depth, along_columns, along_batch = (c_dim(step, names) for step in steps)
        size = f"panels_size({depth}, {columns})"
        return [
            f"call.right = (struct panels_source){{{place}, {depth}, {columns}, {along_depth}, {along_columns}}};",
            f"call.right_batch = {along_batch};",
            f"call.packed_batch = {'0' if steps[2] == 0 else size};",
            f"const long matrices = {'1' if steps[2] == 0 else 'call.gemm.batch'};",
            f"if (!scratch_get(&call.packed, {size} * matrices, error)) {{",
            "    scratch_give(call.scratch);",
            "    return;",
            "}",
            "call.gemm.b = call.packed, call.gemm.b_batch = call.packed_batch;",
            f"call.parts = long_min(4 * pool_threads(pool), matrices * panels_count({columns}));",
            f"pool_run(pool, {self.name}_pack, &call, call.parts);",
        ]


def _step(nest: Nest, access: Access, axis: int | None) -> Dim:
    """The elements from one point along an axis to the next."""
    step = 0 if axis is None else coefficient(access.offset, axis)
    if step is None or any(mentions(step, f"i{n}") for n in range(len(nest.extents))):
        raise NotPrintable("an operand of its product does not lie in even steps")
    return step


def _extent(nest: Nest, axis: int) -> Dim:
    extent = nest.extents[axis]
    assert extent is not None
    return extent
