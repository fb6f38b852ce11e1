"""The thin layer of a device, function by function: memory, copies, launches, graphs, events, DLPack, errors."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from time import perf_counter

import numpy as np

from fusible.errors import DeviceError, ExecutionError
from fusible.gpu_selftest.models import doubled
from fusible.gpu_selftest.rows import CheckFailed, Row, check, require
from fusible.runtime.devices.array import row_major
from fusible.runtime.devices.convolution import Placed, TorchConvolution
from fusible.runtime.devices.device import Memory, Prepared, Span, Stream
from fusible.runtime.devices.product import Matrix, TorchProduct
from fusible.runtime.devices.program import DeviceProgram
from fusible.runtime.devices.timing import time_launch
from fusible.runtime.executable import Executable
from fusible.runtime.plan import Launch

__all__ = ["layer_rows"]

_COUNT = 1000
_LAUNCHES = 200


def layer_rows(compile_model: Callable[..., Executable]) -> Iterator[Row]:
    """A row for each function of the layer, then what a launch costs. compile_model: compiles for the device."""
    executable = compile_model(doubled(_COUNT))
    program = executable.device
    if program is None:
        raise CheckFailed("the model y = x + x has no kernel on this device")
    layer = _Layer(program, executable)
    with program.device.active():
        for what, function in layer.checks().items():
            yield from check("layer", what, function)
    yield from check("layer", "in another thread", layer.in_another_thread)
    with program.device.active():
        yield from check("speed", f"a launch of {_COUNT} elements", layer.overhead)


class _Layer:
    def __init__(self, program: DeviceProgram, executable: Executable) -> None:
        self.program, self.device = program, program.device
        (step,) = executable.plan.steps
        if not isinstance(step, Launch):
            raise CheckFailed(f"y = x + x is not one launch, but {step}")
        self.step = step
        self.x = np.arange(_COUNT, dtype=np.float32)

    def checks(self) -> dict[str, Callable[[], str]]:
        """By what they check; each in a stream of its own."""
        named = {
            "memory, uploads and downloads": self.transfers,
            "copies within the device, filling": self.copies,
            "constants": self.constants,
            "launches": self.launches,
            "graphs": self.graphs,
            "products by torch": self.products,
            "convolutions by torch": self.convolutions,
            "events": self.events,
            "DLPack": self.dlpack,
            "two streams": self.streams,
            "out of memory": self.out_of_memory,
        }
        return {what: partial(self._in_a_stream, function) for what, function in named.items()}

    def _in_a_stream(self, function: Callable[[Stream], str]) -> str:
        return function(self.device.stream())

    def transfers(self, stream: Stream) -> str:
        memory = stream.allocate(1000)
        require(memory.address % 64 == 0, f"memory begins at {memory.address:#x}, no multiple of 64")
        for offset, nbytes in ((0, 1000), (1, 7), (512, 0), (993, 7)):
            data = np.random.default_rng(nbytes).integers(0, 256, nbytes).astype(np.uint8)
            stream.upload(memory, offset, data)
            back = np.zeros_like(data)
            stream.download(memory, offset, back)
            require(np.array_equal(back, data), f"{nbytes} bytes at {offset} came back changed")
        known = self.device.memory()
        require(0 < known.free <= known.total, f"{known} makes no sense")
        return f"{known.free / 2**30:.1f} of {known.total / 2**30:.1f} GiB free"

    def copies(self, stream: Stream) -> str:
        one, two = stream.allocate(100), stream.allocate(100)
        stream.fill(one, 7)
        stream.fill(two, 0)
        stream.copy(two, 10, one, 20, 30)
        back = np.zeros(100, np.uint8)
        stream.download(two, 0, back)
        require(back[10:40].tolist() == [7] * 30 and back.sum() == 210, "the copy is not where it belongs")
        return ""

    def constants(self, stream: Stream) -> str:
        frozen = self.x.copy()
        frozen.flags.writeable = False
        require(
            np.array_equal(self._read(stream, self.device.constant(frozen, stream)), self.x), "it changed on the way"
        )
        return ""

    def launches(self, stream: Stream) -> str:
        launch, result = self._prepared(stream)
        launch.launch()
        self._check(stream, result)
        return self.program.target

    def graphs(self, stream: Stream) -> str:
        launch, result = self._prepared(stream)
        launch.launch()
        stream.synchronise()
        graph = stream.capture([launch, launch])
        for _ in range(3):
            stream.fill(result, 0xFF)
            graph.replay()
            self._check(stream, result)
        return ""

    def products(self, stream: Stream) -> str:
        if importlib.util.find_spec("torch") is None:
            return "torch is not installed"
        left, right = (self.x[:n].reshape(-1, 8) for n in (40, 96))
        memory = [self._written(stream, np.ascontiguousarray(array)) for array in (left, right)]
        memory.append(stream.allocate(5 * 12 * 4))
        places = Matrix(0, 0, 0, 8, 1), Matrix(1, 0, 0, 1, 8), Matrix(2, 0, 0, 12, 1)
        product = TorchProduct("float32", 1, 5, 12, 8, *places)
        spans = [Span(each.address, each.nbytes, 4) for each in memory]
        launch = stream.prepare_product(product, spans, "the self-test")
        for captured in (False, True):  # libraries set themselves up in their first call, which no graph may hold
            stream.fill(memory[2], 0xFF)
            (stream.capture([launch]).replay if captured else launch.launch)()
            found = self._read(stream, memory[2]).reshape(5, 12)
            require(np.allclose(found, left @ right.T, rtol=1e-5), "torch's product is another than NumPy's")
        return ""

    def convolutions(self, stream: Stream) -> str:
        if importlib.util.find_spec("torch") is None:
            return "torch is not installed"
        image, weight = self.x[:128].reshape(1, 4, 4, 8), self.x[: 12 * 72].reshape(12, 3, 3, 8)  # channels last
        memory = [self._written(stream, np.ascontiguousarray(array)) for array in (image, weight)]
        memory.append(stream.allocate(4 * 4 * 12 * 4))
        call = TorchConvolution(
            "float32", Placed(0, 0, (1, 8, 4, 4), (128, 1, 32, 8)), Placed(1, 0, (12, 8, 3, 3), (72, 1, 24, 8)),
            Placed(2, 0, (1, 12, 4, 4), (192, 1, 48, 12)), (1, 1), (1, 1), (1, 1),
        )  # fmt: skip
        bordered = np.pad(image[0], ((1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(bordered, (3, 3), (0, 1))  # y, x, channel, window
        wanted = np.einsum("yxcij,oijc->yxo", windows.astype(np.float64), weight.astype(np.float64))
        launch = stream.prepare_product(call, [Span(m.address, m.nbytes, 4) for m in memory], "the self-test")
        for captured in (False, True):
            stream.fill(memory[2], 0xFF)
            (stream.capture([launch]).replay if captured else launch.launch)()
            found = self._read(stream, memory[2]).reshape(4, 4, 12)
            require(np.allclose(found, wanted, rtol=1e-4, atol=1e-4), "torch's convolution is another than NumPy's")
        return ""

    def events(self, stream: Stream) -> str:
        launch, _ = self._prepared(stream)
        launch.launch()
        before = stream.event()
        launch.launch()
        seconds = before.seconds_until(stream.event())
        require(0 <= seconds < 1, f"a launch took {seconds} s")
        return f"{seconds * 1e6:.1f} us"

    def dlpack(self, stream: Stream) -> str:
        memory = self._written(stream, self.x)
        array = row_major(self.device, memory, self.x.dtype, self.x.shape)
        found = self.device.import_array(array, stream)
        require(found is not None, "the device does not know its own array again")
        assert found is not None
        require(found[0].address == memory.address, "it was copied")
        require(found[1] == np.float32 and found[2] == (_COUNT,), f"it came back as {found[1]}{list(found[2])}")
        return ""

    def streams(self, stream: Stream) -> str:
        other = self.device.stream()
        mine, theirs = self._prepared(stream), self._prepared(other)
        for _ in range(20):
            mine[0].launch()
            theirs[0].launch()
        self._check(stream, mine[1])
        self._check(other, theirs[1])
        return ""

    def out_of_memory(self, stream: Stream) -> str:
        asked = 2 * self.device.memory().total
        try:
            stream.allocate(asked)
        except ExecutionError as error:
            require(str(asked) in str(error), f"the error does not say how much: {error}")
            return ""
        raise CheckFailed(f"{asked} bytes were allocated")

    def in_another_thread(self) -> str:
        told: list[str] = []

        def work() -> None:
            try:
                with self.device.active():
                    self.launches(self.device.stream())
            except DeviceError as error:
                told.append(str(error))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        require(not told, "; ".join(told))
        return ""

    def overhead(self) -> str:
        """Seconds of the host for one launch, by itself and in a graph; of the device for one."""
        stream = self.device.stream()
        launch, _ = self._prepared(stream)
        alone = _each(stream, lambda: [launch.launch() for _ in range(_LAUNCHES)])
        graph = stream.capture([launch] * _LAUNCHES)
        graph.replay()
        replayed = _each(stream, graph.replay)
        device = time_launch(stream, launch).seconds
        hosts = f"{alone * 1e6:.2f} us alone, {replayed * 1e6:.2f} us in a graph of {_LAUNCHES}"
        return f"{hosts}, {device * 1e6:.2f} us by events"

    def _prepared(self, stream: Stream) -> tuple[Prepared, Memory]:
        """A launch of y = x + x, and the memory of y."""
        given, result = self._written(stream, self.x), stream.allocate(self.x.nbytes)
        stream.fill(result, 0xFF)
        programs, *numbers = (int(dim) for dim in self.step.dims)
        spans = [row_major(self.device, m, self.x.dtype, self.x.shape).span for m in (given, result)]
        spans = [spans[0]] * sum(n is not None for n in self.step.inputs) + [spans[1]]
        launch = self.program.prepare(stream, self.step.kernel, programs, spans, numbers, "the self-test")
        return _Holding(launch, (given, result)), result

    def _written(self, stream: Stream, array: np.ndarray) -> Memory:
        memory = stream.allocate(array.nbytes)
        stream.upload(memory, 0, array)
        return memory

    def _read(self, stream: Stream, memory: Memory) -> np.ndarray:
        back = np.zeros(memory.nbytes // 4, np.float32)
        stream.download(memory, 0, back)
        return back

    def _check(self, stream: Stream, result: Memory) -> None:
        require(np.array_equal(self._read(stream, result), 2 * self.x), "the kernel wrote something else than x + x")


class _Holding(Prepared):
    """A launch with the memory it works on."""

    def __init__(self, launch: Prepared, memory: tuple[Memory, ...]) -> None:
        self.inner, self.memory = launch, memory

    def launch(self) -> None:
        self.inner.launch()


def _each(stream: Stream, function: Callable[[], object]) -> float:
    """Seconds of wall time for one of the launches that a function makes."""
    samples = []
    for _ in range(5):
        stream.synchronise()
        began = perf_counter()
        function()
        stream.synchronise()
        samples.append((perf_counter() - began) / _LAUNCHES)
    return median(samples)
