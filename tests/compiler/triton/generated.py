"""Random small regions without contractions: broadcasts, views, gathers, reductions, scans, every element type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fusible.compiler.backends.triton.schedule import Form, Schedule
from fusible.compiler.backends.triton.tile import tile_of
from fusible.compiler.ir.symbols import Symbol
from fusible.compiler.ir.types import DType
from fusible.compiler.region.parse import parse_region
from fusible.compiler.region.region import Region
from fusible.compiler.region.verify import verify_region

__all__ = ["LARGER", "SIZES", "Sample", "sample"]

SIZES = (1, 2, 3, 4, 5, 7, 8, 9)
LARGER = (1, 2, 3, 7, 9, 17, 33, 64, 70)
FLOATS = {
    "neg": "neg({0})", "abs": "abs({0})", "relu": "max({0}, 0.0)", "clip": "min(max({0}, -1.0), 1.0)",
    "exp": "exp({0})", "root": "sqrt(abs({0}))", "inverse": "reciprocal(add(abs({0}), 1.0))", "floor": "floor({0})",
    "ceil": "ceil({0})", "trunc": "trunc({0})", "sigmoid": "mul({0}, sigmoid({0}))", "erf": "erf({0})",
    "sign": "sign({0})", "sine": "sin({0})", "nan": "select(isnan({0}), 0.0, {0})", "square": "pow({0}, 2.0)",
}  # fmt: skip
PAIRS = {
    "add": "add({0}, {1})", "sub": "sub({0}, {1})", "mul": "mul({0}, {1})", "max": "max({0}, {1})",
    "min": "min({0}, {1})", "choose": "select(lt({0}, {1}), {0}, mul({1}, 2))",
}  # fmt: skip
WHOLE = {
    "neg": "neg({0})", "abs": "abs({0})", "clip": "min(max({0}, 2), 5)", "sign": "sign({0})", "third": "div({0}, 3)",
    "rest": "mod({0}, 4)", "cut": "fmod({0}, -3)", "next": "add({0}, 1)", "bits": "bitwise_and({0}, 6)",
}  # fmt: skip
FOLDS = ("sum", "max", "min", "prod", "argmax", "argmin", "argmax_last", "argmin_last", "welford", "online_softmax")


@dataclass(frozen=True, slots=True)
class Sample:
    """A region, arrays for its inputs, numbers for its symbols, and how it is to be printed (None: as scheduled)."""

    region: Region
    inputs: Sequence[np.ndarray]
    env: dict[str, int]
    schedule: Schedule | None
    terms: int


class _Text:
    """Writes a region line by line."""

    def __init__(self, random: np.random.Generator, extents: Sequence[int], symbols: Sequence[str]) -> None:
        self.random, self.extents = random, list(extents)
        self.names = [symbols[n] if n < len(symbols) else str(e) for n, e in enumerate(extents)]
        self.env = dict(zip(symbols, extents, strict=False))
        self.inputs: list[np.ndarray] = []
        self.buffers: list[str] = []
        self.outputs: list[str] = []
        self.lines: list[str] = []
        self.stores: list[str] = []
        self.count = 0

    def pick(self, options: Sequence[str]) -> str:
        return options[int(self.random.integers(len(options)))]

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def array(self, dtype: DType, shape: Sequence[int]) -> np.ndarray:
        if dtype is DType.BOOL:
            return self.random.random(shape) < 0.5
        whole = self.random.integers(-6 if dtype.is_signed else 0, 7, shape)
        if not dtype.is_float:
            return np.asarray(whole).astype(dtype.numpy)
        return np.asarray(whole / 4 if self.chance(0.3) else self.random.uniform(-2, 2, shape)).astype(dtype.numpy)

    def given(self, array: np.ndarray, shape: Sequence[str] | None = None) -> str:
        """An input buffer; shape: as it is written."""
        text = ", ".join(shape if shape is not None else [str(s) for s in array.shape])
        self.inputs.append(array)
        self.buffers.append(f"  in x{len(self.inputs) - 1}: {DType.of(array.dtype).value}[{text}]")
        return f"x{len(self.inputs) - 1}"

    def stage(self, dtypes: str, text: str) -> str:
        count = dtypes.count(",") + 1
        names = ", ".join(f"v{self.count + n}" for n in range(count))
        self.lines.append(f"  {names}: {dtypes} = {text}")
        self.count += count
        return f"v{self.count - count}"

    def store(self, value: str, dtype: DType, axes: Sequence[int]) -> None:
        shape = ", ".join(self.names[a] for a in axes)
        place = ", ".join(f"i{a}" for a in axes)
        self.outputs.append(f"  out y{len(self.outputs)}: {dtype.value}[{shape}]")
        self.stores.append(f"  store y{len(self.outputs) - 1}[{place}] = {value}")

    def region(self) -> Region:
        head = ", ".join(f"i{n}={name}" for n, name in enumerate(self.names))
        text = "\n".join([f"region [{head}]", *self.buffers, *self.outputs, *self.lines, *self.stores])
        region = parse_region(text, {name: Symbol(name) for name in self.env})
        verify_region(region)
        return region

    # Loads

    def load(self, dtype: DType) -> str:
        """A read of a new operand in one of many ways."""
        ways: list[Callable[[DType], str]] = [self._plain, self._broadcast, self._transposed]
        if not self.env and all(self.extents):
            ways += [self._shifted, self._flat, self._strided, self._gathered, self._nearest]
        return ways[int(self.random.integers(len(ways)))](dtype)

    def _read(self, dtype: DType, buffer: str, index: Sequence[str], rest: str = "") -> str:
        return self.stage(dtype.value, f"load {buffer}[{', '.join(index)}]{rest}")

    def _axes(self) -> list[int]:
        return list(range(len(self.extents)))

    def _plain(self, dtype: DType) -> str:
        buffer = self.given(self.array(dtype, self.extents), self.names)
        return self._read(dtype, buffer, [f"i{a}" for a in self._axes()])

    def _broadcast(self, dtype: DType) -> str:
        kept = [a for a in self._axes() if self.chance(0.5)] or [self._axes()[-1]]
        buffer = self.given(self.array(dtype, [self.extents[a] for a in kept]), [self.names[a] for a in kept])
        return self._read(dtype, buffer, [f"i{a}" for a in kept])

    def _transposed(self, dtype: DType) -> str:
        order = self._axes()[::-1]
        buffer = self.given(self.array(dtype, [self.extents[a] for a in order]), [self.names[a] for a in order])
        return self._read(dtype, buffer, [f"i{a}" for a in order])

    def _shifted(self, dtype: DType) -> str:
        """A pad: outside, the fill."""
        axis = self._axes()[int(self.random.integers(len(self.extents)))]
        size = max(1, self.extents[axis] - 1)
        shape = [size if a == axis else e for a, e in enumerate(self.extents)]
        place = f"i{axis} - 1"
        index = [place if a == axis else f"i{a}" for a in self._axes()]
        fill = {DType.BOOL: "True"}.get(dtype, "-inf" if dtype in (DType.F32, DType.F16) and self.chance(0.3) else "1")
        rest = f" where 0 <= {place} < {size} else {fill}"
        return self._read(dtype, self.given(self.array(dtype, shape)), index, rest)

    def _flat(self, dtype: DType) -> str:
        """A reshape: the same elements in rows of another length."""
        total = int(np.prod(self.extents))
        width = next((w for w in (3, 4, 5, 2) if total % w == 0), 1)
        flat = _expanded(self.extents)
        buffer = self.given(self.array(dtype, [total // width, width]))
        return self._read(dtype, buffer, [f"floordiv({flat}, {width})", f"mod({flat}, {width})"])

    def _strided(self, dtype: DType) -> str:
        shape = [2 * e for e in self.extents]
        return self._read(dtype, self.given(self.array(dtype, shape)), [f"2*i{a} + 1" for a in self._axes()])

    def _nearest(self, dtype: DType) -> str:
        shape = [-(-e // 2) for e in self.extents]
        return self._read(dtype, self.given(self.array(dtype, shape)), [f"floordiv(i{a}, 2)" for a in self._axes()])

    def _gathered(self, dtype: DType) -> str:
        kind = DType.I64 if self.chance(0.5) else DType.I32
        places = self.given(self.random.integers(0, 6, self.extents[:1]).astype(kind.numpy))
        index = self._read(kind, places, ["i0"])
        table = self.given(self.array(dtype, [6, *self.extents[1:]]))
        return self._read(dtype, table, [index, *(f"i{a}" for a in self._axes()[1:])])

    # Maps

    def mapped(self, value: str, dtype: DType) -> str:
        """One or two more maps of a value."""
        for _ in range(int(self.random.integers(1, 3))):
            if dtype is DType.BOOL:
                value = self.stage("bool", f"logical_xor({value}, {self.load(dtype)})")
                continue
            whole = {k: v for k, v in WHOLE.items() if dtype.is_signed or k not in ("neg", "cut")}
            table = FLOATS if dtype.is_float else whole
            if self.chance(0.4):
                value = self.stage(dtype.value, self.pick(list(PAIRS.values())).format(value, self.load(dtype)))
            else:
                value = self.stage(dtype.value, self.pick(list(table.values())).format(value))
        return value


def _expanded(extents: Sequence[int]) -> str:
    parts = []
    for axis in range(len(extents)):
        step = int(np.prod(extents[axis + 1 :]))
        parts.append(f"{step}*i{axis}" if step != 1 else f"i{axis}")
    return " + ".join(parts)


def sample(seed: int, sizes: Sequence[int] = SIZES) -> Sample:
    """The region of a seed, whose axes have some of these sizes."""
    random = np.random.default_rng(seed)
    rank = int(random.integers(1, 4))
    extents = [int(random.choice(sizes)) for _ in range(rank)]
    if seed % 11 == 0:
        extents[int(random.integers(rank))] = 0
    symbols = ["n", "m", "k"][: rank if seed % 5 == 0 else 0]
    text = _Text(random, extents, symbols)
    build = (_points, _points, _reduction, _scan)[seed % 4]
    terms, schedule = build(text)
    return Sample(text.region(), text.inputs, dict(text.env), schedule, terms)


def _points(text: _Text) -> tuple[int, Schedule | None]:
    kinds = (DType.F32, DType.F32, DType.F16, DType.I64, DType.I32, DType.BOOL, DType.F64, DType.I8, DType.U8)
    dtype = kinds[int(text.random.integers(len(kinds)))]
    axes = list(range(len(text.extents)))
    value = text.mapped(text.load(dtype), dtype)
    text.store(value, dtype, axes)
    if text.chance(0.5):
        other = DType.F32 if dtype is not DType.F32 else DType.I32
        text.store(text.stage(other.value, f"{other.value}({value})"), other, axes[::-1])
    if text.chance(0.3) and dtype is not DType.BOOL:
        index = text.stage("i64", f"index i{axes[-1]} + 2")
        text.store(text.stage("bool", f"gt(f32({value}), f32({index}))"), DType.BOOL, axes)
    rows = int(text.random.choice([8, 32]))
    if text.chance(0.3) and _open_rows(text.region(), axes[0]):
        return 1, Schedule(Form.TRANSPOSED, rows, 8, 1, 1, 2, axes[0])
    return 1, Schedule(Form.POINTS, rows, 1, 1, 1, 2) if text.chance(0.5) else None


def _open_rows(region: Region, axis: int) -> bool:
    """True if a tile can have the axis as its columns."""
    rows = tile_of(region).rows
    return axis in rows and len(rows) > 1


def _loops(text: _Text, count: int) -> Schedule | None:
    """The schedule for a region that folds: its own, or one that has masks and steps."""
    rows = int(text.random.choice([1, 4, 16]))
    if text.env or text.chance(0.5):  # the interpreter is slow on wide blocks, which unknown extents get
        return Schedule(Form.LOOPED, rows, int(text.random.choice([1, 2, 8])), 1, 1, 2)
    if text.chance(0.3):
        return None
    return Schedule(Form.PERSISTENT, rows, 1 << max(count - 1, 0).bit_length(), 1, 1, 2)


def _reduction(text: _Text) -> tuple[int, Schedule | None]:
    axes = list(range(len(text.extents)))
    combiner = text.pick(FOLDS)
    several = combiner in FOLDS[:4] and len(axes) > 2 and text.chance(0.5)
    folded = axes[1:] if several else [axes[int(text.random.integers(len(axes)))]]
    dtype = (DType.F32, DType.F32, DType.F16, DType.I32)[int(text.random.integers(4))]
    if combiner in ("welford", "online_softmax"):
        dtype = DType.F32
    value = text.mapped(text.load(dtype), dtype)
    over = ", ".join(f"i{a}" for a in folded)
    kept = [a for a in axes if a not in folded]
    if combiner.startswith("arg"):
        value = text.stage(dtype.value, f"{'floor' if dtype.is_float else 'abs'}({value})")
        place = text.stage("i64", f"index i{folded[0]}")
        first = text.stage(f"{dtype.value}, i64", f"reduce {combiner} over {over} of {value}, {place}")
        text.store(_second(first), DType.I64, kept)
    elif combiner in ("welford", "online_softmax"):
        one = text.stage("f32", "1.0")
        states = [value, text.stage("f32", "0.0"), one] if combiner == "welford" else [value, one]
        types = ", ".join(["f32"] * len(states))
        first = text.stage(types, f"reduce {combiner} over {over} of {', '.join(states)}")
        text.store(_second(first), DType.F32, kept)
    else:
        first = text.stage(dtype.value, f"reduce {combiner} over {over} of {value}")
    if text.chance(0.7) and not (combiner.startswith("arg") or combiner == "prod"):
        near = text.stage(dtype.value, f"sub({value}, {first})")
        again = text.stage(dtype.value, f"reduce max over {over} of {near}")
        text.store(again, dtype, kept)
        text.store(near, dtype, axes)
    text.store(first, dtype, kept)
    count = int(np.prod([text.extents[a] for a in folded]))
    return max(1, count), _loops(text, count)


def _scan(text: _Text) -> tuple[int, Schedule | None]:
    axes = list(range(len(text.extents)))
    axis = axes[int(text.random.integers(len(axes)))]
    dtype = (DType.F32, DType.F16, DType.I64, DType.I32)[int(text.random.integers(4))]
    value = text.mapped(text.load(dtype), dtype)
    combiner = text.pick(["sum", "sum", "max", "min"])
    words = f"{text.pick(['', 'exclusive '])}{text.pick(['', 'reverse '])}"
    found = text.stage(dtype.value, f"scan {words}{combiner} over i{axis} of {value}")
    text.store(text.mapped(found, dtype), dtype, axes)
    if text.chance(0.4):
        total = text.stage(dtype.value, f"reduce sum over i{axis} of {value}")
        text.store(total, dtype, [a for a in axes if a != axis])
    return max(1, text.extents[axis]), _loops(text, text.extents[axis])


def _second(name: str) -> str:
    return f"v{int(name[1:]) + 1}"
