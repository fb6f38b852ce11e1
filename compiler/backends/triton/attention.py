"""A region that is attention as one Triton kernel: the template of kernels/triton/attention.py and the region's hooks.

Whatever stands between the first product and the softmax is the hook of the scores, what follows the second product the
hook that stores. A query that attends no key gives what the region says: NaN, or zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusible.compiler.backends.attention import (
    Attention,
    Guard,
    attention_of,
    heads_as_queries,
    leading_to,
    step_of,
    window_of,
)
from fusible.compiler.backends.cpu.nest import Access, NotPrintable, flat_nest
from fusible.compiler.backends.triton.anonymous import anonymous
from fusible.compiler.backends.triton.body import Body, widened
from fusible.compiler.backends.triton.f32_products import IEEE, TF32X3, multiplied_as
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.launch import (
    POINTER_TYPES,
    WORKSPACE,
    AccessFact,
    Argument,
    LaunchRule,
    workspace_arguments,
)
from fusible.compiler.backends.triton.print_expr import Code, literal_text
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.backends.triton.schedule_attention import AttentionSchedule, schedule_attention
from fusible.compiler.backends.triton.template_import import template_import
from fusible.compiler.backends.triton.tile import ELEMENT_TYPES, check_element_types, tile_over
from fusible.compiler.ir.symbol_values import substitute
from fusible.compiler.ir.symbols import Dim, bounds_of
from fusible.compiler.ir.types import DType
from fusible.compiler.region.region import Load, Region, operands_of
from fusible.compiler.region.text import region_text

__all__ = ["attention_in", "attention_products", "print_attention"]

_ELEMENTS = (DType.F32, DType.F16, DType.BF16)
_SUM = DType.F32
_WIDEST = 128  # elements of a head whose keys and values are split: both parts of wider ones do not fit registers
_FEW = 16  # queries that compute little: their kernels wait for memory
_EMPTY = {Guard.NONE: "NAN_IF_EMPTY", Guard.NEVER: "ZERO_IF_EMPTY", Guard.NAN: "ZERO_IF_NAN"}


def print_attention(
    region: Region,
    target: GpuTarget,
    chosen: AttentionSchedule | None = None,
    *,
    precision: str = "ieee",
    name: str = "kernel",
) -> PrintedKernel:
    """The kernel of a region that is attention, by a schedule or by the one for a GPU. Raises NotPrintable.

    precision: how f32 is multiplied (`f32_products`), as it is: see `attention_products`.
    """
    attention, dtype, symbols = attention_in(region)
    found = chosen or schedule_attention(attention, dtype, target, precision)
    return _Printer(attention, found, precision, name, symbols).printed()


def attention_in(region: Region) -> tuple[Attention, DType, dict[str, Dim]]:
    """The attention that a region is, with its shape symbols renamed, its operands' type, and what the names stand for.

    Raises NotPrintable if it is none that the template takes.
    """
    renamed, symbols = anonymous(region)
    check_element_types(renamed)
    attention = attention_of(renamed, _ELEMENTS, computed=True)
    together = heads_as_queries(attention)
    if together is not None:
        attention = attention_of(together, _ELEMENTS, computed=True)
    renamed = attention.region
    dtypes = {renamed.dtypes[renamed.first_values[p]] for p in (attention.q, attention.k, attention.v)}
    if len(dtypes) > 1:
        raise NotPrintable("the operands of its products are of several types")
    if any(renamed.extents[n] != 1 for n in attention.others):
        raise NotPrintable("its result is broadcast")
    return attention, dtypes.pop(), symbols


def attention_products(region: Region, precision: str) -> str:
    """How both products of attention multiply f32 where products of f32 are made by `precision`: alike.

    Few queries, keys or elements of a head stay exact, and so do wide heads. Raises NotPrintable if it is no attention.
    """
    attention, dtype, _ = attention_in(region)
    extents = attention.region.extents
    queries: Dim = 1 if attention.query is None else extents[attention.query]
    sizes = extents[attention.size], extents[attention.column]
    if precision == TF32X3 and max(map(_power, sizes)) > _WIDEST:
        return IEEE
    return multiplied_as(precision, dtype, (queries, extents[attention.key], *sizes))


@dataclass(frozen=True, slots=True)
class _Operand:
    """Address of the first element of a head, and the steps along rows and columns."""

    base: str
    row: str
    column: str


class _Printer:
    """Prints attention whose shape symbols are renamed; `symbols`: what they stand for."""

    def __init__(
        self, attention: Attention, schedule: AttentionSchedule, precision: str, name: str, symbols: dict[str, Dim]
    ) -> None:
        self.attention, self.region, self.name = attention, attention.region, name
        self.schedule, self.precision, self.symbols = schedule, precision, symbols
        hidden = (attention.k, attention.v) if attention.turned else (attention.q, attention.k, attention.v)
        self.whole = flat_nest(self.region, ())
        self.nest = flat_nest(self.region, hidden)
        row = () if attention.query is None else (attention.query,)
        self.kernel = Body(tile_over(self.whole, (), ()), (False, False))
        self.rows_fit = _divides(schedule.rows, self._extent(attention.query))
        self.keys_fit = _divides(schedule.keys, self.region.extents[attention.key])
        fits = _power(self._extent(attention.column)) == self._extent(attention.column)
        self.score = Body(tile_over(self.nest, row, (attention.key,)), (not self.rows_fit, not self.keys_fit))
        self.ahead = Body(self.score.tile, self.score.masks)
        self.finish = Body(tile_over(self.nest, row, (attention.column,)), (not self.rows_fit, not fits))
        self.head_fits = _power(self._extent(attention.size)) == self._extent(attention.size)
        self.query = Body(tile_over(self.nest, row, (attention.size,)), (not self.rows_fit, not self.head_fits))
        self.wide = self.kernel.tile.wide
        columns = ((self.ahead, attention.key), (self.score, attention.key), (self.finish, attention.column))
        for body, column in (*columns, (self.query, attention.size)):
            self._name_axes(body, column)

    def _extent(self, axis: int | None) -> Dim:
        return 1 if axis is None else self.region.extents[axis]

    def _name_axes(self, body: Body, column: int) -> None:
        for axis in self.attention.leading:
            body.names[f"i{axis}"] = f"i{axis}"
        if self.attention.query is not None:
            body.names[f"i{self.attention.query}"] = "r"
        body.names[f"i{column}"] = "c"

    def printed(self) -> PrintedKernel:
        """Text and rule."""
        self._query()
        self._score()
        self._finish()
        self._kernel()
        arguments = self._arguments()
        split = self.schedule.split
        constants = {"ROWS": self.schedule.rows, "KEYS": self.schedule.keys, "SPLIT": split}
        facts = tuple(dict.fromkeys([*self._facts(), *(fact for body in self._hooks for fact in body.facts)]))
        blocks: list[tuple[Dim, int]] = [(self._extent(self.attention.query), self.schedule.rows)]
        blocks += [*((self.region.extents[axis], 1) for axis in self.attention.leading), (split, 1)]
        rule = LaunchRule(
            self.name, arguments, constants, facts, tuple((substitute(n, self.symbols), b) for n, b in blocks),
            self.schedule.warps, self.schedule.stages, self._part() * _SUM.numpy.itemsize if split > 1 else 0,
        )  # fmt: skip
        dtype = self.region.dtypes[self.region.first_values[self.attention.v]]
        queries = self._extent(self.attention.query)
        few = isinstance(queries, int) and queries < _FEW
        serial = dtype is DType.F32 and self.precision == IEEE and not few  # what comes next would take its share
        source = self._source(arguments, constants)
        return PrintedKernel(source, rule, multiplied=(dtype, self.precision), serial=serial)

    def _part(self) -> int:
        """Numbers that a program leaves of its share of the keys: weighted sums, largest scores, sums of weights."""
        return self.schedule.rows * (_power(self._extent(self.attention.column)) + 2)

    def _source(self, arguments: Sequence[Argument], constants: dict[str, int]) -> str:
        bodies = (*self._hooks, self.kernel)
        functions = {k: text for body in bodies for k, text in (*body.dims.functions.items(), *body.functions.items())}
        imports = ["import triton", "import triton.language as tl"]
        if functions.pop("libdevice", None) is not None:
            imports.append("from triton.language.extra import libdevice")
        imports += ["", template_import("attention", [_EMPTY[self.attention.guard], "attend"])]
        parameters = ", ".join([*(a.name for a in arguments), *(f"{c}: tl.constexpr" for c in constants)])
        head = ['"""One kernel, printed from this region:', "", region_text(self.region), '"""', "", *imports]
        hooks = [
            self._hook("ahead(", self.ahead), self._hook("score(scores, ahead, ", self.score),
            self._hook("finish(sums, ", self.finish),
        ]  # fmt: skip
        if self.attention.turned:
            hooks.insert(0, self._hook("query(", self.query))
        kernel = "\n".join([f"@triton.jit\ndef {self.name}({parameters}):", *self.kernel.lines])
        return "\n".join(["\n".join(head), "", "", *(f"{f}\n" for f in functions.values()), *hooks, kernel, ""])

    @property
    def _hooks(self) -> tuple[Body, ...]:
        return self.query, self.ahead, self.score, self.finish

    def _hook(self, name: str, body: Body) -> str:
        unpacked = [f"    {part} = extra[{n}]" for n, part in enumerate(self._extra())]
        head = f"@triton.jit\ndef {name}r, c, in_rows, in_columns, extra):"
        return "\n".join([head, *unpacked, *body.lines, "", ""])

    def _extra(self) -> list[str]:
        """What the hooks are handed over: addresses, sizes, the indices of batch and head."""
        read = dict.fromkeys(access.buffer for access in self.nest.loads.values())
        names = [f"x{n}" for n in read] + [f"y{n}" for n in range(len(self.region.outputs))]
        names += [n for n in self.symbols if any(n in b.names.shapes for b in self._hooks)]
        return [*names, *(f"i{axis}" for axis in self.attention.leading)]

    def _arguments(self) -> tuple[Argument, ...]:
        found = [Argument(f"x{n}", POINTER_TYPES[b.dtype], None, 16) for n, b in enumerate(self.region.inputs)]
        found += [Argument(f"y{n}", POINTER_TYPES[b.dtype], None, 16) for n, b in enumerate(self.region.outputs)]
        if self.schedule.split > 1:
            found += workspace_arguments(_SUM)
        used = {n for body in (*self._hooks, self.kernel) for n in body.names.shapes}
        kind = "i64" if self.wide else "i32"
        return (*found, *(Argument(name, kind, dim) for name, dim in self.symbols.items() if name in used))

    # Hooks

    def _query(self) -> None:
        """The stages that compute a block of queries, rounded as the region has them; zeros behind the edges."""
        attention = self.attention
        if not attention.turned:
            return
        for position in attention.turned:
            self.query.stage(position)
        value = self.region.first_values[attention.q]
        dtype, code = self.region.dtypes[value], self.query.values[value]
        shape = "[r.shape[0], c.shape[1]]"
        text = f"tl.broadcast_to({code.text}, {shape})"
        if code.is_literal:
            text = f"tl.full({shape}, {code.text}, tl.float32)"
        masks = [m for m, use in zip(("in_rows", "in_columns"), self.query.masks, strict=True) if use]
        if masks:
            text = f"tl.where({' & '.join(masks)}, {text}, 0.0)"
        self.query.line(f"return ({text}).to(tl.{ELEMENT_TYPES[dtype]})")

    def _score(self) -> None:
        """The stages between the first product and the softmax; what they load, before the product."""
        attention, firsts = self.attention, self.region.first_values
        product = firsts[attention.scores]
        stages = leading_to(self.region, attention.softened, product)
        early = [p for p in stages if isinstance(s := self.region.stages[p], Load) and not operands_of(s)]
        self.ahead.raw = True
        for position in early:
            self.ahead.stage(position)
            value = firsts[position]
            code = self.ahead.values[value]
            loaded = code if code.is_literal else widened(code.text, code.dtype)
            self.score.define(value, loaded, self.ahead.spreads[value])
        names = [code.text for p in early if not (code := self.ahead.values[firsts[p]]).is_literal]
        self.ahead.line(f"return ({', '.join(names or ['r'])},)")
        before, self.score.lines = self.score.lines, [f"    {', '.join(names)}, = ahead"] if names else []
        self.score.lines += before
        self.score.define(product, Code(self._scaled(), DType.F32), (True, True))
        for position in stages:
            if position not in early:
                self.score.stage(position)
        self.score.line(f"return {self.score.tensor(attention.softened, DType.F32, (True, True))}")

    def _scaled(self) -> str:
        scale = self.attention.scale
        return "scores" if scale == 1.0 else f"scores * {literal_text(scale, DType.F32)}"

    def _finish(self) -> None:
        """The stages that follow the second product, and the stores."""
        attention = self.attention
        product = self.region.first_values[attention.output]
        text, keys = "sums", self.region.extents[attention.key]
        if attention.guard is Guard.NONE and bounds_of(keys)[0] in (None, 0):  # a sum of no products is no NaN
            text = f"tl.where({self.finish.dim(keys)} > 0, sums, 0.0)"
        self.finish.define(product, Code(text, DType.F32), (True, True))
        wanted: set[int] = set()
        for store in self.region.stores:
            wanted.update(leading_to(self.region, store.value, product))
        for position in sorted(wanted):
            self.finish.stage(position)
        for number in range(len(self.region.stores)):
            self.finish.store(number)

    # The kernel

    def _kernel(self) -> None:
        body, attention = self.kernel, self.attention
        queries, keys = self._extent(attention.query), self.region.extents[attention.key]
        window = window_of(attention)
        body.line(f"program = tl.program_id(0){'.to(tl.int64)' if self.wide else ''}")
        if self.schedule.split > 1:
            body.line("part = program % SPLIT")
            body.line("program = program // SPLIT")
        body.line(f"blocks = ({body.dim(queries)} + ROWS - 1) // ROWS")
        block = "program % blocks"
        if window.high is not None:  # the last queries have the most keys: they start first
            block = f"blocks - 1 - {block}"
        body.line(f"first = ({block}) * ROWS")
        body.line("head = program // blocks")
        body.axes(attention.leading, "head")
        begin, end = ("first * 0" if self.wide else "0"), body.dim(keys)
        if window.high is not None:
            seen = f"first + ROWS + {body.dim(window.high)}"  # at most: by the last query of the block
            end = f"tl.minimum({end}, tl.maximum({seen}, 0))"
        if window.low is not None:
            begin = f"tl.maximum(first + {body.dim(window.low)}, 0) // KEYS * KEYS"
        body.line(f"begin = {begin}")
        body.line(f"end = {end}")
        operands = [_Operand("0", "0", "0")]  # no address: a hook computes them
        if not attention.turned:
            operands = [self._operand(attention.q, attention.query, attention.size)]
        operands += [self._operand(attention.k, attention.key, attention.size)]
        operands += [self._operand(attention.v, attention.key, attention.column)]
        for name, operand in zip("qkv", operands, strict=True):
            body.line(f"{name} = {operand.base}")
        # A hook reads what the others were found to need, so this line comes last.
        hooks = ", ".join(self._call(n) for n in self._extra())
        body.line(f"extra = ({hooks},)")
        body.line("attend(")
        for name, operand in zip("qkv", operands, strict=True):
            body.line(f"    {name}, {operand.row}, {operand.column},")
        size, width = (self._extent(a) for a in (attention.size, attention.column))
        body.line(f"    first, {body.dim(queries)}, begin, end, {body.dim(keys)}, extra, ahead, score, finish,")
        body.line(f"    {size}, {width}, {_power(size)}, {_power(width)}, ROWS, KEYS,")
        body.line(f'    {self.rows_fit}, {self.keys_fit}, {_EMPTY[attention.guard]}, "{self.precision}", SPLIT,')
        if self.schedule.split > 1:
            memory, counters = WORKSPACE
            start = f"{memory} + program.to(tl.int64) * (SPLIT * {self._part()})"
            body.line(f"    part, {start}, {counters} + program,")
        if attention.turned:
            body.line("    QUERY=query,")
        body.line(")")

    def _call(self, name: str) -> str:
        """What the kernel calls a part of `extra`."""
        if name[0] == "i":
            return self.kernel.names[name]
        return self.kernel.names[name] if name[0] == "s" else name

    def _operand(self, position: int, row: int | None, column: int) -> _Operand:
        access = self.whole.loads[position]
        if access.bounds or access.checked:
            raise NotPrintable("an operand of its products is not read everywhere")
        zero: dict[str, Dim] = {f"i{a}": 0 for a in (row, column) if a is not None}
        base, body = substitute(access.offset, zero), self.kernel
        steps = [body.dim(step_of(access, axis)) for axis in (row, column)]
        return _Operand(f"x{access.buffer} + {body.dim(base)}", *steps)

    def _facts(self) -> list[AccessFact]:
        """What is known of the loads that the template makes."""
        attention, found = self.attention, []
        widths = (attention.size, attention.size, attention.column)
        fits = (self.rows_fit, self.keys_fit, self.keys_fit)
        for position, width, fit in zip((attention.q, attention.k, attention.v), widths, fits, strict=True):
            if position in attention.turned:
                continue
            access: Access = self.whole.loads[position]
            extent = self._extent(width)
            dtype = self.region.inputs[access.buffer].dtype
            masked = not fit or _power(extent) != extent
            found.append(AccessFact(f"x{access.buffer}", dtype, False, step_of(access, width), masked))
        return found


def _divides(block: int, points: Dim) -> bool:
    return isinstance(points, int) and points > 0 and points % block == 0


def _power(size: Dim) -> int:
    """The next power of two, at least 16: what a product of tiles takes."""
    assert isinstance(size, int)
    return max(16, 1 << (size - 1).bit_length())
