"""Predicted times of kernels on a GPU that is not there: pure functions of work, launch and the GPU's figures.

**Predictions, not measurements.** A kernel takes the longest of four times, and what a launch costs before:

- matrix or vector units: operations over the rate of the multiprocessors that have programs. The last wave counts whole
  (wave quantisation): a multiprocessor with one program more than the others decides.
- level 2 cache: what programs fetch through it, over its bandwidth, of which a multiprocessor has its share only.
- device memory: what must come from it, over its bandwidth. Operands that an earlier kernel left in the cache do not
  come from it.
- latency: a program fetches its first blocks before it computes, and stores its last after. The first round of resident
  programs shows that whole, of later rounds the share of one program: the others compute meanwhile.

The roofline is that of Williams, Waterman and Patterson (2009); waves and tiles are accounted for as in NVIDIA's
"Matrix Multiplication Background User's Guide". What share of the peaks kernels reach (`Reached`) is fitted to public
measurements of Triton's tutorials: docs/gpu_predictions.md has the fit, the rows that it did not see, and the errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from fusible.compiler.backends.triton.gpu_targets import GpuTarget, MatrixType
from fusible.compiler.backends.triton.occupancy import occupancy

__all__ = [
    "LAUNCH", "TILES", "Bound", "Launching", "Prediction", "Product", "Reached", "Tile", "Work", "best_tile",
    "busy_seconds", "joining_seconds", "model_seconds", "predict", "predict_product", "reached", "roofline_seconds",
]  # fmt: skip


class Bound(Enum):
    """What a kernel's time is decided by."""

    MATRIX = "matrix units"
    VECTOR = "vector units"
    CACHE = "L2 bandwidth"
    MEMORY = "memory bandwidth"
    LATENCY = "latency"


@dataclass(frozen=True, slots=True)
class Reached:
    """Shares of the peaks that kernels reach, and latencies in seconds.

    matrix: of the matrix units, by large tiles in long loops. vector, memory, cache: of the vector units' rate and of
    the bandwidths. fill: of a program, before its first and after its last step. start: of a kernel, from the moment
    that the device turns to it.
    """

    matrix: float
    vector: float = 0.6
    memory: float = 0.88
    cache: float = 0.75
    fill: float = 1.2e-6
    start: float = 2.5e-6


@dataclass(frozen=True, slots=True)
class Launching:
    """What launches cost, in seconds. host: of the thread that launches, for each kernel, where no graph replays.

    gap: between two kernels that the device has both. graph: of replaying a graph, once. These are assumed: NVIDIA's
    "Getting Started with CUDA Graphs" has 3.8 us for kernels of 2.9 us launched one after the other from C, and 3.4 us
    out of a graph; a session in Python takes longer for a launch than C does.

    hidden: what of a kernel's start lies behind its predecessor where launches overlap, and its weights wait in the
    cache. least: what the smallest kernel of a graph takes then. Both were measured on an H200 (docs/gpu_measured.md):
    the mean over five models, and launches of 1000 elements.
    """

    host: float = 10e-6
    gap: float = 0.8e-6
    graph: float = 5.0e-6
    hidden: float = 2.7e-6
    least: float = 0.7e-6


LAUNCH = Launching()
_SUM = 4  # bytes of a sum
_SPLITTING = 8192  # products that a step of three takes longer, as operands are split and products wait for each other:
# fitted to 82 and 46 TFLOP/s of tiles of 128 x 128 and 64 x 64 on an H200
_BUSY = 0.8


@dataclass(frozen=True, slots=True)
class Work:
    """What one kernel does. operations: of matrix units on `kind`, or of vector units where it is None.

    memory: bytes that come from or go to device memory; cached: those that the level 2 cache has or keeps. fetched:
    what all programs fetch through that cache, memory included (at least memory + cached).
    """

    operations: float
    memory: float
    cached: float = 0.0
    fetched: float = 0.0
    kind: MatrixType | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """A predicted time: `seconds` on the device, from its start to its end, and what decides it. times: by bound."""

    seconds: float
    bound: Bound
    times: dict[Bound, float]


@dataclass(frozen=True, slots=True)
class Tile:
    """What a program of a product computes: rows and columns of the result, in steps of k, with so many stages."""

    m: int
    n: int
    k: int
    stages: int
    warps: int
    split: int = 1

    def shared(self, size: int) -> int:
        """Bytes of shared memory for operands of so many bytes an element."""
        return self.stages * (self.m + self.n) * self.k * size


