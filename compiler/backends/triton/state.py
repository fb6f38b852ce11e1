"""What lowering knows at each point of a kernel: its values as C names or tiles, and the text written so far."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from fusible.compiler.backends.triton.elements import c_type
from fusible.compiler.backends.triton.tiles import Code, Loop, Tile, loop_shape, stored, uniform
from fusible.compiler.backends.triton.ttir import (
    Block,
    Descriptor,
    Function,
    Operation,
    Region,
    Tensor,
    Type,
    Value,
    element_of,
    refuse,
    shape_of,
)
from fusible.errors import LoweringError

__all__ = ["CHEAP", "Handler", "Lowering", "Slot"]

CHEAP = 4
"""What may be computed again at each use rather than stored: a mask of two comparisons, an address."""

_PLAIN = re.compile(r"/\* [\w.-]+:\d+ \*/")
_MOST_IN_ONE_LOOP = 48


@dataclass(slots=True)
class Lowering:
    """A kernel being lowered.

    checked: whether accesses are checked. pointers and strides: see pointers.py. handlers: by operation. sites:
    what may fail in checking mode; the C names them by index. uses, homes, inner: how often a value is used, in
    which block it is defined, whether in a block inside that it is used. shared: whose array other values name too.
    blocks: those being written, the innermost last.
    """

    function: Function
    checked: bool
    handlers: Mapping[str, Handler]
    pointers: Mapping[Value, frozenset[int]]
    strides: Mapping[Value, int]
    code: Code = field(default_factory=Code)
    sites: list[Operation] = field(default_factory=list)
    tiles: dict[Value, Tile] = field(default_factory=dict)
    scalars: dict[Value, str] = field(default_factory=dict)
    uses: Counter[Value] = field(default_factory=Counter)
    homes: dict[Value, Block] = field(default_factory=dict)
    inner: set[Value] = field(default_factory=set)
    shared: set[Value] = field(default_factory=set)
    blocks: list[Block] = field(default_factory=list)
    shown: str = ""

    def __post_init__(self) -> None:
        self._study(self.function.body)

    def _study(self, region: Region) -> None:
        """Count uses, note in which block each value is defined, and which are used in a block inside that."""
        for block in region.blocks:
            self.homes |= dict.fromkeys(block.arguments, block)
            for operation in block.operations:
                handed = [value for _, values in operation.successors for value in values]
                for value in (*operation.operands, *handed):
                    self.uses[value] += 1
                    if self.homes.get(value) is not block:
                        self.inner.add(value)
                self.homes |= dict.fromkeys(operation.results, block)
                for inner in operation.regions:
                    self._study(inner)

    def refuse(self, operation: Operation, why: str) -> LoweringError:
        """Return the error of an operation that cannot be lowered."""
        return refuse(self.function.name, operation, why)

    def may_overwrite(self, value: Value) -> bool:
        """Return whether the operation being lowered, which uses a value, may write over its array."""
        stored_here = self.tile(value).buffer is not None and self.homes[value] is self.blocks[-1]
        return stored_here and self.uses[value] == 1 and value not in self.shared

    def site(self, operation: Operation) -> int:
        """Return the number by which the C names an operation."""
        self.sites.append(operation)
        return len(self.sites) - 1

    def buffer_set(self, value: Value) -> str:
        """Return the C literal of the arguments that a pointer may point into, a bit each (see tile.h)."""
        mask = 0
        for argument in self.pointers.get(value, frozenset()):
            mask |= 1 << min(argument, 63)
        return f"UINT64_C({mask:#x})" if mask else "UINT64_MAX"

    def scalar(self, value: Value) -> str:
        """Return the C name or literal of a scalar."""
        return self.scalars[value]

    def tile(self, value: Value) -> Tile:
        """Return a value as a tile; a scalar is one of no dimensions."""
        if value in self.tiles:
            return self.tiles[value]
        return uniform(self.scalars[value], (), element_of(value.type))

    def define(self, value: Value, tile: Tile) -> None:
        """Bind a result to a tile: stored now, if computing it at each use would cost more, or a scalar to a name."""
        if not isinstance(value.type, Tensor):
            self.scalars[value] = self.named(tile)
            return
        again = self.uses[value] > 1 or value in self.inner
        if tile.buffer is None and ((again and tile.cost > CHEAP) or tile.cost > _MOST_IN_ONE_LOOP):
            tile = self.store(tile)
        self.tiles[value] = tile

    def named(self, tile: Tile) -> str:
        """Return a name for the one element of a tile of no dimensions, written here."""
        text = Loop(self.code).at(tile, ())
        if text.isidentifier() or tile.cost == 0:
            return text
        name = self.code.fresh("v")
        self.code.line(f"const {c_type(tile.element)} {name} = {text};")
        return name

    def store(self, tile: Tile) -> Tile:
        """Return the tile with its elements in an array."""
        if tile.buffer is not None:
            return tile
        return self.copy(tile)

    def stored_value(self, value: Value) -> Tile:
        """Return a value as a tile whose elements lie in an array, the same for all uses in this block."""
        tile = self.store(self.tile(value))
        if self.homes[value] is self.blocks[-1]:
            self.tiles[value] = tile
        return tile

    def copy(self, tile: Tile) -> Tile:
        """Return the tile with its elements in an array of its own."""
        target = stored(self.code.buffer(tile.element, tile.size), tile.shape, tile.element)
        self.write(target, tile)
        return target

    def write(self, target: Tile, tile: Tile) -> None:
        """Write the elements of a tile into the array of another of the same shape."""
        with self.code.loops(loop_shape(target, tile)) as (loop, index):
            self.code.line(f"{target.at(loop, index)} = {loop.at(tile, index)};")

    def lower_block(self, block: Block) -> Operation:
        """Write all operations of a block but the last, which ends it and is returned."""
        self.blocks.append(block)
        for operation in block.operations[:-1]:
            self.lower(operation)
        self.blocks.pop()
        return block.operations[-1]

    def lower(self, operation: Operation) -> None:
        """Write one operation."""
        self._show_line(operation)
        handler = self.handlers.get(operation.name)
        if handler is None:
            raise self.refuse(operation, "this operation is not known")
        try:
            handler(self, operation)
        except (ArithmeticError, AssertionError, AttributeError, LookupError, ValueError) as error:
            raise self.refuse(operation, f"it has a form that is not known ({error!r})") from error

    def _show_line(self, operation: Operation) -> None:
        """Write a comment where another line of the kernel's source begins."""
        file, _, number = operation.location.rpartition(":")
        shown = f"/* {PurePath(file).name}:{number} */"
        if _PLAIN.fullmatch(shown) and shown != self.shown:
            self.code.line(shown)
            self.shown = shown


