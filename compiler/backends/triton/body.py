"""The statements of a kernel's body: loads, maps and stores of a tile, one line a stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fusible.compiler.backends.cpu.c_dims import coefficient
from fusible.compiler.backends.cpu.nest import Access
from fusible.compiler.backends.triton.combine import combine_function, combine_name
from fusible.compiler.backends.triton.launch import AccessFact
from fusible.compiler.backends.triton.narrow import FLOAT8_TEMPLATE, FOUR_BITS, float8_calls, to_four_bits
from fusible.compiler.backends.triton.print_dim import MODULO, DimPrinter
from fusible.compiler.backends.triton.print_expr import Code, carried, full, literal_text, print_expr, rounded
from fusible.compiler.backends.triton.smooth import SMOOTH_TEMPLATE, smooth_calls, smoothed
from fusible.compiler.backends.triton.template_import import template_import
from fusible.compiler.backends.triton.tile import ELEMENT_TYPES, Tile
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt, bounds_of, product
from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Expr, arguments
from fusible.compiler.region.index import Bound
from fusible.compiler.region.region import Index, Load, Map, Test, operands_of

__all__ = ["Body", "Spread", "shape_text", "widened"]

Spread = tuple[bool, bool]
"""Whether something differs among rows, and among columns."""

BY_BLOCKS = '''@triton.jit
def by_blocks(x, BLOCK: tl.constexpr):
    """[r, n] elements as [r, n * BLOCK], each for the columns of its block. They stay where threads read them."""
    rows: tl.constexpr = x.shape[0]
    blocks: tl.constexpr = x.shape[1]
    return tl.broadcast_to(x[:, :, None], [rows, blocks, BLOCK]).reshape([rows, blocks * BLOCK])
'''


def shape_text(spread: Spread) -> str:
    """The shape of a tile that differs so."""
    return f"[{'ROWS' if spread[0] else '1'}, {'COLUMNS' if spread[1] else '1'}]"


def widened(text: str, dtype: DType) -> Code:
    """A loaded value, in the type that it is computed in."""
    if dtype.is_small_float:
        return Code(f"{text}.to(tl.float32)", DType.F32, None, dtype)
    if dtype in FOUR_BITS:
        return Code(to_four_bits(text, dtype), FOUR_BITS[dtype])
    return Code(text, dtype)


class _Names(dict[str, str]):
    """The text of each symbol. Shape symbols are arguments of their own name; those that are met are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: dict[str, None] = {}

    def __missing__(self, name: str) -> str:
        self.shapes[name] = None
        return name