@dataclass(frozen=True, slots=True)
class Product:
    """`batch` products of matrices m x k and k x n. size: bytes of an element of operands and result.

    cached: bytes of operands and result together that the level 2 cache holds before, or keeps.
    read: bytes of the first operand of one product, where they are fewer than m * k (a convolution's windows overlap).
    weight: bytes of an element of the second one, where it is stored in fewer than `size`.
    """

    m: int
    n: int
    k: int
    batch: int = 1
    size: int = 2
    kind: MatrixType | None = MatrixType.FP16
    cached: float = 0.0
    read: float | None = None
    weight: float | None = None

    @property
    def stored(self) -> float:
        """Bytes of an element of the second operand."""
        return self.size if self.weight is None else self.weight

    @property
    def operations(self) -> float:
        """Multiplications and additions."""
        return 2.0 * self.m * self.n * self.k * self.batch

    @property
    def bytes(self) -> float:
        """Operands and result once."""
        first = self.m * self.k * self.size if self.read is None else self.read
        return self.batch * (first + (self.k * self.stored + self.m * self.size) * self.n)


TILES = (
    Tile(128, 256, 64, 3, 8), Tile(256, 128, 64, 3, 8), Tile(64, 256, 32, 4, 4), Tile(128, 128, 64, 4, 8),
    Tile(128, 128, 32, 4, 4), Tile(128, 64, 32, 4, 4), Tile(64, 128, 32, 4, 4), Tile(128, 32, 32, 4, 4),
    Tile(64, 64, 64, 4, 4), Tile(64, 64, 64, 4, 4, split=4), Tile(64, 32, 64, 5, 2), Tile(32, 64, 64, 5, 2),
    Tile(32, 32, 64, 5, 2), Tile(16, 64, 128, 4, 4), Tile(16, 64, 128, 4, 4, split=8), Tile(16, 32, 128, 4, 2),
)  # fmt: skip
"""Tiles that products are predicted with where no schedule says which; the first are those of Triton's tutorial."""

# Fitted to public measurements: sm_80, sm_90 (benchmarks/results/public_gemm.csv). The others are assumptions: sm_120
# from 173 and 201 of 209.5 TFLOPS for 4096 and 8192 (gau-nernst/learn-cuda, Inductor's kernels), sm_100 from 711 to 986
# of 2250 for 8192 x 8192 x 512 (triton pull request 6217), sm_89 and gfx942 from nothing.
_REACHED = {
    "cuda:sm_80": Reached(matrix=0.78, cache=0.75),
    "cuda:sm_89": Reached(matrix=0.85, cache=0.75),
    "cuda:sm_90": Reached(matrix=0.76, cache=1.0),
    "cuda:sm_100": Reached(matrix=0.60, cache=1.0),
    "cuda:sm_120": Reached(matrix=0.94, cache=0.75),
    "hip:gfx942": Reached(matrix=0.50, cache=0.50),
}


def reached(gpu: GpuTarget) -> Reached:
    """What kernels reach on a GPU."""
    return _REACHED[gpu.target]


def roofline_seconds(gpu: GpuTarget, operations: float, nbytes: float, kind: MatrixType | None = None) -> float:
    """The least time that the peaks leave: operations over the units' rate, or bytes over the memory's bandwidth.

    Operands of a type that the matrix units do not take count at the vector units' rate.
    """
    peak = None if kind is None else gpu.matrix_peak(kind)
    return max(operations / (peak or gpu.fp32), nbytes / gpu.bandwidth)


