"""What this machine can do at most: fp32 fused multiply-adds a second, bytes read a second. Measured, not looked up.

With a C compiler a few lines of C (`roof.c`) run on every thread; without one NumPy's matrix product and sum stand in,
and the roof says so: they reach less than the machine does, so shares come out higher.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fusible.benchmarks.records import Roof
from fusible.errors import DeviceError
from fusible.runtime.native.compiler import Compiler, find_compiler
from fusible.runtime.native.library import build_library
from fusible.runtime.native.loading import load_library

__all__ = ["measure_roof"]

SOURCE = Path(__file__).with_name("roof.c")
FMA_SECONDS, READ_BYTES, REPEATS = 0.05, 128 * 2**20, 7


def measure_roof(threads: int, *, compiler: str | None = None) -> Roof:
    """The roofs with so many threads: the best of some repeats of each.

    compiler: the C compiler's command; by default what `fusible doctor` finds, "" for none. Raises DeviceError if the
    one named, here or by CC, does not work.
    """
    found = _compiler(compiler)
    if found is None:
        return Roof(threads, _numpy_flops(threads), _numpy_bandwidth(threads), "NumPy (no C compiler)")
    with tempfile.TemporaryDirectory(prefix="fusible-roof-") as folder:
        library = _build(found, Path(folder))
        how = f"C, {Path(found.command[0]).name}"
        return Roof(threads, _fma_rate(library, threads), _read_rate(library, threads), how)


def _compiler(stated: str | None) -> Compiler | None:
    """None if there is none, or if none is wanted."""
    if stated == "":
        return None
    environment = dict(os.environ) if stated is None else {**os.environ, "CC": stated}
    try:
        return find_compiler(environment)
    except DeviceError:
        if environment.get("CC"):
            raise
        return None


def _build(compiler: Compiler, folder: Path) -> ctypes.CDLL:
    source = {SOURCE.name: SOURCE.read_text(encoding="utf-8")}
    library = load_library(build_library(source, compiler, cache_dir=folder))
    library.fusible_fma.argtypes = [ctypes.c_long, ctypes.POINTER(ctypes.c_float)]
    library.fusible_fma.restype = ctypes.c_double
    library.fusible_read.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_float)]
    library.fusible_read.restype = None
    return library


def _fma_rate(library: ctypes.CDLL, threads: int) -> float:
    """Flops a second over all threads."""

    def run(rounds: int) -> float:
        return float(library.fusible_fma(rounds, ctypes.byref(ctypes.c_float())))

    rounds, seconds = 100_000, 0.0
    while seconds < FMA_SECONDS / 4:
        rounds *= 2
        started = time.perf_counter()
        run(rounds)
        seconds = time.perf_counter() - started
    rounds = int(rounds * FMA_SECONDS / seconds)
    flops = run(rounds)
    best = min(_together(threads, lambda _: run(rounds)) for _ in range(REPEATS))
    return threads * flops / best


def _read_rate(library: ctypes.CDLL, threads: int) -> float:
    """Bytes a second over all threads, each reading memory of its own that no cache holds."""
    arrays = [np.ones(READ_BYTES // 4, np.float32) for _ in range(threads)]

    def run(number: int) -> None:
        library.fusible_read(arrays[number].ctypes.data, arrays[number].size, ctypes.byref(ctypes.c_float()))

    best = min(_together(threads, run) for _ in range(REPEATS))
    return threads * READ_BYTES / best


def _numpy_flops(threads: int) -> float:
    """Flops a second of matrix products, one in each thread."""
    size = 512
    operands = [(np.ones((size, size), np.float32), np.empty((size, size), np.float32)) for _ in range(threads)]

    def run(number: int) -> None:
        matrix, product = operands[number]
        np.matmul(matrix, matrix, product)

    return threads * 2.0 * size**3 / min(_together(threads, run) for _ in range(3 * REPEATS))


def _numpy_bandwidth(threads: int) -> float:
    arrays = [np.ones(READ_BYTES // 4, np.float32) for _ in range(threads)]
    best = min(_together(threads, lambda n: arrays[n].sum()) for _ in range(REPEATS))
    return threads * READ_BYTES / best


def _together(threads: int, work: Callable[[int], object]) -> float:
    """Seconds from the first thread's start to the last one's end; all start together.

    Each thread takes its own times: the caller may not get a core before they are done.
    """
    gate = threading.Barrier(threads)
    spans: list[tuple[float, float]] = []

    def body(number: int) -> None:
        gate.wait()
        started = time.perf_counter()
        work(number)
        spans.append((started, time.perf_counter()))

    running = [threading.Thread(target=body, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return max(end for _, end in spans) - min(start for start, _ in spans)
