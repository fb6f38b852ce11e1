"""A graph in the making: nodes, inputs with the arrays to feed, constants, and what is known of every tensor."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from tests.differential.tensors import BF16, BOOL, F16, I64, U8, DType, Tensor, is_float

__all__ = ["OPSET", "Builder", "Sample"]

OPSET = 23
_EXTENTS = (1, 1, 2, 2, 3, 3, 4, 5, 7, 8, 9, 12, 16, 17, 31, 33)
_GRIDS = tuple((float(span), grid) for span in (2, 8, 32) for grid in (0, 1, 3))
LARGEST = 12_000  # elements of a tensor, but for a few samples


@dataclass(frozen=True)
class Sample:
    """A model with the arrays to feed, and what is known of its tensors, by name."""

    model: onnx.ModelProto
    feeds: dict[str, np.ndarray]
    known: dict[str, Tensor]

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs."""
        return [value.name for value in self.model.graph.output]


@dataclass
class Builder:
    """prefix: of every name, so that several graphs can stand side by side in one model."""

    rng: random.Random
    prefix: str = ""
    largest: int = LARGEST
    tensors: list[Tensor] = field(default_factory=list)
    nodes: list[NodeProto] = field(default_factory=list)
    feeds: dict[str, np.ndarray] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    readers: dict[str, int] = field(default_factory=dict)
    numbers: int = 0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.rng.getrandbits(64))

    # Choices

    def chance(self, probability: float) -> bool:
        """True as often as that."""
        return self.rng.random() < probability

    def extent(self) -> int:
        """A size of a dimension; rarely 0."""
        return 0 if self.chance(0.01) else self.rng.choice(_EXTENTS)

    def shape(self, rank: int | None = None) -> tuple[int, ...]:
        """Sizes whose product is not too large."""
        count = self.rng.choice((0, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5)) if rank is None else rank
        while True:
            found = tuple(self.extent() for _ in range(count))
            if np.prod(found, dtype=object) <= self.largest:
                return found

    def pick(
        self, *dtypes: DType, ranks: Iterable[int] | None = None, exact: bool = False, wild: bool = False
    ) -> Tensor:
        """A tensor of one of some types and ranks: mostly one that is there, of late ones rather, else a new leaf."""
        allowed = None if ranks is None else tuple(ranks)
        fit = [
            t
            for t in self.tensors
            if t.dtype in dtypes and (allowed is None or len(t.shape) in allowed) and (t.exact or not exact)
            if wild or not t.wild
        ]
        if fit and not self.chance(0.1):
            unread = [t for t in fit[-4:] if not self.readers.get(t.name)]
            return self.rng.choice(unread or fit[-3:] if self.chance(0.7) else fit)
        rank = None if allowed is None else self.rng.choice(allowed)
        return self.leaf(self.shape(rank), self.rng.choice(dtypes))

    # Leaves

    def leaf(self, shape: Sequence[int], dtype: DType, *, constant: bool | None = None) -> Tensor:
        """A new input or constant with random elements."""
        low, high, grid = self._interval(dtype)
        array = self._elements(tuple(shape), dtype, low, high, grid)
        return self.given(array, low, high, grid, constant=constant)

    def given(
        self, array: np.ndarray, low: float, high: float, grid: int | None = 0, *, constant: bool | None = None
    ) -> Tensor:
        """An array as an input or a constant (None: one or the other)."""
        array = np.asarray(array)
        name = self.name("c" if constant else "x")
        tensor = Tensor(name, array.dtype, array.shape, low, high, True, grid)
        stored = self.constants if (self.chance(0.3) if constant is None else constant) else self.feeds
        stored[name] = array
        self.tensors.append(tensor)
        return tensor

    def numbers_of(self, values: Sequence[int] | int) -> Tensor:
        """An int64 constant: axes, shapes and the like. It is no operand for later nodes."""
        name = self.name("n")
        self.constants[name] = np.asarray(values, np.int64)
        return Tensor(name, I64, np.shape(values), 0, 0)

    def scalar(self, value: float | int | bool, dtype: DType, shape: Sequence[int] = ()) -> Tensor:
        """A constant of one element."""
        name = self.name("s")
        self.constants[name] = np.full(shape, value).astype(dtype)
        number = float(self.constants[name].reshape(-1)[0])
        grid = next((g for g in range(12) if float(number * 2**g).is_integer()), None)
        return Tensor(name, dtype, tuple(shape), number, number, True, grid)

    def wild_leaf(self, shape: Sequence[int], dtype: DType) -> Tensor:
        """An input with NaN, infinities and signed zeros among its elements."""
        tensor = self.leaf(shape, dtype, constant=False)
        array = np.array(self.feeds[tensor.name])
        spots = self.random.random(array.shape)
        for part, value in enumerate((np.nan, np.inf, -np.inf, -0.0)):
            array[(spots > part / 16) & (spots < (part + 1) / 16)] = value
        self.feeds[tensor.name] = array
        wild = replace(tensor, wild=True, grid=None, low=-np.inf, high=np.inf)
        self.tensors[-1] = wild
        return wild

    def _interval(self, dtype: DType) -> tuple[float, float, int | None]:
        if dtype == BOOL:
            return 0, 1, 0
        if dtype == U8:
            return (0, 255, 0) if self.chance(0.5) else (0, 15, 0)
        if not is_float(dtype):
            most = 2**42 if dtype == I64 else 2**28
            return self.rng.choice(((-9, 9, 0), (0, 5, 0), (-1000, 1000, 0), (-most, most, 0)))
        if self.chance(0.5):
            return -4.0, 4.0, None
        span, grid = (4.0, self.rng.choice((0, 1))) if dtype in (F16, BF16) else self.rng.choice(_GRIDS)
        return -span, span, grid

    def _elements(self, shape: tuple[int, ...], dtype: DType, low: float, high: float, grid: int | None) -> np.ndarray:
        if dtype == BOOL:
            return np.asarray(self.random.random(shape) < self.rng.choice((0.5, 0.5, 0.9, 0.1)))
        if not is_float(dtype):
            return np.asarray(self.random.integers(int(low), int(high) + 1, shape)).astype(dtype)
        if grid is None:
            return np.asarray(np.clip(self.random.standard_normal(shape), low, high)).astype(dtype)
        whole = self.random.integers(int(low * 2**grid), int(high * 2**grid) + 1, shape)
        return np.asarray(whole / 2**grid).astype(dtype)

    # Nodes

    def node(
        self,
        op: str,
        inputs: Sequence[Tensor | None],
        shape: Sequence[int],
        dtype: DType | None = None,
        low: float | None = None,
        high: float | None = None,
        grid: int | None = None,
        terms: int = 8,
        exact: bool | None = None,
        **attributes: Any,
    ) -> Tensor:
        """Add a node with one output of the first input's type.

        low, high: by default those of the first input. exact: None means that the node's arithmetic is exact on its
        operands' grid, which `grid` then is for the result; terms: the roundings that it adds where it is not.
        """
        first = next(t for t in inputs if t is not None)
        kind = first.dtype if dtype is None else dtype
        known = [t for t in inputs if t is not None]
        result = Tensor(
            self.name("v"),
            kind,
            tuple(shape),
            first.low if low is None else low,
            first.high if high is None else high,
            True,
            grid,
            max(t.terms for t in known),
            frozenset().union(*(t.rounded for t in known)),
            any(t.wild for t in known) and is_float(kind),
        )
        same = all(t.exact for t in known)
        if exact is None:
            exact = same and (not is_float(kind) or grid is not None)
        result = result.fitting() if exact and same else result.inexact(terms if not exact else 1)
        self.add(op, inputs, [result.name], attributes)
        self.tensors.append(result)
        return result

    def moved(self, op: str, inputs: Sequence[Tensor | None], shape: Sequence[int], **attributes: Any) -> Tensor:
        """Add a node that only moves the elements of its first input."""
        return self.split(op, inputs, [shape], **attributes)[0]

    def split(
        self, op: str, inputs: Sequence[Tensor | None], shapes: Sequence[Sequence[int]], **attributes: Any
    ) -> list[Tensor]:
        """Add a node that only moves the elements of its first input, into several outputs."""
        first = inputs[0]
        assert first is not None
        results = [replace(first, name=self.name("v"), shape=tuple(shape)) for shape in shapes]
        self.add(op, inputs, [r.name for r in results], attributes)
        self.tensors += results
        return results

    def add(self, op: str, inputs: Sequence[Tensor | None], outputs: list[str], attributes: dict[str, Any]) -> None:
        """Add a node."""
        names = ["" if t is None else t.name for t in inputs]
        for name in names:
            self.readers[name] = self.readers.get(name, 0) + 1
        label = f"{self.prefix}{op}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, outputs, name=label, **attributes))

    def name(self, letter: str) -> str:
        """A fresh name."""
        self.numbers += 1
        return f"{self.prefix}{letter}{self.numbers}"

    # The end

    def finish(self, symbols: dict[int, str] | None = None) -> Sample:
        """The model. Outputs: what nothing reads, and now and then what something reads. symbols: sizes as names."""
        made = {name for node in self.nodes for name in node.output}
        ends = [t for t in self.tensors if t.name in made and not self.readers.get(t.name)]
        ends = ends or [t for t in self.tensors if t.name in made][-1:]
        ends += [t for t in self.tensors if t.name in made and self.readers.get(t.name) and self.chance(0.08)]
        feeds = {name: array for name, array in self.feeds.items() if name in self.readers}
        constants = {name: array for name, array in self.constants.items() if name in self.readers}
        graph = helper.make_graph(
            self.nodes,
            "random",
            [_info(n, a.dtype, [(symbols or {}).get(e, e) for e in a.shape]) for n, a in feeds.items()],
            [_info(t.name, t.dtype, None) for t in ends],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        return Sample(model, feeds, {t.name: t for t in self.tensors})


def _info(name: str, dtype: DType, shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)
