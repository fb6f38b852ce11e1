"""What the launches of a plan do on a GPU: sizes, tiles, operations, bytes; their predicted times and static reports.

Bytes are split by where they lie when a kernel starts. Weights come from device memory, unless those of the whole model
fit into the level 2 cache beside what is computed: a model that runs again and again finds them there. What an earlier
kernel wrote is still in the cache if all that this kernel moves fits into half of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from fusible.compiler.backends.triton.f32_products import TF32, TF32X3
from fusible.compiler.backends.triton.gpu_targets import GpuTarget, MatrixType
from fusible.compiler.backends.triton.kernel_report import Expectation, KernelReport, expectation, kernel_report
from fusible.compiler.backends.triton.launch import LaunchRule
from fusible.compiler.backends.triton.occupancy import occupancy
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.backends.triton.quantised_recurrent import QUANTISED_RECURRENT
from fusible.compiler.backends.triton.recurrent import RECURRENT
from fusible.compiler.backends.triton.roofline import (
    Prediction,
    Product,
    Tile,
    Work,
    joining_seconds,
    predict,
    predict_product,
)
from fusible.compiler.backends.triton.static_report import StaticReport
from fusible.compiler.costs import Cost
from fusible.compiler.ir.assumed import growing_sizes
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.symbol_values import evaluate, symbols_of
from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.build import Built
from fusible.compiler.region.region import Buffer, Contract, Load, Region

__all__ = ["LaunchWork", "launch_work", "predict_launch", "report_launch", "weights_stay"]

_MANY_SUMS = 128  # of a thread: half of its registers
_REGISTERS = 40  # of a thread of a kernel that was not built
_ATTENTION = 0.7  # of what products reach: exponentials take their turn (assumed)
_ATTENTION_REGISTERS = 168
_ROUND = 2e-6  # seconds that a step of a recurrent layer waits for the one before (assumed)
_SHARE = 0.5  # of the level 2 cache, for what one kernel moves
_SINGLE = {TF32: MatrixType.TF32, TF32X3: MatrixType.TF32X3}
_KINDS = {
    DType.F16: MatrixType.FP16,
    DType.BF16: MatrixType.BF16,
    DType.I8: MatrixType.INT8,
    DType.U8: MatrixType.INT8,
    DType.F8E4M3FN: MatrixType.FP8,
    DType.F8E5M2: MatrixType.FP8,
}


@dataclass(frozen=True, slots=True)
class _Fused:
    """Attention. sizes: queries, keys and the smaller of a head's two widths."""

    sizes: tuple[int, int, int]
    operations: float
    fetched: float
    shared: int
    kind: MatrixType | None


