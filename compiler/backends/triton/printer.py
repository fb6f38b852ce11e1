"""A region without contractions as the source of one Triton kernel, and the rule by which it is launched.

The text is deterministic, and no name of a model stands in it: buffers are x0, ... and y0, ..., shape symbols s0, ...,
values v0, ... as in the region. It is a file of its own, whose last function is the kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.anonymous import anonymous
from fusible.compiler.backends.triton.body import Body, Spread, shape_text
from fusible.compiler.backends.triton.launch import (
    POINTER_TYPES,
    WORKSPACE,
    Argument,
    LaunchRule,
    workspace_arguments,
)
from fusible.compiler.backends.triton.passes import Passes, partial_type
from fusible.compiler.backends.triton.print_expr import Code, carried, full, literal_text, rounded
from fusible.compiler.backends.triton.schedule import UNROLLED, Form, Schedule, folds_bytes
from fusible.compiler.backends.triton.storing import stored
from fusible.compiler.backends.triton.template_import import template_import
from fusible.compiler.backends.triton.tile import Tile, tile_of
from fusible.compiler.ir.symbol_values import substitute
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType
from fusible.compiler.region.combiners import COMBINERS, start_value
from fusible.compiler.region.region import Reduce, Region, Scan
from fusible.compiler.region.reorder import Order
from fusible.compiler.region.text import region_text
from fusible.compiler.tuning import Config, Source
from fusible.runtime.devices.convolution import TorchCall

__all__ = ["Chosen", "PrintedKernel", "print_region"]

_FEW_AT_ONCE = 4  # steps that are worth being written out within a loop
_SHORTEST_BLOCK = 16  # columns: what a thread reads of bytes at once
_SUMMED = frozenset({DType.F64, DType.F32, DType.I64, DType.I32})  # what the language's own sum leaves in its type


@dataclass(frozen=True, slots=True)
class Chosen:
    """The configuration of a kernel. key: of the kernel in lockfiles. constants: its inputs whose content is known."""

    key: str
    config: Config
    source: Source
    constants: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PrintedKernel:
    """The text of a file that defines one kernel, and how it is launched.

    repacked: the inputs, constants all, that the kernel reads in another order of dimensions than the region has them.
    packed: those with two elements in a byte, and the dimension along which they lie (`region/halves.py`); what order
    they are in is said of the bytes. multiplied: what products of tiles multiply, and how if that is f32
    (`f32_products`), None for other kernels.
    chosen: among which configurations; None where there is no choice, or nobody asked. fixed, serial: as
    `DeviceKernel` has them. product: what torch computes before; `source` and `rule` are then of the kernel that
    computes the rest, "" if nothing is left.
    """

    source: str
    rule: LaunchRule
    repacked: Mapping[int, Order] = field(default_factory=dict)
    packed: Mapping[int, int] = field(default_factory=dict)
    multiplied: tuple[DType, str] | None = None
    chosen: Chosen | None = None
    fixed: Mapping[str, int] = field(default_factory=dict)
    serial: bool = False
    product: TorchCall | None = None

    def stored(self, number: int, constant: np.ndarray) -> np.ndarray:
        """The content of an input, a constant, as the kernel reads it."""
        return stored(constant, self.repacked.get(number), self.packed.get(number))


def print_region(region: Region, schedule: Schedule, name: str = "kernel") -> PrintedKernel:
    """The kernel of a region by a schedule. Raises NotPrintable, with the reason, for one that it does not take."""
    renamed, symbols = anonymous(region)
    tile = tile_of(renamed)
    if schedule.form is Form.TRANSPOSED:
        tile = tile.across(schedule.across)
    return _Printer(tile, schedule, name, symbols).printed()


class _Printer:
    """Prints a region whose shape symbols are renamed; `symbols`: what they stand for."""

    def __init__(self, tile: Tile, schedule: Schedule, name: str, symbols: dict[str, Dim]) -> None:
        self.tile, self.region, self.schedule, self.name = tile, tile.region, schedule, name
        self.symbols = symbols
        _check(tile, schedule)
        row_mask = schedule.rows > 1 and not _divides(schedule.rows, tile.row_points)
        columns = schedule.columns * schedule.split
        self.body = Body(tile, (row_mask, tile.blocks and not _divides(columns, tile.column_points)))
        self.body.block = _block(tile, schedule)
        self.partial = partial_type(tile) if schedule.split > 1 else None

    def printed(self) -> PrintedKernel:
        """Text and rule."""
        body = self.body
        self._rows()
        match self.schedule.form:
            case Form.POINTS:
                self._straight()
            case Form.TRANSPOSED:
                self._columns(f"{self._program()} % across * COLUMNS + tl.arange(0, COLUMNS)")
                self._straight()
            case Form.PERSISTENT:
                self._columns("tl.arange(0, COLUMNS)")
                self._straight()
            case Form.LOOPED:
                self._passes()
        arguments = self._arguments()
        constants = {"ROWS": self.schedule.rows}
        if self.tile.blocks:
            constants["COLUMNS"] = self.schedule.columns
        if self.partial is not None:
            constants["SPLIT"] = self.schedule.split
        rule = LaunchRule(
            self.name, arguments, constants, tuple(dict.fromkeys(body.facts)), self._blocks(),
            self.schedule.warps, self.schedule.stages, self._workspace(),
        )  # fmt: skip
        return PrintedKernel(self._source(arguments, constants), rule)

    def _source(self, arguments: Sequence[Argument], constants: dict[str, int]) -> str:
        functions = {**self.body.dims.functions, **self.body.functions}
        imports = ["import triton", "import triton.language as tl"]
        if functions.pop("libdevice", None) is not None:
            imports.append("from triton.language.extra import libdevice")
        if self.partial is not None:
            imports += ["", template_import("partial_sums", ["comes_last", "gathered", "kept"])]
        parameters = ", ".join([*(a.name for a in arguments), *(f"{c}: tl.constexpr" for c in constants)])
        kernel = [f"@triton.jit\ndef {self.name}({parameters}):", *self.body.lines]
        head = ['"""One kernel, printed from this region:', "", region_text(self.region), '"""', "", *imports]
        return "\n".join(["\n".join(head), "", "", *(f"{f}\n" for f in functions.values()), "\n".join(kernel), ""])

    def _blocks(self) -> tuple[tuple[Dim, int], ...]:
        """Points and the points of a program: of the rows, and of columns that programs share out."""
        found: list[tuple[Dim, int]] = [(self.tile.row_points, self.schedule.rows)]
        if self.schedule.form is Form.TRANSPOSED:
            found.append((self.tile.column_points, self.schedule.columns))
        if self.partial is not None:
            found.append((self.schedule.split, 1))
        return tuple((substitute(points, self.symbols), block) for points, block in found)

    def _arguments(self) -> tuple[Argument, ...]:
        found = [Argument(f"x{n}", POINTER_TYPES[b.dtype], None, 16) for n, b in enumerate(self.region.inputs)]
        found += [Argument(f"y{n}", POINTER_TYPES[b.dtype], None, 16) for n, b in enumerate(self.region.outputs)]
        if self.partial is not None:
            found += workspace_arguments(self.partial)
        kind = "i64" if self.tile.wide else "i32"
        found += [Argument(name, kind, dim) for name, dim in self.symbols.items() if name in self.body.names.shapes]
        return tuple(found)

    def _workspace(self) -> int:
        """Bytes in which a program leaves what it found of each fold, by rows."""
        return len(self._slots()) * self.schedule.rows * self.partial.numpy.itemsize if self.partial is not None else 0

    def _slots(self) -> list[int]:
        """The values that folds give, in order."""
        firsts = zip(self.region.first_values, self.region.stages, strict=True)
        return [v for first, s in firsts if isinstance(s, Reduce) for v in range(first, first + len(s.dtypes))]

    # Indices

    def _rows(self) -> None:
        program = self._program()
        if self.partial is not None:
            self.body.line(f"part = {program} % SPLIT")
            self.body.line(f"program = {program} // SPLIT")
            program = "program"
        if self.schedule.form is Form.TRANSPOSED:
            self.body.line(f"across = ({self.body.dim(self.tile.column_points)} + COLUMNS - 1) // COLUMNS")
            program = f"{program} // across"
        points = f"{program} * ROWS + tl.arange(0, ROWS)"
        self.body.line(f"r = ({points})[:, None]" if self.tile.blocks else f"r = {points}")
        if self.body.masks[0]:
            self.body.line(f"in_rows = r < {self.body.dim(self.tile.row_points)}")
        self.body.axes(self.tile.rows, "r", near=True)

    def _program(self) -> str:
        return "tl.program_id(0).to(tl.int64)" if self.tile.wide else "tl.program_id(0)"

    def _columns(self, points: str) -> None:
        text = f"({points})[None, :]" if "+" in points else f"{points}[None, :]"
        self.body.line(f"c = {text}")
        if self.body.masks[1]:
            self.body.line(f"in_columns = c < {self.body.dim(self.tile.column_points)}")
        self.body.axes(self.tile.columns, "c", near=True)
        if self.body.block:
            self.body.blocks(points)

    # One pass

    def _straight(self) -> None:
        """Stages in their order: a tile holds whole rows."""
        for position, stage in enumerate(self.region.stages):
            match stage:
                case Reduce():
                    spread, tensors = self._folded(stage.args, stage.combiner, stage.dtypes)
                    self._reduced(position, tensors, spread)
                case Scan():
                    spread, tensors = self._folded(stage.args, stage.combiner, stage.dtypes)
                    self._scanned(position, stage, tensors, spread)
                case _:
                    self.body.stage(position)
        for number in range(len(self.region.stores)):
            self.body.store(number)

    def _folded(self, args: Sequence[int], combiner: str, dtypes: Sequence[DType]) -> tuple[Spread, list[str]]:
        """Arguments as tiles of one shape; columns behind the last count as the start."""
        spread = self.body.spread_of(args)
        tensors = [self.body.tensor(a, d, spread) for a, d in zip(args, dtypes, strict=True)]
        if self.body.masks[1]:
            starts = _starts(combiner, dtypes)
            tensors = [f"tl.where(in_columns, {t}, {s})" for t, s in zip(tensors, starts, strict=True)]
        return spread, tensors

    def _reduced(self, position: int, tensors: Sequence[str], spread: Spread) -> None:
        """The results of a reduction of tiles along their columns."""
        stage = self.region.stages[position]
        assert isinstance(stage, Reduce)
        self._results(position, stage.dtypes, self._merged(position, tensors), (spread[0], False))

    def _merged(self, position: int, tensors: Sequence[str]) -> list[str]:
        """Tiles reduced along their columns, before they are rounded."""
        stage = self.region.stages[position]
        assert isinstance(stage, Reduce)
        if _is_sum(stage.combiner, stage.dtypes):
            return [f"tl.sum({tensors[0]}, 1, keep_dims=True)"]
        combiner = self.body.combiner(stage.combiner, stage.dtypes)
        if len(tensors) == 1:
            return [f"tl.reduce({tensors[0]}, 1, {combiner}, keep_dims=True)"]
        names = [f"f{self.region.first_values[position] + n}" for n in range(len(tensors))]
        call = f"tl.reduce(({', '.join(tensors)}), 1, {combiner}, keep_dims=True)"
        self.body.line(f"{', '.join(names)} = {call}")
        return names

    def _results(self, position: int, dtypes: Sequence[DType], texts: Sequence[str], spread: Spread) -> None:
        """Name results, rounded to their own types."""
        for number, (text, dtype) in enumerate(zip(texts, dtypes, strict=True)):
            code = rounded(Code(text, carried(dtype)), dtype)
            self.body.define(self.region.first_values[position] + number, code, spread)

    def _scanned(self, position: int, stage: Scan, tensors: Sequence[str], spread: Spread) -> None:
        """Running results of tiles that hold whole rows."""
        names = [f"f{self.region.first_values[position] + n}" for n in range(len(tensors))]
        self._scan(stage, tensors, names)
        texts = list(names)
        if stage.exclusive:
            texts = self._shifted(stage, names, spread)
        self._results(position, stage.dtypes, texts, spread)

    def _scan(self, stage: Scan, tensors: Sequence[str], names: Sequence[str]) -> None:
        reverse = ", reverse=True" if stage.reverse else ""
        if _is_sum(stage.combiner, stage.dtypes):
            self.body.line(f"{names[0]} = tl.cumsum({tensors[0]}, 1{reverse})")
            return
        combiner = self.body.combiner(stage.combiner, stage.dtypes)
        given = tensors[0] if len(tensors) == 1 else f"({', '.join(tensors)})"
        self.body.line(f"{', '.join(names)} = tl.associative_scan({given}, 1, {combiner}{reverse})")

    def _shifted(self, stage: Scan, names: Sequence[str], spread: Spread) -> list[str]:
        """Each lane's neighbour from where the scan comes; the start for the first lane."""
        lane = "tl.arange(0, COLUMNS)[None, :]"
        if stage.reverse:
            near, first = f"tl.minimum({lane} + 1, COLUMNS - 1)", f"{lane} == COLUMNS - 1"
        else:
            near, first = f"tl.maximum({lane} - 1, 0)", f"{lane} == 0"
        self.body.line(f"near = tl.broadcast_to({near}, {shape_text(spread)})")
        starts = _starts(stage.combiner, stage.dtypes)
        return [f"tl.where({first}, {s}, tl.gather({n}, near, 1))" for n, s in zip(names, starts, strict=True)]

    # Passes over the columns

    def _passes(self) -> None:
        passes = Passes(self.tile)
        found = passes.passes
        for level in range(len(found) + 1):
            for position in passes.row_stages(level):
                self.body.stage(position)
            if level < len(found):
                self._pass(found[level].stages, found[level].reductions, found[level].stores)
        for number in passes.row_stores:
            self.body.store(number)

    def _pass(self, stages: Sequence[int], reductions: Sequence[int], stores: Sequence[int]) -> None:
        scans = [s for p in stages if isinstance(s := self.region.stages[p], Scan)]
        if len({scan.reverse for scan in scans}) > 1:
            raise NotPrintable("it scans long rows in both directions")
        for position in reductions:
            self._start_accumulators(position)
        for position in stages:
            if isinstance(self.region.stages[position], Scan):
                self._start_carry(position)
        outside = self.body.indent
        self._open_loop(bool(scans) and scans[0].reverse)
        for position in stages:
            stage = self.region.stages[position]
            if isinstance(stage, Scan):
                self._scan_block(position, stage)
            else:
                self.body.stage(position)
        for position in reductions:
            self._accumulate(position)
        for number in stores:
            self.body.store(number)
        self.body.indent = outside
        if self.partial is not None:
            self._together(reductions)
            return
        for position in reductions:
            self._reduced(position, self._accumulators(position), self._spread_of(position))

    def _accumulators(self, position: int) -> list[str]:
        stage, first = self.region.stages[position], self.region.first_values[position]
        assert isinstance(stage, Reduce)
        return [f"a{first + n}" for n in range(len(stage.dtypes))]

    def _spread_of(self, position: int) -> Spread:
        stage = self.region.stages[position]
        assert isinstance(stage, Reduce)
        return self.body.spread_of(stage.args)

    def _together(self, reductions: Sequence[int]) -> None:
        """What the programs of a tile found, folded by the one that comes last, which goes on alone."""
        memory, counters = WORKSPACE
        slots = self._slots()
        self.body.line(f"parts = {memory} + program * (SPLIT * {len(slots)} * ROWS)")
        for position in reductions:
            first = slots.index(self.region.first_values[position])
            for number, text in enumerate(self._merged(position, self._accumulators(position)), first):
                place = f"parts + (part * {len(slots)} + {number}) * ROWS"
                self.body.line(f"kept(tl.broadcast_to({text}, [ROWS, 1]), {place}, None, ROWS, 1)")
        self.body.line(f"if comes_last({counters} + program, SPLIT):")
        self.body.indent += 1  # to the end of the kernel
        for position in reductions:
            first, (rows, columns) = self.region.first_values[position], self._spread_of(position)
            tensors = [f"p{first + n}" for n in range(len(self._accumulators(position)))]
            for number, name in enumerate(tensors, slots.index(first)):
                place = f"parts + {number} * ROWS"
                self.body.line(f"{name} = gathered({place}, {len(slots)} * ROWS, SPLIT, {'ROWS' if rows else 1})")
            self._reduced(position, tensors, (rows, columns))

    def _open_loop(self, reverse: bool) -> None:
        points, columns = self.tile.column_points, self.schedule.columns
        steps = -(-points // columns) if isinstance(points, int) else UNROLLED + 1
        if self.partial is not None:
            self._open_part(-(-steps // self.schedule.split))
            return
        if self.schedule.columns == 1 and steps > UNROLLED and not self.tile.scans and isinstance(points, int):
            group = _groups(self.tile, points)
            if group is not None:
                self._open_window(*group)
                return
        loop = "tl.static_range" if steps <= UNROLLED and not self.tile.scans else "range"
        count = self.body.dim(points)
        self.body.line(f"for {'back' if reverse else 'start'} in {loop}(0, {count}, COLUMNS):")
        self.body.indent += 1
        if reverse:
            self.body.line(f"start = ({count} - 1) // COLUMNS * COLUMNS - back")
        self._columns("start + tl.arange(0, COLUMNS)")

    def _open_window(self, axes: int, written: int, points: int) -> None:
        """A loop over a window's points, whose inner loop, over the last axes, is written out: its loads overlap."""
        self.body.line(f"for outer in range({points // written}):")
        self.body.indent += 1
        self.body.line(f"for inner in tl.static_range({written}):")
        self.body.indent += 1
        lane = "tl.arange(0, COLUMNS)"
        if not axes:
            self._columns(f"outer * {written} + inner + {lane}")
            return
        self.body.line(f"o = (outer + {lane})[None, :]")
        self.body.line(f"n = (inner + {lane})[None, :]")
        self.body.axes(self.tile.columns[:-axes], "o")
        self.body.axes(self.tile.columns[-axes:], "n")

    def _open_part(self, steps: int) -> None:
        """The loop over the blocks of one of the programs that share a tile; some may lie behind the last column."""
        loop = "tl.static_range" if steps <= UNROLLED else "range"
        self.body.line(f"for step in {loop}({steps}):")
        self.body.indent += 1
        self._columns(f"(part * {steps} + step) * COLUMNS + tl.arange(0, COLUMNS)")

    def _start_accumulators(self, position: int) -> None:
        stage, first = self.region.stages[position], self.region.first_values[position]
        assert isinstance(stage, Reduce)
        shape = shape_text(self.body.spread_of(stage.args))
        for number, dtype in enumerate(stage.dtypes):
            start = start_value(COMBINERS[stage.combiner].start[number], dtype)
            self.body.line(f"a{first + number} = {full(start, carried(dtype), shape)}")

    def _accumulate(self, position: int) -> None:
        """Merge a block into its accumulators, lane by lane."""
        stage, first = self.region.stages[position], self.region.first_values[position]
        assert isinstance(stage, Reduce)
        _, tensors = self._folded(stage.args, stage.combiner, stage.dtypes)
        accumulators = [f"a{first + n}" for n in range(len(tensors))]
        combiner = self.body.combiner(stage.combiner, stage.dtypes)
        self.body.line(f"{', '.join(accumulators)} = {combiner}({', '.join([*accumulators, *tensors])})")

    def _start_carry(self, position: int) -> None:
        stage, first = self.region.stages[position], self.region.first_values[position]
        assert isinstance(stage, Scan)
        if len(stage.args) > 1:
            raise NotPrintable(f"it scans long rows by {stage.combiner}")
        start = start_value(COMBINERS[stage.combiner].start[0], stage.dtypes[0])
        shape = shape_text((self.body.spread_of(stage.args)[0], False))
        self.body.line(f"k{first} = {full(start, carried(stage.dtypes[0]), shape)}")

    def _scan_block(self, position: int, stage: Scan) -> None:
        """Running results of a block, behind those of the blocks before."""
        first, dtype = self.region.first_values[position], stage.dtypes[0]
        spread, tensors = self._folded(stage.args, stage.combiner, stage.dtypes)
        combiner = self.body.combiner(stage.combiner, stage.dtypes)
        self.body.line(f"t{first} = {tensors[0]}")
        self._scan(stage, [f"t{first}"], [f"f{first}"])
        text = self._shifted(stage, [f"f{first}"], spread)[0] if stage.exclusive else f"f{first}"
        merged = Code(f"{combiner}(k{first}, {text})", carried(dtype))
        self.body.define(first, rounded(merged, dtype), spread)
        self.body.line(f"k{first} = {combiner}(k{first}, tl.reduce(t{first}, 1, {combiner}, keep_dims=True))")


def _check(tile: Tile, schedule: Schedule) -> None:
    """Raise NotPrintable for a schedule that does not fit."""
    if tile.folds == (schedule.form in (Form.POINTS, Form.TRANSPOSED)):
        raise NotPrintable(
            f"the schedule is for {schedule.form.value}, the region {'folds' if tile.folds else 'does not'}"
        )
    points = tile.column_points
    if schedule.form is Form.PERSISTENT and not (isinstance(points, int) and points <= schedule.columns):
        raise NotPrintable(f"a row of {points} does not fit {schedule.columns} columns")
    if schedule.split > 1 and (schedule.form is not Form.LOOPED or partial_type(tile) is None):
        raise NotPrintable("its folds cannot be shared by several programs")
    if schedule.split & (schedule.split - 1):
        raise NotPrintable(f"{schedule.split} programs for a fold are no power of two")


def _block(tile: Tile, schedule: Schedule) -> int:
    """The columns of a block, where most of what is read are bytes, which are dequantised by blocks; 0 elsewhere."""
    if schedule.form not in (Form.PERSISTENT, Form.LOOPED) or len(tile.columns) < 2 or not folds_bytes(tile):
        return 0
    extent = tile.nest.extents[tile.columns[-1]]
    whole = isinstance(extent, int) and extent >= _SHORTEST_BLOCK and schedule.columns % extent == 0
    return extent if isinstance(extent, int) and whole else 0


def _groups(tile: Tile, points: int) -> tuple[int, int, int] | None:
    """How steps of one column are written out in groups: (last axes that are a group, 0 for a part of a longer one;
    steps of a group; all steps). None if no group of more than a few steps divides them.
    """
    extents = [e for a in tile.columns if isinstance(e := tile.nest.extents[a], int)]
    for axes in range(1, len(extents)):
        if _FEW_AT_ONCE <= (written := math.prod(extents[axes:])) <= UNROLLED:
            return len(extents) - axes, written, points
    parts = [n for n in range(_FEW_AT_ONCE, UNROLLED + 1) if points % n == 0]
    return (0, max(parts), points) if parts else None


def _is_sum(combiner: str, dtypes: Sequence[DType]) -> bool:
    """True if the language's own sum does it, in the same type."""
    return combiner == "sum" and carried(dtypes[0]) in _SUMMED


def _divides(block: int, points: Dim) -> bool:
    return isinstance(points, int) and points > 0 and points % block == 0


def _starts(combiner: str, dtypes: Sequence[DType]) -> list[str]:
    """What accumulators start from, as operands beside a tile."""
    found = []
    for start, dtype in zip(COMBINERS[combiner].start, dtypes, strict=True):
        value, kind = start_value(start, dtype), carried(dtype)
        found.append(literal_text(value, kind) if kind in (DType.F32, DType.I32, DType.I64) else full(value, kind))
    return found
