"""A region around one contraction as a kernel: the template of kernels/triton/contraction.py and its hooks, printed.

What leads to an operand is printed into the hooks that load its blocks: what stays the same over the depth into one
that runs before the loop, the rest into one that runs in each step. What follows is the epilogue.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.body import Body, widened
from fusible.compiler.backends.triton.contraction import Contraction, stages_of
from fusible.compiler.backends.triton.contraction_depth import one_row, window_bits
from fusible.compiler.backends.triton.contraction_tensors import Block, tensor_block
from fusible.compiler.backends.triton.f32_products import IEEE
from fusible.compiler.backends.triton.launch import (
    POINTER_TYPES,
    WORKSPACE,
    Argument,
    LaunchRule,
    workspace_arguments,
)
from fusible.compiler.backends.triton.narrow import BITCASTS
from fusible.compiler.backends.triton.print_expr import Code, carried, full, rounded
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.backends.triton.schedule_contraction import ContractionSchedule, Sizes, steps_of
from fusible.compiler.backends.triton.template_import import template_import
from fusible.compiler.backends.triton.tensor_maps import tensor_line
from fusible.compiler.backends.triton.tile import ELEMENT_TYPES, Tile
from fusible.compiler.ir.symbol_values import substitute
from fusible.compiler.ir.symbols import Dim, ceildiv, floordiv, modulo, product
from fusible.compiler.ir.types import DType
from fusible.compiler.region.region import Contract, Load, operands_of
from fusible.compiler.region.text import region_text

__all__ = ["print_product", "sizes_of"]

_ASSIGNED = re.compile(r"^\s*(\w+) = ")
_TEMPLATE, _TEMPLATE_OF_HALVES = "contraction", "halves"
_HELD = 32  # elements of a tile of the result that each thread may keep beside its sums


def sizes_of(contraction: Contraction) -> Sizes:
    """What the schedule is made for."""
    tile = contraction.tile
    depths = tuple(e for a in contraction.depth if (e := tile.nest.extents[a]) is not None)
    batch = contraction.points(contraction.batch)
    return Sizes(batch, tile.row_points, tile.column_points, depths, contraction.heavy, contraction.loads)


def print_product(
    contraction: Contraction, schedule: ContractionSchedule, precision: str, name: str = "kernel"
) -> PrintedKernel:
    """The kernel of a contraction by a schedule. Raises NotPrintable for stages that Triton has no words for."""
    return _Printer(contraction, schedule, precision, name).printed()


@dataclass(frozen=True, slots=True)
class _Side:
    """How an operand is printed. along: whether the depth lies along (rows, columns) of its blocks."""

    name: str
    before: str
    position: str  # the variable of the operand's own rows or columns
    along: tuple[bool, bool]


_LEFT = _Side("left", "left_rows", "r", (False, True))
_RIGHT = _Side("right", "right_columns", "c", (True, False))


class _Printer:
    def __init__(self, contraction: Contraction, schedule: ContractionSchedule, precision: str, name: str) -> None:
        self.contraction, self.precision, self.name = contraction, precision, name
        self.tile, self.region = contraction.tile, contraction.region
        self.template = _TEMPLATE if contraction.half is None else _TEMPLATE_OF_HALVES
        self.sizes = sizes_of(contraction)
        alone = _alone(self.sizes, schedule)
        self.alone, self.schedule = (0, replace(schedule, split=1)) if alone is None else (alone, schedule)
        split = len(contraction.depth) - schedule.together
        self.outer, self.inner = contraction.depth[:split], contraction.depth[split:]
        self.masks = tuple(
            not _divides(block, points)
            for block, points in (
                (schedule.block_m, self.tile.row_points),
                (schedule.block_n, self.tile.column_points),
                (schedule.block_k, contraction.points(self.inner)),
            )
        )
        self.whole = not (self.outer and self.masks[2])  # blocks of the depth follow each other through all its axes
        self.bodies: list[Body] = []
        self.operands: dict[str, str] = {}
        self.blocks = self._tensor_blocks()
        inner, outer = steps_of(self.sizes, schedule)
        if schedule.slices > 1 and modulo(inner * outer, schedule.slices) != 0:
            raise NotPrintable(f"the {inner * outer} blocks of its depth are no {schedule.slices} equal slices")
        if schedule.slices > 1 and contraction.half is not None:
            raise NotPrintable("a product in halves has no slices")
        self.before = "None, " if schedule.slices > 1 else ""  # the first dimension of positions and blocks
        self.shape = f"[{f'{schedule.slices}, ' if schedule.slices > 1 else ''}ROWS, COLUMNS]"

    def printed(self) -> PrintedKernel:
        """Text and rule."""
        hooks = [*self._operand(_LEFT, self.contraction.left), *self._operand(_RIGHT, self.contraction.right)]
        hooks += self._epilogue()
        call = self._call()
        described = "".join(self._tensor_lines())
        arguments = self._arguments()
        tensors = tuple(block.tensor for block in self.blocks.values())
        names = ", ".join([*(a.name for a in arguments), *(t.name for t in tensors)])
        texts = [f"{head}\n    {names} = arguments\n{lines}" for head, lines in hooks]
        constants = {
            "BLOCK_M": self.schedule.block_m, "BLOCK_N": self.schedule.block_n, "BLOCK_K": self.schedule.block_k,
            "GROUP": self.schedule.group, "SLICES": self.schedule.slices, "SPLIT": self.schedule.split,
            "WHOLE": self.alone,
        }  # fmt: skip
        parameters = ", ".join([*(a.name for a in arguments), *(f"{c}: tl.constexpr" for c in constants)])
        lines = f"{described}    {self.template}(\n        ({names}),\n{call}    )\n"
        kernel = f"@triton.jit\ndef {self.name}({parameters}):\n{lines}"
        facts = tuple(dict.fromkeys(fact for body in self.bodies for fact in body.facts))
        sizes = self.schedule.warps, self.schedule.stages
        rule = LaunchRule(
            self.name, arguments, constants, facts, self._blocks(), *sizes, self._workspace(), tensors, self.operands,
            self.alone,
        )  # fmt: skip
        source, contraction = self._source([*texts, kernel]), self.contraction
        # Without matrix units programs compute for long. Those launched early would share multiprocessors while others
        # idle: on an H200, ResNet-50 in fp32 took 1.24 ms in place of 1.04.
        serial = contraction.kind is DType.F32 and self.precision == IEEE
        multiplied = contraction.kind, self.precision
        return PrintedKernel(source, rule, contraction.repacked, multiplied=multiplied, serial=serial)

    def _source(self, texts: Sequence[str]) -> str:
        functions = {k: v for body in self.bodies for k, v in {**body.dims.functions, **body.functions}.items()}
        imports = ["import triton", "import triton.language as tl"]
        if functions.pop("libdevice", None) is not None:
            imports.append("from triton.language.extra import libdevice")
        imports += ["", template_import(self.template, [self.template])]
        head = ['"""One kernel, printed from this region:', "", region_text(self.region), '"""', "", *imports]
        return "\n".join(["\n".join(head), "", "", "\n\n".join([*functions.values(), *texts])])

    def _arguments(self) -> tuple[Argument, ...]:
        found = [Argument(f"x{n}", POINTER_TYPES[b.dtype], None, 16) for n, b in enumerate(self.region.inputs)]
        found += [Argument(f"y{n}", POINTER_TYPES[b.dtype], None, 16) for n, b in enumerate(self.region.outputs)]
        if self.schedule.split > 1:
            found += workspace_arguments(self.contraction.accumulator)
        kind = "i64" if self.tile.wide else "i32"
        used = {name for body in self.bodies for name in body.names.shapes}
        found += [Argument(name, kind, dim) for name, dim in self.contraction.symbols.items() if name in used]
        return tuple(found)

    def _workspace(self) -> int:
        """Bytes in which a program leaves its part of the sums of a tile."""
        item: int = self.contraction.accumulator.numpy.itemsize
        return self.schedule.block_m * self.schedule.block_n * item if self.schedule.split > 1 else 0

    def _blocks(self) -> tuple[tuple[Dim, int], ...]:
        """Points and the points of a program: of the batch, the rows and the columns, and the parts of the depth."""
        sizes, s = self.sizes, self.schedule
        found = [(sizes.batch, 1), (sizes.rows, s.block_m), (sizes.columns, s.block_n), (s.split, 1)]
        return tuple((substitute(points, self.contraction.symbols), block) for points, block in found)

    def _call(self) -> str:
        """The lines of the call of the template but for the first argument."""
        body = self._body(self.tile, (False, False))
        program = "tl.program_id(0).to(tl.int64)" if self.tile.wide else "tl.program_id(0)"
        inner, outer = steps_of(self.sizes, self.schedule)
        steps = floordiv(inner * outer, self.schedule.slices)
        numbers = [program, *(body.dim(d) for d in (self.sizes.rows, self.sizes.columns, steps))]
        hooks = [_LEFT.before, _LEFT.name, _RIGHT.before, _RIGHT.name, "ahead", "epilogue"]
        accumulator = self.contraction.accumulator
        partial = DType.F32 if self.contraction.kind.is_float else accumulator
        types = [f"tl.{ELEMENT_TYPES[dtype]}" for dtype in (partial, accumulator)]
        tiles = ["BLOCK_M", "BLOCK_N", "BLOCK_K", "GROUP", "SLICES", "SPLIT", "WHOLE"]
        own = list(WORKSPACE) if self.schedule.split > 1 else []
        lines = [numbers, hooks, [*types, f'"{self.precision}"'], [*tiles, *own]]
        return "".join(f"        {', '.join(line)},\n" for line in lines)

    def _body(self, tile: Tile, masks: tuple[bool, bool]) -> Body:
        body = Body(tile, masks)
        self.bodies.append(body)
        return body

    # Operands

    def _operand(self, side: _Side, value: int) -> Iterator[tuple[str, str]]:
        """The two hooks of an operand: head and lines of each."""
        block = self.blocks.get(side.name)
        if block is not None:
            yield from self._described(side, block)
            return
        stages = stages_of(self.region, [value])
        moving = self._moving(stages)
        row = one_row(self.tile.nest, moving, self.contraction.depth) if self.whole else {}
        inner = self.contraction.depth[-1:] if row else self.inner
        rows, columns = (self.tile.rows, inner) if side is _LEFT else (inner, self.tile.columns)
        own_mask = self.masks[0] if side is _LEFT else self.masks[1]
        masks = (own_mask, self.masks[2]) if side is _LEFT else (self.masks[2], own_mask)
        tile = self.tile.over(rows, columns)
        body = self._body(tile.named(row), masks)
        body.fills = True
        self._own_positions(body, side)
        if not row:
            self._windows(body, side, moving)
        for position in stages:
            if position not in moving:
                body.stage(position)
        before, body.lines = body.lines, []
        self._depth_positions(body, side, bool(row))
        for position in stages:
            if position in moving:
                body.stage(position)
        body.line(f"return {self._block(body, value, side)}")
        state = self._state(before, body.lines) or [side.position]
        names = ", ".join(state)
        packed = f"({names},)" if len(state) == 1 else f"({names})"
        sizes = "ROWS: tl.constexpr, COLUMNS: tl.constexpr"
        yield (
            f"@triton.jit\ndef {side.before}(batch, {side.position}, first, arguments, {sizes}):",
            "\n".join([*before, f"    return {packed}", ""]),
        )
        unpacked = f"    {names}{',' if len(state) == 1 else ''} = state"
        step = "step" if self.contraction.half is None else "step, PART: tl.constexpr"
        yield (
            f"@triton.jit\ndef {side.name}(batch, {side.position}, {step}, state, arguments, {sizes}):",
            "\n".join([unpacked, *body.lines, ""]),
        )

    def _tensor_blocks(self) -> dict[str, Block]:
        """Both operands as matrices of which descriptors fetch blocks; {} if one is none, and `operands` says why.

        One alone by pointers would keep all of a step's waits and fences.
        """
        s, contraction = self.schedule, self.contraction
        if not s.bulk or s.slices > 1 or contraction.half is not None:
            self.operands |= dict.fromkeys((_LEFT.name, _RIGHT.name), "by pointers, as the schedule has it")
            return {}
        found = {
            side.name: tensor_block(contraction, value, own, name, (size, s.block_k), whole=self.whole)
            for side, value, own, name, size in (
                (_LEFT, contraction.left, self.tile.rows, "d0", s.block_m),
                (_RIGHT, contraction.right, self.tile.columns, "d1", s.block_n),
            )
        }
        if contraction.kind.numpy.itemsize == 1:  # matrix units read bytes by depth alone
            short = "its neighbours lie along its own rows or columns"
            found = {n: b if isinstance(b, str) or b.depth_last else short for n, b in found.items()}
        blocks = {side: block for side, block in found.items() if isinstance(block, Block)}
        for side, block in found.items():
            why = "the other one is none to describe" if isinstance(block, Block) else block
            self.operands[side] = "by descriptor" if len(blocks) == len(found) else f"by pointers: {why}"
        return blocks if len(blocks) == len(found) else {}

    def _tensor_lines(self) -> Iterator[str]:
        """The lines that make the descriptors."""
        body = self._body(self.tile, (False, False))
        for block in self.blocks.values():
            rows = body.dim(block.rows)
            yield tensor_line(block.tensor, f"{rows}.to(tl.int32)" if self.tile.wide and not rows.isdigit() else rows)

    def _described(self, side: _Side, block: Block) -> Iterator[tuple[str, str]]:
        """The hooks of an operand whose blocks a descriptor fetches."""
        sizes = "ROWS: tl.constexpr, COLUMNS: tl.constexpr"
        yield (
            f"@triton.jit\ndef {side.before}(batch, {side.position}, first, arguments, {sizes}):",
            "    return (first,)\n",
        )
        depth = f"step * {'COLUMNS' if side is _LEFT else 'ROWS'}"
        own = "first.to(tl.int32)" if self.tile.wide else "first"
        places = f"{own}, {depth}" if block.depth_last else f"{depth}, {own}"
        kind = self.contraction.kind
        cast = f".to(tl.{BITCASTS[kind]}, bitcast=True)" if kind in BITCASTS else ""
        turned = "" if block.depth_last == (side is _LEFT) else ".T"
        yield (
            f"@triton.jit\ndef {side.name}(batch, {side.position}, step, state, arguments, {sizes}):",
            f"    first, = state\n    return {block.tensor.name}.load([{places}]){turned}{cast}\n",
        )

    def _own_positions(self, body: Body, side: _Side) -> None:
        """Axes of the batch, and the mask and axes of the operand's own rows or columns."""
        points = body.tile.row_points if side is _LEFT else body.tile.column_points
        mask, axes = ("in_rows", body.tile.rows) if side is _LEFT else ("in_columns", body.tile.columns)
        if body.masks[0 if side is _LEFT else 1]:
            body.line(f"{mask} = {side.position} < {body.dim(points)}")
        body.axes(self.contraction.batch, "batch")
        body.axes(axes, side.position)

    def _windows(self, body: Body, side: _Side, moving: Collection[int]) -> None:
        """Masks of loads that are known for all indices along the outer axes of the depth before the loop."""
        own, body.depth_mask = ("in_rows", "in_columns") if side is _LEFT else ("in_columns", "in_rows")
        needed = body.masks[0 if side is _LEFT else 1]
        place = "place.to(tl.int32)" if self.tile.wide else "place"
        half = self.contraction.half
        varying = self.inner if half is None else (*self.inner, half)
        for position in sorted(moving):
            access, name = self.tile.nest.loads.get(position), f"taps{position}"
            if access and window_bits(body, name, access, self.outer, varying, own if needed else ""):
                body.settled[position] = f"((({name} >> {place}) & 1) != 0)"

    def _depth_positions(self, body: Body, side: _Side, row: bool) -> None:
        """The terms of a step: the same index along the outer axes, a block of the inner ones.

        row: the operand's elements lie along the whole depth, through which its last axis goes.
        """
        inner, outer = steps_of(self.sizes, self.schedule)
        axes = self.inner
        if row:
            inner, outer, axes = inner * outer, 1, self.contraction.depth[-1:]
        block, variable = ("COLUMNS", "c") if side is _LEFT else ("ROWS", "r")
        lanes = f"tl.arange(0, {block})[{self.before}{'None, :' if side is _LEFT else ':, None'}]"
        step = "step.to(tl.int64)" if self.tile.wide else "step"
        place, start = step, f"{step} * {block} + "
        if self.contraction.half is not None:
            body.line(f"half = tl.full((), PART, tl.{'int64' if self.tile.wide else 'int32'})")
            body.axes((self.contraction.half,), "half")
        if outer != 1 and inner != 1:
            place, start = f"{step} // {body.dim(inner)}", f"{step} % {body.dim(inner)} * {block} + "
        elif inner == 1:
            start = ""
        if outer != 1:
            body.line(f"place = {place}")
            body.axes(self.outer, "place")
        body.line(f"{variable} = {start}{lanes}")
        if self.masks[2]:
            mask = "in_columns" if side is _LEFT else "in_rows"
            body.line(f"{mask} = {variable} < {body.dim(self.contraction.points(self.inner))}")
        body.axes(axes, variable)

    def _moving(self, stages: Sequence[int]) -> set[int]:
        """The stages that differ along the depth."""
        depth = {*self.contraction.depth, *([] if self.contraction.half is None else [self.contraction.half])}
        nest = self.tile.nest
        return {n for n in stages if nest.spaces[self.region.first_values[n]] & depth}

    def _block(self, body: Body, value: int, side: _Side) -> str:
        """The text of an operand's block: of its kind, of full size, zero behind the last term."""
        kind, code = self.contraction.kind, body.values[value]
        zero = "0" if kind.is_integer or kind in BITCASTS else "0.0"
        if code.value is not None:
            text = full(code.value, kind, self.shape)
        else:
            text = code.text if code.dtype is kind else f"{code.text}.to(tl.{ELEMENT_TYPES[kind]})"
            if body.spreads[value] != (True, True):
                text = f"tl.broadcast_to({text}, {self.shape})"
        if self.masks[2] and not self._is_zero_behind(body, value):
            mask = "in_columns" if side is _LEFT else "in_rows"
            text = f"tl.where({mask}, {text}, {zero})"
        return f"{text}.to(tl.{BITCASTS[kind]}, bitcast=True)" if kind in BITCASTS else text

    def _is_zero_behind(self, body: Body, value: int) -> bool:
        """True if a value is loaded, and behind the last term zero is."""
        if value not in self.region.first_values or body.spreads[value] != (True, True):
            return False
        position = self.region.first_values.index(value)
        return isinstance(self.region.stages[position], Load) and self.tile.nest.loads[position].fill in (None, 0)

    @staticmethod
    def _state(before: Sequence[str], after: Sequence[str]) -> list[str]:
        """The names that lines define and later ones mention."""
        defined = dict.fromkeys(found[1] for line in before if (found := _ASSIGNED.match(line)))
        mentioned = {name for line in after for name in re.findall(r"\w+", line)}
        return [name for name in defined if name in mentioned]

    # Epilogue

    def _epilogue(self) -> Iterator[tuple[str, str]]:
        """The hook of what is loaded ahead, and the epilogue."""
        contraction, region = self.contraction, self.region
        wanted = [v for store in region.stores for v in operands_of(store)]
        stages = stages_of(region, wanted, contraction.position)
        before, body = self._result_body(), self._result_body()
        before.raw = True  # a change of type ahead of the loop would take changes of layout with it, which wait
        early = [position for position in stages if self._is_early(position)]
        for position in early:
            before.stage(position)
            value = region.first_values[position]
            code = before.values[value]
            body.define(value, code if code.is_literal else widened(code.text, code.dtype), before.spreads[value])
        kept = [before.values[region.first_values[p]] for p in early]
        names = [code.text for code in kept if not code.is_literal]
        state = ", ".join(names or ["batch"])
        sizes = "ROWS: tl.constexpr, COLUMNS: tl.constexpr"
        head = f"@triton.jit\ndef ahead(batch, r, c, arguments, {sizes}):"
        yield head, "\n".join([*(before.lines if names else []), f"    return ({state},)", ""])
        contract = region.stages[contraction.position]
        assert isinstance(contract, Contract)
        total = rounded(Code("sums", carried(contraction.accumulator)), contract.dtype)
        body.define(region.first_values[contraction.position], total, (True, True))
        for position in stages:
            if position not in early:
                body.stage(position)
        for number in range(len(region.stores)):
            body.store(number)
        head = f"@triton.jit\ndef epilogue(sums, batch, r, c, ahead, arguments, {sizes}):"
        yield head, "\n".join([*([f"    {state}, = ahead"] if names else []), *body.lines, ""])

    def _result_body(self) -> Body:
        """A body over the result's tile that knows its positions."""
        body = self._body(self.tile, (self.masks[0], self.masks[1]))
        for mask, name, variable, points in (
            (self.masks[0], "in_rows", "r", self.tile.row_points),
            (self.masks[1], "in_columns", "c", self.tile.column_points),
        ):
            if mask:
                body.line(f"{name} = {variable} < {body.dim(points)}")
        body.axes(self.contraction.batch, "batch")
        body.axes(self.tile.rows, "r")
        body.axes(self.tile.columns, "c")
        return body

    def _is_early(self, position: int) -> bool:
        """True for a load whose elements can be kept in registers while the sums are made."""
        stage, value = self.region.stages[position], self.region.first_values[position]
        if not isinstance(stage, Load) or operands_of(stage):
            return False
        held = self.schedule.block_m * self.schedule.block_n // (self.schedule.warps * 32)
        return self.tile.varies(value) != (True, True) or (self._is_mostly_whole() and held <= _HELD)

    def _is_mostly_whole(self) -> bool:
        """True if most tiles, or all, have one program each."""
        return self.schedule.split == 1 or self.alone > 0


def _alone(sizes: Sizes, schedule: ContractionSchedule) -> int | None:
    """How many tiles have one program though others are shared; None if all have."""
    if schedule.split == 1 or not schedule.wave:
        return 0
    tiles = product(
        ceildiv(points, block)
        for points, block in ((sizes.batch, 1), (sizes.rows, schedule.block_m), (sizes.columns, schedule.block_n))
    )
    if not isinstance(tiles, int):
        raise NotPrintable("which of its tiles fill whole waves is known only in a run")
    alone = tiles // schedule.wave * schedule.wave
    return alone if alone < tiles else None


def _divides(block: int, points: Dim) -> bool:
    return isinstance(points, int) and points > 0 and points % block == 0