@dataclass(frozen=True, slots=True)
class LaunchWork:
    """One launch. bytes: read and written, each once; weights: those of them that are constants of the model.

    operations: None if they are not known. product, tile: of a kernel around a contraction by tiles. fused: of
    attention, what all programs do and fetch, and the shared memory of one. rounds: steps of a recurrent layer, each of
    which waits for the one before and fetches `again` bytes.
    """

    kernel: str
    rule: LaunchRule
    programs: int
    operations: float | None
    bytes: float
    weights: float
    product: Product | None = None
    tile: Tile | None = None
    fused: _Fused | None = None
    rounds: int = 0
    again: float = 0.0

    @property
    def kind(self) -> MatrixType | None:
        """What matrix units are given; None where there is nothing for them."""
        part = self.product or self.fused
        return None if part is None else part.kind

    def expected(self, gpu: GpuTarget) -> Expectation:
        """What can be expected of its code."""
        if self.fused is not None:
            return Expectation(self.fused.sizes, self.rule.constants["ROWS"], self.fused.kind)
        if self.product is None or self.tile is None:
            return expectation(self.rule, gpu, self.programs)
        sizes = self.product.m, self.product.n, self.product.k
        sums = self.tile.m * self.tile.n // (self.tile.warps * gpu.warp)
        split = self.product.kind is MatrixType.TF32X3
        beside = " beside both parts of operands" if split else ""
        spills = f"a thread has {sums} sums{beside}, and a smaller tile would read the operands more often"
        many = sums >= (_MANY_SUMS // 2 if split else _MANY_SUMS)
        return Expectation(sizes, self.tile.m, self.product.kind, spills=spills if many else "")


def launch_work(
    kernel: str,
    node: Node,
    built: Built,
    printed: PrintedKernel,
    cost: Cost,
) -> LaunchWork:
    """The launch of a node's kernel. cost: of the node, by `Costs`. Shape symbols count as the least they may be."""
    rule = printed.rule
    env = _least(cost.flops, cost.bytes, rule.grid, *built.region.extents, *_sizes(built.region))
    formal = dict(zip(node.subgraphs[0].inputs, node.inputs, strict=True)) if node.op.name == "fused" else {}
    read = _read(built.region, env, printed.packed)
    written = sum(_buffer_bytes(buffer, env) for buffer in built.region.outputs)
    nbytes = float(min(_number(cost.bytes, env), sum(read) + written))
    operands = [formal.get(v, v) for v in built.inputs]
    constants = sum(n for n, v in zip(read, operands, strict=True) if v is not None and v.constant is not None)
    operations = None if cost.flops is None else float(_number(cost.flops, env))
    work = LaunchWork(kernel, rule, rule.programs(env), operations, nbytes, min(nbytes, float(constants)))
    match len(built.region.contractions):
        case 1 if "BLOCK_M" in rule.constants:
            return _by_tiles(work, built.region, env, printed.multiplied)
        case 2 if "KEYS" in rule.constants:
            return replace(work, fused=_attention(work, built.region, env, printed.multiplied))
        case 0 if node.op.name in (*RECURRENT, QUANTISED_RECURRENT):
            return _recurrent(work, node, env)
    return work


def _by_tiles(
    work: LaunchWork, region: Region, env: Mapping[str, int], multiplied: tuple[DType, str] | None
) -> LaunchWork:
    """The same launch with the sizes and the tile of its contraction. multiplied: as of the kernel."""
    contract, rule = region.stages[region.contractions[0]], work.rule
    assert isinstance(contract, Contract)
    kind, size = _operands(region.dtypes[contract.args[0]], multiplied)
    batch, rows, columns = (_number(points, env) for points, _ in rule.blocks[:3])
    terms = _number(product(region.extents[a] for a in contract.axes), env)
    weight = min(float(size), work.weights / max(terms * columns * batch, 1)) if work.weights else float(size)
    once = float((terms * weight + rows * size) * columns)
    read = max(work.bytes / max(batch, 1) - once, 0.0)  # with what the epilogue reads
    m, n, k = (rule.constants[name] for name in ("BLOCK_M", "BLOCK_N", "BLOCK_K"))
    made = Product(rows, columns, terms, batch, size, kind, read=read, weight=weight)
    step = k * rule.constants["SLICES"]  # terms of one step of a program
    split = 1 if rule.alone else rule.constants["SPLIT"]  # a shared tail is little: counted as if it were not shared
    tile = Tile(m, n, step, rule.stages, rule.warps, split)
    return replace(work, product=made, tile=tile)


def _attention(
    work: LaunchWork, region: Region, env: Mapping[str, int], multiplied: tuple[DType, str] | None
) -> _Fused:
    """What the programs of attention do: each goes through all keys and values of its head."""
    first, second = (region.stages[position] for position in region.contractions)
    assert isinstance(first, Contract) and isinstance(second, Contract)
    kind, item = _operands(region.dtypes[second.args[0]], multiplied)
    size, keys = (_number(product(region.extents[a] for a in c.axes), env) for c in (first, second))
    queries, rows = _number(work.rule.blocks[0][0], env), work.rule.constants["ROWS"]
    split = work.rule.constants["SPLIT"]
    heads = work.programs // split // max(-(-queries // rows), 1)
    width = _number(product(region.outputs[0].shape), env) // max(heads * queries, 1)
    step = -(-keys // (split * work.rule.constants["KEYS"])) * work.rule.constants["KEYS"]
    operations = 2.0 * work.programs * rows * step * (size + width)
    fetched = float(work.programs * item * (step + rows) * (size + width))
    shared = item * (rows * size + work.rule.stages * work.rule.constants["KEYS"] * (size + width))
    return _Fused((queries, keys, min(size, width)), operations, fetched, shared, kind)


def _recurrent(work: LaunchWork, node: Node, env: Mapping[str, int]) -> LaunchWork:
    """A recurrent layer: in each step every program reads the weights of its direction, out of the cache."""
    x, weights = (None if v is None else v.type for v in (node.inputs[0], node.inputs[2]))
    assert isinstance(x, TensorType) and isinstance(weights, TensorType)
    assert x.shape is not None and weights.shape is not None
    steps = _number(x.shape[1 if getattr(node.attrs, "layout", 0) else 0], env)
    once = _number(product(weights.shape[1:]), env) * weights.dtype.numpy.itemsize
    return replace(work, rounds=steps, again=float(once * work.programs))


def _operands(operand: DType, multiplied: tuple[DType, str] | None) -> tuple[MatrixType | None, int]:
    """What matrix units are given (None: vector units multiply), and the bytes of an element.

    operand: the type in the region, for kernels that do not say what they multiply.
    """
    kind, precision = (operand, "") if multiplied is None else multiplied
    return _SINGLE.get(precision) if kind is DType.F32 else _KINDS.get(kind), kind.numpy.itemsize


def weights_stay(works: Sequence[LaunchWork], gpu: GpuTarget) -> bool:
    """True if all weights fit into the level 2 cache beside what the largest launch moves."""
    moved = max((work.bytes - work.weights for work in works), default=0.0)
    return sum(work.weights for work in works) + moved <= gpu.l2 * (1 + _SHARE) / 2


def predict_launch(work: LaunchWork, gpu: GpuTarget, *, warm: bool, report: StaticReport | None = None) -> Prediction:
    """The predicted time. warm: whether the weights are in the cache. report: of the built kernel, if it was built."""
    cached = _cached(work, gpu, warm=warm)
    if work.product is not None and work.tile is not None and work.programs:
        return predict_product(gpu, replace(work.product, cached=cached), work.tile)
    memory, fused = max(work.bytes - cached, 0.0), work.fused
    fetched = work.bytes + work.rounds * work.again
    moved, registers, shared = Work(work.operations or 0.0, memory, cached, fetched), _REGISTERS, 0
    if fused is not None:
        moved = Work(fused.operations / _ATTENTION, memory, cached, fused.fetched, fused.kind)
        registers, shared = _ATTENTION_REGISTERS, fused.shared
    if report is not None:
        registers, shared = report.registers, report.shared
    blocks = occupancy(gpu.sm, work.rule.warps * gpu.warp, registers, shared).blocks
    made = predict(gpu, moved, work.programs, blocks)
    return replace(made, seconds=made.seconds + _ROUND * work.rounds + _joining(work, gpu))


def _joining(work: LaunchWork, gpu: GpuTarget) -> float:
    """Seconds in which the last program of attention joins what those that share its queries found."""
    if work.fused is None:
        return 0.0
    constants, queries = work.rule.constants, work.fused.sizes[0]
    kept = work.rule.workspace * min(queries, constants["ROWS"]) / constants["ROWS"]
    return joining_seconds(gpu, constants["SPLIT"], kept)


def report_launch(work: LaunchWork, gpu: GpuTarget, report: StaticReport, *, warm: bool) -> KernelReport:
    """The static report of a launch."""
    return kernel_report(
        work.kernel,
        report,
        gpu,
        threads=report.threads or work.rule.warps * gpu.warp,
        programs=work.programs,
        operations=work.operations,
        nbytes=work.bytes,
        expected=work.expected(gpu),
        predicted=predict_launch(work, gpu, warm=warm, report=report),
        operands=work.rule.operands,
    )


def _cached(work: LaunchWork, gpu: GpuTarget, *, warm: bool) -> float:
    """Bytes that do not come from device memory, or need not go there yet."""
    computed = work.bytes - work.weights
    return (computed if computed <= gpu.l2 * _SHARE else 0.0) + (work.weights if warm else 0.0)


def _least(*dims: Dim | None) -> dict[str, int]:
    """The least value of each symbol, at least 1, or a power of two for which the sizes agree (lengths behind windows).

    Raises ValueError if there is none.
    """
    known = [dim for dim in dims if dim is not None]
    bounds = {symbol.name: (max(1, symbol.lower), symbol.upper) for dim in known for symbol in symbols_of(dim)}
    refused: Exception | None = None
    for env in growing_sizes(bounds):
        try:
            if all(evaluate(dim, env) >= 0 for dim in known):
                return env
        except (ValueError, ZeroDivisionError) as error:
            refused = error
    raise ValueError(f"no sizes were found for which those of {', '.join(bounds)} agree") from refused


def _number(dim: Dim, env: Mapping[str, int]) -> int:
    return int(evaluate(dim, env))


def _read(region: Region, env: Mapping[str, int], packed: Collection[int]) -> list[int]:
    """Bytes of each input: all of it, or as much as there are loads; of a table only rows that are asked for.

    packed: inputs with two elements in a byte.
    """
    if not region.stages:  # the kernel of a template
        return [_buffer_bytes(buffer, env) for buffer in region.inputs]
    points = _number(product(region.extents), env)
    loads = Counter(stage.buffer for stage in region.stages if isinstance(stage, Load))
    return [
        min(_buffer_bytes(buffer, env), loads[number] * points * buffer.dtype.numpy.itemsize)
        // (2 if number in packed else 1)
        for number, buffer in enumerate(region.inputs)
    ]


def _sizes(region: Region) -> list[Dim]:
    return [size for buffer in (*region.inputs, *region.outputs) for size in buffer.shape]


def _buffer_bytes(buffer: Buffer, env: Mapping[str, int]) -> int:
    return _number(product(buffer.shape), env) * buffer.dtype.numpy.itemsize
