"""Regions around a contraction: printed, lowered to C in checking mode, run, compared with the region interpreter."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fusible.compiler.backends.cpu.layout import channels_last
from fusible.compiler.backends.triton.aot import ttir_text
from fusible.compiler.backends.triton.contraction import contraction_of
from fusible.compiler.backends.triton.contraction_printer import print_product, sizes_of
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.kernel import CpuKernel, build_kernel
from fusible.compiler.backends.triton.launch import WORKSPACE
from fusible.compiler.backends.triton.lower import lower_ttir
from fusible.compiler.backends.triton.print_kernel import print_kernel
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.backends.triton.schedule_contraction import ContractionSchedule, Sizes
from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.symbol_values import evaluate
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.build import build_region
from fusible.compiler.region.group import home_of
from fusible.compiler.region.region import Region
from fusible.compiler.region.reorder import reordered
from fusible.runtime.native.pool import Pool
from tests.compiler.triton.in_float64 import run_in_float64
from tests.compiler.triton.workspaces import workspace_of
from tests.tolerance import assert_close, poisoned

__all__ = ["Case", "Model", "check", "random_inputs", "ran", "tiles"]


def random_inputs(region: Region, env: Mapping[str, int], seed: int = 0) -> list[np.ndarray]:
    """Numbers near one for each input; whole ones for integers."""
    random = np.random.default_rng(seed)
    found = []
    for buffer in region.inputs:
        shape = tuple(int(evaluate(d, env)) for d in buffer.shape)
        whole = not buffer.dtype.is_float
        array = random.integers(-100, 100, shape) if whole else random.uniform(-1, 1, shape)
        found.append(np.asarray(array).astype(buffer.dtype.numpy))
    return found


def ran(
    kernel: PrintedKernel,
    region: Region,
    inputs: Sequence[np.ndarray],
    env: Mapping[str, int],
    *,
    gpu: str = "h100",
    checked: bool = True,
    built: CpuKernel | None = None,
    pool: Pool | None = None,
) -> list[np.ndarray]:
    """What the kernel writes into poisoned outputs. Constants that it wants otherwise are stored so first.

    built: what was built of it before.
    """
    built = built or build_kernel(lower_ttir(ttir_text(kernel, gpu_target(gpu)), checked=checked))
    shapes = [tuple(int(evaluate(d, env)) for d in b.shape) for b in region.outputs]
    outputs = [poisoned(s, b.dtype.numpy) for s, b in zip(shapes, region.outputs, strict=True)]
    stored = [
        as_bytes(kernel.stored(n, x) if n in kernel.repacked or n in kernel.packed else x.copy())
        for n, x in enumerate(inputs)
    ]
    names = [a.name for a in kernel.rule.arguments]
    programs = kernel.rule.programs(env)
    shared = workspace_of(kernel.rule, programs)
    arrays = {f"x{n}": x for n, x in enumerate(stored)} | {f"y{n}": y for n, y in enumerate(outputs)} | shared
    numbers = kernel.rule.numbers(env)
    if programs:
        built((programs,), *(arrays[name] if name in arrays else numbers[name] for name in names), pool=pool)
    assert not any(shared[WORKSPACE[1]]) if shared else True, "a counter is left that is not 0"
    return outputs


def as_bytes(array: np.ndarray) -> np.ndarray:
    """4-bit integers and 8-bit floats as the bytes that kernels read."""
    if array.dtype.isbuiltin == 1 or array.dtype.itemsize > 1:
        return array
    return array.view(np.int8 if array.dtype == DType.I4.numpy else np.uint8)


def check(
    region: Region,
    *,
    terms: int,
    constants: Collection[int] = (),
    env: Mapping[str, int] | None = None,
    inputs: Sequence[np.ndarray] | None = None,
    tile: ContractionSchedule | None = None,
    gpu: str = "h100",
    precision: str = "ieee",
) -> PrintedKernel:
    """Assert that the region's kernel gives what the region says in float64; terms: of a sum. Returns the kernel.

    What the region rounds to 16 bits on its way is rounded there too. tile: a schedule to print the contraction by,
    whatever its sizes. precision: how f32 is multiplied without one.
    """
    known = dict(env or {})
    given = random_inputs(region, known) if inputs is None else inputs
    if tile is None:
        kernel = print_kernel(region, gpu_target(gpu), constants, precision=precision)
    else:
        kernel = print_product(contraction_of(region, constants), tile, "ieee")
    expected = run_in_float64(region, [x.copy() for x in given], known)
    for got, wanted in zip(ran(kernel, region, given, known, gpu=gpu), expected, strict=True):
        assert_close(got, wanted, accumulation=terms)
    return kernel


class Model:
    """A graph of one region: inputs and constants with random contents, and nodes."""

    def __init__(self, dtype: npt.DTypeLike = np.float32, seed: int = 0) -> None:
        self.graph = Graph("contraction")
        self.dtype = np.dtype(dtype)
        self.random = np.random.default_rng(seed)
        self.arrays: dict[Value, np.ndarray] = {}
        self.known: set[Value] = set()

    def x(self, *shape: int, dtype: npt.DTypeLike | None = None) -> Value:
        """An input."""
        kind = np.dtype(dtype or self.dtype)
        whole = kind.kind in "iu"
        array = self.random.integers(-100, 100, shape) if whole else self.random.uniform(-1, 1, shape)
        value = self.graph.input(TensorType(DType.of(kind), shape), f"x{len(self.arrays)}")
        self.arrays[value] = np.asarray(array).astype(kind)
        return value

    def w(self, *shape: int, dtype: npt.DTypeLike | None = None) -> Value:
        """An input that stands for a constant."""
        value = self.x(*shape, dtype=dtype)
        self.known.add(value)
        return value

    def c(self, number: float) -> Value:
        """A number."""
        return self.graph.constant(np.asarray(number, self.dtype))

    def __call__(self, op: str, *inputs: Value | None, **attributes: Any) -> Value:
        return self.graph.add(op, *inputs, **attributes)

    def conv(self, *inputs: Value, strides: int = 1, pads: int = 0, dilations: int = 1, group: int = 1) -> Value:
        """A convolution that is the same along every axis."""
        rank = len(inputs[0].type.shape) - 2  # type: ignore[union-attr,arg-type]
        return self(
            "conv", *inputs, strides=(strides,) * rank, pads=(pads,) * 2 * rank, dilations=(dilations,) * rank,
            group=group,
        )  # fmt: skip

    def case(self, *outputs: Value, last: bool = False) -> Case:
        """The region of all nodes; last: images are stored with their channels last."""
        nodes = list(self.graph)
        built = build_region(nodes, outputs, home=home_of(nodes, outputs), inline_scalars=True)
        region, inputs = built.region, [self.arrays[v] for v in built.inputs]
        constants = [n for n, v in enumerate(built.inputs) if v in self.known]
        if last:
            orders = {n: channels_last(x.ndim) for n, x in enumerate(inputs) if n not in constants and x.ndim > 2}
            results = {n: channels_last(len(b.shape)) for n, b in enumerate(region.outputs)}
            region = reordered(region, orders, results)
            inputs = [x.transpose(orders[n]).copy() if n in orders else x for n, x in enumerate(inputs)]
        return Case(region, inputs, constants)


def tiles(case: Case) -> Sizes:
    """The sizes of a case's contraction. Raises Unsuited if it is no product of tiles."""
    return sizes_of(contraction_of(case.region, case.constants))


@dataclass(frozen=True)
class Case:
    """A region, arrays for its inputs, and which of these are constants."""

    region: Region
    inputs: Sequence[np.ndarray]
    constants: Collection[int]
