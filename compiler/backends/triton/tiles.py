"""C text being written, and tiles: tensors as stored elements or as what computes one element of them.

A tile that is not stored is computed inside the loop of whoever reads it, so a chain of element-wise operations is one
loop. Within one loop an element that is read twice is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from fusible.compiler.backends.triton.elements import c_type
from fusible.compiler.backends.triton.scratch import place
from fusible.compiler.backends.triton.ttir import Scalar

__all__ = ["Code", "Index", "Loop", "Tile", "computed", "flat_index", "loop_shape", "stored", "uniform", "viewed"]

Index = tuple[str, ...]
"""A C expression for each dimension; `0` where the extent is 1."""

_OFFSET = "OFFSET"
_WORTH_A_VECTOR = 8


@dataclass(slots=True)
class Code:
    """The text of one C function so far. arrays: those in scratch memory, and their bytes."""

    lines: list[str] = field(default_factory=list)
    depth: int = 1
    arrays: dict[str, int] = field(default_factory=dict)
    _names: int = 0

    def line(self, text: str) -> None:
        """Add a line."""
        self.lines.append("    " * self.depth + text)

    def fresh(self, prefix: str) -> str:
        """Return a name that occurs nowhere else."""
        self._names += 1
        return f"{prefix}{self._names}"

    @contextmanager
    def braces(self, head: str) -> Iterator[None]:
        """Write what follows in braces after `head`."""
        self.line(f"{head} {{".lstrip())
        self.depth += 1
        yield
        self.depth -= 1
        self.line("}")

    def buffer(self, element: Scalar | str, size: int) -> str:
        """Declare an array in scratch memory, known to the end of the present braces; element: a type, or C's."""
        name = self.fresh("t")
        kind = element if isinstance(element, str) else c_type(element)
        item = {"float": 4, "int32_t": 4, "double": 8}[kind] if isinstance(element, str) else element.bytes
        self.line(f"{kind} *restrict const {name} = ({kind} *)(scratch + {_OFFSET});")
        self.arrays[name] = size * item
        return name

    def placed(self) -> tuple[list[str], int]:
        """Return the lines with every array at its place, and the bytes of scratch memory that they need."""
        offsets, peak = place(self.lines, self.arrays)
        found = iter(offsets.values())  # in the order of the declarations
        return [line.replace(_OFFSET, str(next(found))) if _OFFSET in line else line for line in self.lines], peak

    @contextmanager
    def loops(self, shape: Sequence[int], *, vector: bool = True) -> Iterator[tuple[Loop, Index]]:
        """Write loops over all elements; the body is written by whoever has the context."""
        index = tuple("0" if extent == 1 else self.fresh("i") for extent in shape)
        heads = [
            f"for (long {name} = 0; {name} < {extent}; {name}++)"
            for name, extent in zip(index, shape, strict=True)
            if extent != 1
        ]
        for head in heads[:-1]:
            self.line(head)
        if heads and vector and max(shape[-1:]) >= _WORTH_A_VECTOR:
            self.line("INDEPENDENT")
        with self.braces(heads[-1] if heads else ""):
            yield Loop(self), index


@dataclass(slots=True)
class Loop:
    """The body of loops being written; remembers which element of which tile has a name already."""

    code: Code
    known: dict[tuple[int, Index], str] = field(default_factory=dict)
    kept: list[Tile] = field(default_factory=list)  # so that no id is used again

    def at(self, tile: Tile, index: Index) -> str:
        """Return a C expression, cheap to repeat, of one element."""
        if tile.cost == 0 and tile.buffer is None:
            return tile.at(self, index)
        key = (id(tile), index)
        if key not in self.known:
            text = tile.at(self, index)
            name = self.code.fresh("e")
            self.code.line(f"const {c_type(tile.element)} {name} = {text};")
            self.known[key] = name
            self.kept.append(tile)
        return self.known[key]


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A tensor: `at` prints one element.

    cost: about how many operations that takes. flat: `at` takes also the place among all elements as the only index.
    buffer: the array in which all elements lie by rows, or None. reads: the
    arrays it reads; elsewhere: those that it reads at another place than that of the element.
    """

    shape: tuple[int, ...]
    element: Scalar
    at: Callable[[Loop, Index], str]
    cost: int = 0
    flat: bool = False
    buffer: str | None = None
    reads: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


def flat_index(shape: Sequence[int], index: Index) -> str:
    """Return the place of an element among all, by rows; one index into several extents is that already."""
    if len(index) == 1 and len(shape) > 1:
        return index[0]
    text = ""
    for extent, each in zip(shape, index, strict=True):
        if text:
            text = f"({text}) * {extent}"
        if each != "0":
            text = f"{text} + {each}" if text else each
    return text or "0"


def stored(buffer: str, shape: tuple[int, ...], element: Scalar) -> Tile:
    """A tile whose elements lie in an array."""
    reads = frozenset({buffer})
    return Tile(shape, element, lambda _, index: f"{buffer}[{flat_index(shape, index)}]", 1, True, buffer, reads)


def uniform(text: str, shape: tuple[int, ...], element: Scalar) -> Tile:
    """A tile whose elements all are one scalar (a name or a literal)."""
    return Tile(shape, element, lambda _, __: text, flat=True)


def computed(
    shape: tuple[int, ...], element: Scalar, cost: int, operands: Sequence[Tile], text: Callable[[Sequence[str]], str]
) -> Tile:
    """A tile each of whose elements is computed from those of the operands at the same place."""
    return Tile(
        shape,
        element,
        lambda loop, index: text([loop.at(each, index) for each in operands]),
        max(cost, 1) + sum(each.cost for each in operands),
        all(each.flat for each in operands),
        None,
        frozenset().union(*(each.reads for each in operands)),
        frozenset().union(*(each.elsewhere for each in operands)),
    )


def viewed(tile: Tile, shape: tuple[int, ...], place: Callable[[Index], Index], *, in_order: bool = False) -> Tile:
    """A tile whose element at an index is that of another tile at `place(index)`; in_order: both count alike."""

    def at(loop: Loop, index: Index) -> str:
        return loop.at(tile, index if in_order and len(index) < len(shape) else place(index))

    elsewhere = tile.elsewhere if in_order else tile.reads
    return Tile(shape, tile.element, at, tile.cost, in_order and tile.flat, None, tile.reads, elsewhere)


def loop_shape(*tiles: Tile) -> tuple[int, ...]:
    """Return the extents of the loops that go through tiles of one shape: one loop, if all are flat."""
    one = len(tiles[0].shape) > 1 and all(tile.flat for tile in tiles)
    return (tiles[0].size,) if one else tiles[0].shape
