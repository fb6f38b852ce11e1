"""One kernel's candidates on a device: the same operands for all, results compared, launches timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fusible.compiler.accuracy import Bound, compare, kernel_bound
from fusible.compiler.backends.triton.launch import LaunchRule
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.backends.triton.workbench import Built
from fusible.compiler.ir.symbol_values import evaluate, symbols_of
from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.region.region import Buffer, Contract, Reduce, Region, Scan
from fusible.errors import DeviceError, ExecutionError
from fusible.runtime.devices.device import Memory, Prepared, Span, Stream
from fusible.runtime.devices.timing import time_launch

__all__ = ["Trial", "sizes_for"]

_PERIOD = 1_048_573  # of random operands: a prime, so that no two rows of a matrix are equal
_COMPARED = 500_009  # elements of a result, at most: spread evenly, at a distance that is odd
_POISON = 0xFF  # NaN in every float
_LEAST, _MOST, _SECONDS = 5, 40, 0.3  # samples of a launch


def sizes_for(region: Region, rule: LaunchRule) -> dict[str, int]:
    """What each shape symbol counts as: its upper bound, or if there is none its lower one, at least 1."""
    buffers = (*region.inputs, *region.outputs)
    dims: list[Dim] = [rule.grid, *region.extents, *(d for b in buffers for d in b.shape)]
    dims += [a.dim for a in rule.arguments if a.dim is not None]
    found = {symbol for dim in dims for symbol in symbols_of(dim)}
    return {s.name: max(1, s.lower) if s.upper is None else s.upper for s in found}


class Trial:
    """Operands of a kernel, and the result of the static choice, with which others are compared."""

    def __init__(self, region: Region, printed: PrintedKernel, first: Built, flushed: int, precision: str) -> None:
        """Put random operands on the device of a kernel. flushed: bytes to write between launches, 0 for none.

        printed: the static choice, as `first` was built of it.

        Raises ExecutionError (out of memory), DeviceError.
        """
        self._env = sizes_for(region, printed.rule)
        self._orders = dict(printed.repacked)
        self._precision = precision
        self._terms = terms_of(region, self._env)
        with first.program.device.active():
            stream = first.program.device.stream()
            self._flush = stream.allocate(flushed) if flushed else None
            self._inputs = [(b, self._random(stream, b, n)) for n, b in enumerate(region.inputs)]
            self._outputs = [(b, stream.allocate(max(1, self._bytes(b)))) for b in region.outputs]
            stream.synchronise()
        self._reference: list[np.ndarray] | None = None

    def seconds(self, built: Built, printed: PrintedKernel, best: float | None) -> float | str:
        """The time of a launch of a candidate, or why it is out of the question; the first sets what is right.

        best: of those before.
        """
        try:
            with built.program.device.active():
                return self._timed(built.program.device.stream(), built, printed, best)
        except (ExecutionError, DeviceError) as error:  # more of something than the device has, or a wrong access
            return str(error)

    def _timed(self, stream: Stream, built: Built, printed: PrintedKernel, best: float | None) -> float | str:
        inputs = [(b, self._in_order(stream, b, n, memory, printed)) for n, (b, memory) in enumerate(self._inputs)]
        launch = self._prepared(stream, built, printed.rule, inputs)
        wrong = self._wrong(stream, launch)
        if wrong:
            return wrong
        found = time_launch(stream, launch, flush=self._flush, least=_LEAST, most=_MOST, budget=_SECONDS, best=best)
        stream.synchronise()  # others use the same memory
        return found.seconds

    def _in_order(self, stream: Stream, buffer: Buffer, number: int, memory: Memory, printed: PrintedKernel) -> Memory:
        """An operand as a candidate wants it stored: its dimensions may be in another order than the first has them."""
        first, wanted = (orders.get(number) for orders in (self._orders, printed.repacked))
        if first == wanted or not buffer.shape:
            return memory
        shape = [int(evaluate(dim, self._env)) for dim in buffer.shape]
        order = range(len(shape)) if first is None else first
        stored = self._made(buffer, number).reshape([shape[d] for d in order])
        whole = stored.transpose(np.argsort(order))
        moved = np.ascontiguousarray(whole if wanted is None else whole.transpose(wanted))
        found = stream.allocate(max(1, moved.nbytes))
        stream.upload(found, 0, moved)
        return found

    def _prepared(
        self, stream: Stream, built: Built, rule: LaunchRule, inputs: Sequence[tuple[Buffer, Memory]]
    ) -> Prepared:
        spans = [_span(memory, buffer) for buffer, memory in (*inputs, *self._outputs)]
        numbers = list(rule.numbers(self._env).values())
        programs = max(1, rule.programs(self._env))
        return built.program.prepare(stream, built.kernel.name, programs, spans, numbers, "a candidate")

    def _wrong(self, stream: Stream, launch: Prepared) -> str:
        """Launch once, and say how the result differs from the first's."""
        for _, memory in self._outputs:
            stream.fill(memory, _POISON)
        launch.launch()
        results = [self._result(stream, buffer, memory) for buffer, memory in self._outputs]
        if self._reference is None:
            self._reference = results
            return ""
        for number, (right, got) in enumerate(zip(self._reference, results, strict=True)):
            outcome = compare(right, got, self._bound(right.dtype))
            if not outcome:
                what = f"its result y{number} differs from the static choice's: {outcome.reason}"
                return f"{what} (the largest error is {outcome.max_error:.3g})"
        return ""

    def _bound(self, dtype: np.dtype) -> Bound:
        """tf32 rounds operands as fp16 does, and what attention rounds between its products depends on its blocks."""
        rounded = self._precision == "tf32" and dtype == np.float32
        return kernel_bound(np.float16 if rounded else dtype, self._terms)

    def _random(self, stream: Stream, buffer: Buffer, seed: int) -> Memory:
        memory, made = stream.allocate(max(1, self._bytes(buffer))), self._made(buffer, seed)
        if made.size:
            stream.upload(memory, 0, made)
        return memory

    def _made(self, buffer: Buffer, seed: int) -> np.ndarray:
        count, dtype = _elements(buffer, self._env), buffer.dtype.numpy
        generator = np.random.default_rng(seed)
        size = min(count, _PERIOD)
        if dtype.kind == "b":
            made = generator.integers(0, 2, size).astype(dtype)
        elif dtype.kind in "iu":
            made = generator.integers(0, 4, size).astype(dtype)  # indices too: small ones are in range
        else:
            made = generator.standard_normal(size, np.float32).astype(dtype)
        return np.resize(made, count)

    def _result(self, stream: Stream, buffer: Buffer, memory: Memory) -> np.ndarray:
        whole = np.empty(_elements(buffer, self._env), buffer.dtype.numpy)
        if whole.size:
            stream.download(memory, 0, whole)
        return whole[:: (whole.size // _COMPARED) | 1].copy()

    def _bytes(self, buffer: Buffer) -> int:
        return _elements(buffer, self._env) * buffer.dtype.numpy.itemsize


def terms_of(region: Region, env: Mapping[str, int]) -> int:
    """How many terms are added up for an element of a result, at most: along all folded axes, one after the other."""
    folded: set[int] = set()
    for stage in region.stages:
        match stage:
            case Reduce() | Contract():
                folded.update(stage.axes)
            case Scan():
                folded.add(stage.axis)
    return max(1, int(evaluate(product(region.extents[axis] for axis in sorted(folded)), env)))


def _elements(buffer: Buffer, env: Mapping[str, int]) -> int:
    return int(evaluate(product(buffer.shape), env))


def _span(memory: Memory, buffer: Buffer) -> Span:
    return Span(memory.address, memory.nbytes, buffer.dtype.numpy.itemsize)