class Body:
    """Collects lines; `values` is what each value of the region is called. masks: (rows, columns) need one."""

    def __init__(self, tile: Tile, masks: Spread) -> None:
        self.tile, self.region, self.masks = tile, tile.region, masks
        self.names = _Names()
        self.dims = DimPrinter()
        self.functions: dict[str, str] = {}
        self.values: dict[int, Code] = {}
        self.spreads: dict[int, Spread] = {}  # of the tile that a value is; a region may say more than comes true
        self.lines: list[str] = []
        self.indent = 1
        self.facts: list[AccessFact] = []
        self.numbered: dict[str, tuple[tuple[int, ...], Dim]] = {}  # variable -> axes that it numbers, their number
        self.settled: dict[int, str] = {}  # a load's whole mask but for that of the depth, where it is known before it
        self.depth_mask = ""  # the name of the mask of the depth
        self.block = 0  # neighbours along the columns for which what does not differ among them is loaded once
        self.block_names: dict[str, str] = {}  # of the axes of the columns, as tiles of a column for each block
        self.raw = False  # whether loads keep the type that memory has
        self.fills = False  # whether what a mask leaves out of a load must be its fill, or zero

    def line(self, text: str) -> None:
        """Add a statement."""
        self.lines.append("    " * self.indent + text)

    def dim(self, dim: Dim) -> str:
        """An integer expression."""
        return self.dims.text(self.tile.known(dim), self.names)

    def axes(self, axes: Sequence[int], variable: str, *, near: bool = False) -> None:
        """The index along each axis of a point of all of them. near: accesses are where the variable has its value."""
        if len(axes) == 1:
            self.names[f"i{axes[0]}"] = variable
            return
        behind: Dim = 1
        number: Dim = 0
        for axis in reversed(axes):
            extent = self._extent(axis)
            number = number + behind * SymInt.of(Symbol(f"i{axis}"))
            text = variable if behind == 1 else f"{variable} // {self.dim(behind)}"
            if axis != axes[0]:
                text = f"{text} % {self.dim(extent)}"
            self.names[f"i{axis}"] = f"i{axis}"
            self.line(f"i{axis} = {text}")
            behind = behind * extent
        if near and axes:
            self.numbered[variable] = tuple(axes), self.tile.known(number)

    # Stages

    def stage(self, position: int) -> None:
        """A load, an index, a test or a map."""
        stage, value = self.region.stages[position], self.region.first_values[position]
        spread = self._joined(operands_of(stage))
        match stage:
            case Load():
                code, spread = self._load(position)
            case Index(expr, dtype):
                known = self.tile.known(expr)
                if isinstance(known, int):
                    code = Code(literal_text(known, dtype), dtype, known)
                else:
                    spread = self._spread((known,))
                    code = Code(f"{self.dim(known)}.to(tl.{ELEMENT_TYPES[dtype]})", dtype)
            case Test(bounds):
                code = self._test(bounds)
                spread = self._spread(tuple(d for b in bounds for d in (b.expr, b.low, b.high)))
            case Map(expr, dtype):
                code = rounded(print_expr(self._smoothed(expr, dtype), self.values, carried(dtype)), dtype)
                self._called(code.text)
            case _:
                raise AssertionError(f"{stage} is printed elsewhere")
        self.define(value, code, spread)

    def _spread(self, dims: tuple[Dim, ...]) -> Spread:
        return self.tile.spread(dims, self.spreads.__getitem__)

    def _joined(self, values: Sequence[int]) -> Spread:
        """How something differs that is computed of values."""
        found = [self.spreads[v] for v in values]
        return any(rows for rows, _ in found), any(columns for _, columns in found)

    def _smoothed(self, expr: Expr, dtype: DType) -> Expr:
        """An expression of single precision as it may be computed for a result of 16 bits."""
        single = all(self.values[v].dtype is DType.F32 for v in arguments(expr))
        return smoothed(expr, dtype) if single else expr

    def _called(self, text: str) -> None:
        """Keep the functions that an expression calls."""
        if "libdevice." in text:
            self.functions.setdefault("libdevice", "")
        if "modulo(" in text:
            self.functions.setdefault("modulo", MODULO)
        for name in smooth_calls(text):
            self.functions.setdefault(name, template_import(SMOOTH_TEMPLATE, [name]))
        for name in float8_calls(text):
            self.functions.setdefault(name, template_import(FLOAT8_TEMPLATE, [name]))

    def define(self, value: int, code: Code, spread: Spread) -> None:
        """Give a value its name; numbers stand where they are read."""
        self.spreads[value] = spread if not code.is_literal else (False, False)
        if code.is_literal:
            self.values[value] = code
            self.names[f"v{value}"] = code.text
            return
        if code.text.isidentifier():  # a value under another name
            self.values[value] = code
        else:
            self.line(f"v{value} = {code.text}")
            self.values[value] = replace(code, text=f"v{value}")
        text = self.values[value].text
        self.names[f"v{value}"] = text if code.dtype is DType.I64 else f"{text}.to(tl.int64)"

    def _test(self, bounds: Sequence[Bound]) -> Code:
        texts = self.conditions(bounds)
        if texts is None:
            return Code("False", DType.BOOL, False)
        if not texts:
            return Code("True", DType.BOOL, True)
        return Code(f"({' & '.join(texts)})" if len(texts) > 1 else texts[0], DType.BOOL)

    def _load(self, position: int) -> tuple[Code, Spread]:
        stage = self.region.stages[position]
        assert isinstance(stage, Load)
        dtype = self.region.inputs[stage.buffer].dtype
        access, settled = self.tile.nest.loads[position], self.settled.get(position)
        conditions = self.conditions(access.bounds) if settled is None else [settled]
        fill = access.fill if access.fill is not None else 0
        if conditions is None:
            return rounded(Code("", dtype, fill), dtype), (False, False)
        if not conditions and self._differs_by_blocks(access):
            return self._load_of_blocks(stage.buffer, access)
        offset, spread = self._place(access, conditions)
        own = [m for m in self._masks(spread) if settled is None or m == self.depth_mask]
        masks = [*own, *conditions]
        arguments = [f"x{stage.buffer} + {offset}"]
        if masks:
            arguments.append(f"mask={' & '.join(masks)}")
        if conditions or (masks and self.fills):
            plain = DType.I8 if dtype is DType.BOOL else dtype
            arguments.append(f"other={literal_text(int(fill) if dtype is DType.BOOL else fill, plain)}")
        self._note(f"x{stage.buffer}", dtype, False, access, masks, conditions)
        text = f"tl.load({', '.join(arguments)})"
        return (Code(text, dtype) if self.raw else widened(text, dtype)), spread

    def _differs_by_blocks(self, access: Access) -> bool:
        """True if an access differs along the columns, but not within blocks of them."""
        if not self.block or access.checked or access.bounds or not self._spread((access.offset,))[1]:
            return False
        return self.tile.step(access, self.tile.columns[-1]) == 0

    def _load_of_blocks(self, buffer: int, access: Access) -> tuple[Code, Spread]:
        """A load of one element for each block, spread over the columns of the block."""
        dtype, spread = self.region.inputs[buffer].dtype, self._spread((access.offset,))
        columns = {name: self.names[name] for name in self.block_names}
        self.names |= self.block_names
        text = self._offset(access.offset)
        self.names |= columns
        masks = ["in_blocks" if m == "in_columns" else m for m in self._masks(spread)]
        mask = f", mask={' & '.join(masks)}" if masks else ""
        code = widened(f"tl.load(x{buffer} + {text}{mask})", dtype)
        self._note(f"x{buffer}", dtype, False, access, masks, ())
        self.functions.setdefault("by_blocks", BY_BLOCKS)
        return replace(code, text=f"by_blocks({code.text}, {self.block})"), spread

    def blocks(self, points: str) -> None:
        """The numbers of the blocks of a tile whose columns are `points`, its first one at the begin of a block."""
        start, plus, _ = points.rpartition(" + ")
        first = f"({start}) // {self.block} + " if plus else ""
        self.line(f"b = ({first}tl.arange(0, COLUMNS // {self.block}))[None, :]")
        outer = self.tile.columns[:-1]
        if self.masks[1]:
            self.line(f"in_blocks = b < {self.dim(product(self._extent(a) for a in outer))}")
        behind: Dim = 1
        for axis in reversed(outer):
            quotient = "b" if behind == 1 else f"b // {self.dim(behind)}"
            name = "b" if len(outer) == 1 else f"b{axis}"
            if len(outer) > 1:
                self.line(f"{name} = {quotient}{f' % {self.dim(self._extent(axis))}' if axis != outer[0] else ''}")
            self.block_names[f"i{axis}"] = name
            behind = behind * self._extent(axis)

    def store(self, number: int) -> None:
        """A store of the region."""
        store, access = self.region.stores[number], self.tile.nest.stores[number]
        conditions = self.conditions(access.bounds)
        if conditions is None:
            return
        code, dtype = self.values[store.value], self.region.outputs[store.buffer].dtype
        spread = self.spreads[store.value]
        if self.tile.blocks and not spread[1]:  # what was folded is a tile of one column, and one element must be too
            spread = True, False
        offset, place = self._place(access, conditions, spread)
        masks = [*self._masks(place), *conditions]
        text = full(code.value, dtype) if code.value is not None else code.text
        if dtype is DType.I4:  # as NumPy has it: the upper half of the byte is no sign
            text = f"({text} & 15)"
        arguments = [f"y{store.buffer} + {offset}", text]
        if masks:
            arguments.append(f"mask={' & '.join(masks)}")
        self._note(f"y{store.buffer}", dtype, True, access, masks, conditions)
        self.line(f"tl.store({', '.join(arguments)})")

    def _note(
        self, name: str, dtype: DType, stores: bool, access: Access, masks: Sequence[str], conditions: Sequence[str]
    ) -> None:
        axes = [a for group in (self.tile.rows[-1:], self.tile.columns[-1:]) for a in group if self._crosses(access, a)]
        steps = {a: self.tile.step(access, a) for a in axes}
        beside = next((a for a in axes if steps[a] == 1), None)
        numbered = None if access.checked else self._numbered(self.tile.known(access.offset))
        adjacent: Dim | None = next(reversed(steps.values()), 0) if beside is None else 1
        extent = None if beside is None or conditions else self.tile.nest.extents[beside]
        if numbered is not None and not conditions:
            adjacent, extent = 1, product(self._extent(a) for a in self.numbered[numbered[0]][0])
        run = extent if isinstance(extent, int) else None
        folded, repeated = (
            bool(axes) and not any(self._crosses(access, a) for a in axes)
            for axes in (self.tile.columns, self.tile.rows)
        )
        self.facts.append(AccessFact(name, dtype, stores, adjacent, bool(masks), run, folded, repeated))

    def _crosses(self, access: Access, axis: int) -> bool:
        """True if an access may move along an axis."""
        step = self.tile.step(access, axis)
        return not isinstance(step, int) or step != 0

    # Places and masks

    def _masks(self, spread: Spread) -> list[str]:
        needed = [own and mask for own, mask in zip(spread, self.masks, strict=True)]
        return [name for name, use in zip(("in_rows", "in_columns"), needed, strict=True) if use]

    def _place(self, access: Access, conditions: list[str], least: Spread = (False, False)) -> tuple[str, Spread]:
        """The text of an offset, and how it varies: at least as its conditions do, and as `least`.

        What data give is checked: an index outside its dimension adds a condition, so that nothing outside is read.
        """
        for name, index, size in access.checked:
            text = self.dim(index)
            self.line(f"{name} = {text}")
            self.names[name] = name
            conditions += [f"({name} >= 0)", f"({name} < {self.dim(size)})"]
        indices = tuple(index for _, index, _ in access.checked)
        own = self._spread((access.offset, *indices))
        checks = self._spread(tuple(access.conditions()))
        wanted = (own[0] or checks[0] or least[0], own[1] or checks[1] or least[1])
        text = self._offset(access.offset)
        for variable, has, wants in zip(("r", "c"), own, wanted, strict=True):
            if wants and not has:
                text = f"{variable} * 0" if text == "0" else f"{text} + {variable} * 0"
        return text, wanted

    def _offset(self, offset: Dim) -> str:
        """An offset, summed up so that what is the same for a whole tile or row is added to few elements."""
        known = self.tile.known(offset)
        if not isinstance(known, SymInt):
            return self.dim(offset)
        numbered = self._numbered(known)
        if numbered is not None:  # said so, neighbours are seen to lie side by side
            variable, rest = numbered
            return variable if rest == 0 else f"({variable} + {self._offset(rest)})"
        parts: dict[Spread, Dim] = {}
        for monomial, number in known.terms:
            term: Dim = SymInt(((monomial, number),)) if monomial else number
            spread = self._spread((term,))
            parts[spread] = parts.get(spread, 0) + term
        texts = [self.dim(parts[s]) for s in sorted(parts)]
        return f"({' + '.join(texts)})" if len(texts) > 1 else texts[0]

    def _numbered(self, offset: Dim) -> tuple[str, Dim] | None:
        """The variable that goes through memory as an offset does, point by point, and what else is in the offset."""
        for variable, (axes, number) in self.numbered.items():
            rest = offset - number
            if all(coefficient(rest, axis) == 0 for axis in axes):
                return variable, rest
        return None

    def _extent(self, axis: int) -> Dim:
        extent = self.tile.nest.extents[axis]
        assert extent is not None  # it is an axis that was not merged into another
        return extent

    def conditions(self, bounds: Sequence[Bound]) -> list[str] | None:
        """The conditions that do not hold for certain; None if one never holds."""
        texts: list[str] = []
        for bound in bounds:
            expr, low, high = (self.tile.known(d) for d in (bound.expr, bound.low, bound.high))
            for smaller, larger, word in ((low, expr, "<="), (expr, high - 1, "<=")):
                least, most = bounds_of(larger - smaller)
                if most is not None and most < 0:
                    return None
                if least is None or least < 0:
                    texts.append(f"({self.dim(smaller)} {word} {self.dim(larger)})")
        return texts

    # Folds

    def combiner(self, name: str, dtypes: Sequence[DType]) -> str:
        """The name of a combiner's function, whose text is kept."""
        function = combine_name(name, dtypes)
        if function not in self.functions:
            self.functions[function] = combine_function(name, dtypes)
        return function

    def tensor(self, value: int, dtype: DType, spread: Spread) -> str:
        """A value as a tile of a spread, in the type that an accumulator of `dtype` is carried in."""
        code = self.values[value]
        if code.value is not None:
            return full(code.value, carried(dtype), shape_text(spread))
        text = code.text if code.dtype is carried(dtype) else rounded(code, carried(dtype)).text
        return text if self.spreads[value] == spread else f"tl.broadcast_to({text}, {shape_text(spread)})"

    def spread_of(self, args: Sequence[int]) -> Spread:
        """The tile that folded arguments are made to be: every column, and rows if the region's values differ there."""
        return any(self.tile.varies(a)[0] for a in args), True