Handler = Callable[[Lowering, Operation], None]


@dataclass(frozen=True, slots=True)
class Slot:
    """A place that control flow writes and later reads: the variable or array of a loop's or a branch's value."""

    type: Type
    name: str

    @classmethod
    def declare(cls, state: Lowering, type: Type) -> Slot:
        """Declare it here; what it holds is undefined."""
        if isinstance(type, Tensor):
            return cls(type, state.code.buffer(type.element, type.size))
        slot = cls(type, state.code.fresh("s"))
        state.code.line(f"{slot.c_type} {slot.name};")
        return slot

    @property
    def tile(self) -> Tile:
        """A tensor's array as a tile."""
        return stored(self.name, shape_of(self.type), element_of(self.type))

    @property
    def c_type(self) -> str:
        """The C type of a scalar's variable."""
        assert not isinstance(self.type, Tensor)
        return "struct descriptor" if isinstance(self.type, Descriptor) else c_type(self.type)

    def bind(self, state: Lowering, value: Value) -> None:
        """Let a value of the kernel be what the slot holds here; a tensor must be read before it is written."""
        if isinstance(self.type, Tensor):
            state.tiles[value] = self.tile
            return
        name = state.code.fresh("v")
        state.code.line(f"const {self.c_type} {name} = {self.name};")
        state.scalars[value] = name
