"""Run any region or group in NumPy: the oracle of every printer. Slow and plain on purpose.

A value is an array with one axis for each of the region's axes, of length 1 where it does not vary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusible.compiler.ir.symbol_values import evaluate
from fusible.compiler.ir.types import DType
from fusible.compiler.region.combiners import COMBINERS, start_value
from fusible.compiler.region.expr import Expr, Literal, arguments, interpret, renumbered
from fusible.compiler.region.index import Bound, IndexMap
from fusible.compiler.region.region import (
    Buffer,
    Contract,
    Group,
    Index,
    Load,
    Map,
    Reduce,
    Region,
    Scan,
    Stage,
    Store,
    Test,
)

__all__ = ["run_group", "run_region"]


def run_region(
    region: Region,
    inputs: Sequence[np.ndarray],
    env: Mapping[str, int] | None = None,
    into: Sequence[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """The outputs of a region. `env` gives the shape symbols; `into`: the arrays to write, else new ones full of zeros.

    Raises IndexError for a read or a write outside its buffer.
    """
    symbols = env or {}
    made = [_empty(buffer, symbols) for buffer in region.outputs] if into is None else list(into)
    _Run(region, inputs, symbols).store_into(made)
    return made


def run_group(group: Group, inputs: Sequence[np.ndarray], env: Mapping[str, int] | None = None) -> list[np.ndarray]:
    """The outputs of a group. Raises IndexError for a read or a write outside its buffer."""
    arrays = [*inputs, *(_empty(buffer, env or {}) for buffer in group.buffers[group.inputs :])]
    for step in group.steps:
        run_region(step.region, [arrays[n] for n in step.inputs], env, [arrays[n] for n in step.outputs])
    return arrays[group.inputs : group.inputs + group.outputs]


def _empty(buffer: Buffer, env: Mapping[str, int]) -> np.ndarray:
    return np.zeros(tuple(int(evaluate(d, env)) for d in buffer.shape), buffer.dtype.numpy)


class _Run:
    def __init__(self, region: Region, inputs: Sequence[np.ndarray], env: Mapping[str, int]) -> None:
        self.region, self.inputs, self.env = region, inputs, env
        self.extents = tuple(int(evaluate(e, env)) for e in region.extents)
        self.values: list[np.ndarray] = []
        self.grid: dict[str, Any] = dict(env)
        rank = len(self.extents)
        for n, extent in enumerate(self.extents):
            self.grid[f"i{n}"] = np.arange(extent).reshape([-1 if d == n else 1 for d in range(rank)])

    def store_into(self, outputs: Sequence[np.ndarray]) -> None:
        for stage in self.region.stages:
            for value in self._stage(stage):
                self.grid[f"v{len(self.values)}"] = value.astype(np.int64) if value.dtype.kind in "iu" else value
                self.values.append(value)
        for store in self.region.stores:
            self._store(store, outputs[store.buffer])

    def _stage(self, stage: Stage) -> Sequence[np.ndarray]:
        match stage:
            case Load(buffer, map_):
                return [self._load(self.inputs[buffer], map_)]
            case Index(expr, dtype):
                return [self._full(evaluate(expr, self.grid)).astype(dtype.numpy)]
            case Test(bounds):
                return [self._holds(bounds)]
            case Map(expr, dtype):
                return [_rounded(self._full(self._computed(expr, dtype)), dtype)]
            case Contract(axes, args, dtype):
                return [self._contract(axes, [self.values[a] for a in args], dtype)]
            case Reduce(combiner, axes, args, dtypes):
                return _fold(combiner, axes, self._over(args, axes), dtypes)
            case Scan():
                return _scan(stage, self._over(stage.args, (stage.axis,)))

    def _computed(self, expr: Expr, dtype: DType) -> np.ndarray:
        used = sorted(arguments(expr))
        if not used and isinstance(expr, Literal):
            return np.asarray(expr.value).astype(dtype.numpy)
        numbers = {value: n for n, value in enumerate(used)}
        return interpret(renumbered(expr, numbers), [self.values[v] for v in used])

    def _full(self, array: Any) -> np.ndarray:
        """With every axis, of length 1 where the value does not vary."""
        found = np.asarray(array)
        return found if found.ndim == len(self.extents) else found.reshape((1,) * len(self.extents))

    def _holds(self, bounds: Sequence[Bound]) -> np.ndarray:
        valid = np.ones((1,) * len(self.extents), dtype=bool)
        for bound in bounds:
            value = evaluate(bound.expr, self.grid)
            low, high = evaluate(bound.low, self.grid), evaluate(bound.high, self.grid)
            valid = valid & self._full((low <= np.asarray(value)) & (np.asarray(value) < high))
        return valid

    def _load(self, array: np.ndarray, map_: IndexMap) -> np.ndarray:
        index, valid = self._places(array.shape, map_)
        if array.ndim == 0:
            values = self._full(array)
        elif array.size == 0:
            values = self._full(np.zeros((), array.dtype)) + np.zeros(np.broadcast_shapes(*(i.shape for i in index)))
            values = values.astype(array.dtype)
        else:
            values = self._full(array[tuple(np.broadcast_arrays(*index))])
        if not map_.bounds:
            return values
        return np.where(valid, values, np.asarray(map_.fill).astype(array.dtype))

    def _places(self, shape: Sequence[int], map_: IndexMap) -> tuple[list[np.ndarray], np.ndarray]:
        """Index arrays, 0 where not valid, and where they are. Raises IndexError if one lies outside."""
        valid = self._holds(map_.bounds)
        index: list[np.ndarray] = []
        for size, component in zip(shape, map_.components, strict=True):
            place = self._full(evaluate(component, self.grid))
            if 0 in self.extents:  # some loop is empty: nothing within it is read
                place = np.clip(place, 0, max(size - 1, 0))
            elif np.any(valid & ((place < 0) | (place >= size))):
                raise IndexError(f"index map {map_} leaves a dimension of {size}")
            index.append(np.where(valid, place, 0) if map_.bounds else place)
        return index, valid

    def _over(self, args: Sequence[int], axes: Sequence[int]) -> list[np.ndarray]:
        """Values that vary over all of `axes`, and over the same others."""
        shape = np.broadcast_shapes(*(self.values[a].shape for a in args))
        shape = tuple(self.extents[n] if n in axes else size for n, size in enumerate(shape))
        return [np.broadcast_to(self.values[a], shape) for a in args]

    def _contract(self, axes: Sequence[int], factors: Sequence[np.ndarray], dtype: DType) -> np.ndarray:
        wide = np.dtype(np.float64) if dtype.is_float else dtype.numpy
        rank = len(self.extents)
        count = 1
        operands: list[Any] = []
        for factor in factors:
            own = [n for n in range(rank) if factor.shape[n] != 1]
            operands += [factor.astype(wide).reshape([factor.shape[n] for n in own]), own]
        varying = {n for labels in operands[1::2] for n in labels}
        for axis in axes:
            count *= 1 if axis in varying else self.extents[axis]
        kept = [n for n in range(rank) if n in varying and n not in axes]
        total = np.einsum(*operands, kept, optimize=len(factors) > 1) * count
        shape = [self.extents[n] if n in kept else 1 for n in range(rank)]
        return _rounded(np.asarray(total).reshape(shape), dtype)

    def _store(self, store: Store, target: np.ndarray) -> None:
        index, valid = self._places(target.shape, store.map)
        value, where, *places = np.broadcast_arrays(self.values[store.value], valid, *index)
        if index:
            target[tuple(p[where] for p in places)] = value[where]
        elif where.any():
            target[()] = value[where][-1]


def _rounded(array: np.ndarray, dtype: DType) -> np.ndarray:
    with np.errstate(all="ignore"):
        return array if array.dtype == dtype.numpy else array.astype(dtype.numpy)


def _wide(dtype: DType) -> np.dtype:
    return np.dtype(np.float32) if dtype.is_small_float else dtype.numpy


def _fold(combiner: str, axes: Sequence[int], args: Sequence[np.ndarray], dtypes: Sequence[DType]) -> list[np.ndarray]:
    plain = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}.get(combiner)
    state = [a.astype(_wide(d)) for a, d in zip(args, dtypes, strict=True)]
    if plain is not None:
        start = np.asarray(start_value(COMBINERS[combiner].start[0], dtypes[0])).astype(state[0].dtype)
        exact = state[0].astype(np.float64) if combiner == "sum" and dtypes[0].is_float else state[0]
        with np.errstate(all="ignore"):
            folded = plain.reduce(exact, axis=tuple(axes), keepdims=True, initial=start.astype(exact.dtype))
        return [_rounded(np.asarray(folded), dtypes[0])]
    found = _states(combiner, list(axes), state, dtypes)[-1]
    return [_rounded(part, dtype) for part, dtype in zip(found, dtypes, strict=True)]


def _states(
    combiner: str, axes: Sequence[int], state: Sequence[np.ndarray], dtypes: Sequence[DType]
) -> list[list[np.ndarray]]:
    """The start and the state after each element along `axes`, in row-major order of these."""
    known = COMBINERS[combiner]
    rank = state[0].ndim
    sizes = [state[0].shape[a] for a in axes]
    rest = [1 if n in axes else size for n, size in enumerate(state[0].shape)]
    current = [
        np.full(rest, start_value(s, d)).astype(part.dtype)
        for s, d, part in zip(known.start, dtypes, state, strict=True)
    ]
    states = [current]
    for place in np.ndindex(*sizes):
        at = tuple(slice(place[list(axes).index(n)], place[list(axes).index(n)] + 1) if n in axes else slice(None)
                   for n in range(rank))  # fmt: skip
        operands = [*states[-1], *(part[at] for part in state)]
        merged = [interpret(e, operands, widen=False) for e in known.merge]
        states.append([m.astype(part.dtype) for m, part in zip(merged, state, strict=True)])
    return states


def _scan(stage: Scan, args: Sequence[np.ndarray]) -> list[np.ndarray]:
    axis = stage.axis
    state = [a.astype(_wide(d)) for a, d in zip(args, stage.dtypes, strict=True)]
    if stage.reverse:
        state = [np.flip(s, axis) for s in state]
    states = _states(stage.combiner, [axis], state, stage.dtypes)
    kept = states[:-1] if stage.exclusive else states[1:]
    found = []
    for number, dtype in enumerate(stage.dtypes):
        parts = [s[number] for s in kept]
        joined = np.concatenate(parts, axis) if parts else state[number]
        found.append(_rounded(np.flip(joined, axis) if stage.reverse else joined, dtype))
    return found