def predict(gpu: GpuTarget, work: Work, programs: int, blocks: int, rates: Reached | None = None) -> Prediction:
    """The time of a kernel of so many programs, of which a multiprocessor has `blocks` at once."""
    rates = reached(gpu) if rates is None else rates
    if programs <= 0:
        return Prediction(0.0, Bound.LATENCY, dict.fromkeys(Bound, 0.0))
    busiest = -(-programs // gpu.multiprocessors)
    uneven = busiest * gpu.multiprocessors / programs
    peak = None if work.kind is None else gpu.matrix_peak(work.kind)
    unit = work.operations * uneven / (gpu.fp32 * rates.vector if peak is None else peak * rates.matrix)
    fetched = max(work.fetched, work.memory + work.cached)
    times = {
        Bound.MATRIX: 0.0 if peak is None else unit,
        Bound.VECTOR: unit if peak is None else 0.0,
        Bound.CACHE: fetched * uneven / (gpu.l2_bandwidth * rates.cache),
        Bound.MEMORY: work.memory / (gpu.bandwidth * rates.memory),
    }
    longest = max(times, key=lambda bound: times[bound])
    resident = max(blocks, 1)
    exposed = rates.start + rates.fill * (1 + (-(-busiest // resident) - 1) / resident)
    times[Bound.LATENCY] = exposed
    bound = Bound.LATENCY if exposed > times[longest] else longest
    return Prediction(times[longest] + exposed, bound, times)


def predict_product(gpu: GpuTarget, product: Product, tile: Tile, rates: Reached | None = None) -> Prediction:
    """The time of a product by tiles of one form, neighbours in groups (the cache then serves whole waves)."""
    rows, columns = -(-product.m // tile.m), -(-product.n // tile.n)
    programs = rows * columns * product.batch * tile.split
    steps = -(-product.k // (tile.k * tile.split))
    sums = tile.m * tile.n // (tile.warps * gpu.warp)
    blocks = occupancy(
        gpu.sm, tile.warps * gpu.warp, min(sums + 48, gpu.sm.thread_registers), tile.shared(product.size)
    ).blocks
    fetched = programs * steps * tile.k * (tile.m * product.size + tile.n * product.stored)
    stored = programs * tile.m * tile.n * (product.size if tile.split == 1 else 2 * _SUM)  # of parts: there and back
    split = _SPLITTING if product.kind is MatrixType.TF32X3 else 0
    padded = 2.0 * programs * (tile.m * tile.n + split) * steps * tile.k
    memory = max(product.bytes - product.cached, 0.0) + _again(gpu, product, tile)
    work = Work(padded, memory, product.cached, fetched + stored, product.kind)
    whole = predict(gpu, work, programs, blocks, rates)
    joined = joining_seconds(gpu, tile.split, tile.m * tile.n * _SUM, rates)
    return replace(whole, seconds=whole.seconds + joined)


def busy_seconds(gpu: GpuTarget, found: Prediction, programs: int) -> float:
    """What a kernel of few programs takes beside latencies: so many do not reach the memory's bandwidth by themselves.

    Assumed: four fifths of the multiprocessors must have one (FlashAttention splits keys below as many).
    """
    reach = min(1.0, programs / (_BUSY * gpu.multiprocessors))
    memory = found.times[Bound.MEMORY] / reach
    return max(memory, *(time for bound, time in found.times.items() if bound not in (Bound.LATENCY, Bound.MEMORY)))


def joining_seconds(gpu: GpuTarget, programs: int, nbytes: float, rates: Reached | None = None) -> float:
    """What the last of programs that share a tile needs: to learn that it is the last, and to read what all kept.

    nbytes: of one program. The first is assumed to take as long as a program's first loads; the second has one
    multiprocessor's share of the cache's bandwidth.
    """
    rates = reached(gpu) if rates is None else rates
    share = gpu.l2_bandwidth * rates.cache / gpu.multiprocessors
    return rates.fill + programs * nbytes / share if programs > 1 else 0.0


def best_tile(
    gpu: GpuTarget, product: Product, tiles: Iterable[Tile] = TILES, rates: Reached | None = None
) -> tuple[Tile, Prediction]:
    """The tile that is predicted to be the fastest, out of those whose shared memory fits; what a tuner would find."""
    fitting = [tile for tile in tiles if tile.shared(product.size) <= gpu.shared_per_block]
    found = [(tile, predict_product(gpu, product, tile, rates)) for tile in fitting]
    return min(found, key=lambda row: row[1].seconds)


def _again(gpu: GpuTarget, product: Product, tile: Tile) -> float:
    """Bytes of operands fetched again from memory, because a wave's neighbours need them after they left the cache.

    A wave of w programs in groups reads about 2 sqrt(w) panels; what all waves read beyond the operands comes again.
    """
    once = product.batch * (product.m * product.size + product.n * product.stored) * product.k
    if once <= gpu.l2:
        return 0.0
    rows, columns = -(-product.m // tile.m), -(-product.n // tile.n)
    wave = min(rows * columns, gpu.multiprocessors)
    side = math.sqrt(wave)
    panels = side * (tile.m * product.size + tile.n * product.stored) * product.k
    waves = rows * columns * product.batch / wave
    return max(waves * panels - once, 0.0)


def model_seconds(
    kernels: Iterable[float], *, graph: bool, overlaps: bool = False, launching: Launching = LAUNCH
) -> float:
    """The latency of a model from its kernels' times: replayed as one graph, or launched one by one.

    overlaps: kernels of a graph are launched while their predecessors end (`overlap.py`). Launched one by one, a kernel
    cannot start before the host has come to it, and the device does not wait for others.
    """
    if graph:
        hidden, least = (launching.hidden, launching.least) if overlaps else (0.0, 0.0)
        return launching.graph + sum(max(least, seconds + launching.gap - hidden) for seconds in kernels)
    host = device = 0.0
    for seconds in kernels:
        host += launching.host
        device = max(device, host) + launching.gap + seconds
    return device
