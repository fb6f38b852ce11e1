"""Contractions of all kinds, as graphs. All of them, in several element types and tiles, run by a command of its own:

    python -m tests.compiler.triton.contraction_cases [WORD ...]

with WORDs only those whose names have them all. It takes minutes; the test suite runs some of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fusible.compiler.backends.triton.contraction import contraction_of
from fusible.compiler.backends.triton.contraction_printer import print_product
from fusible.compiler.backends.triton.f32_products import TF32X3
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.print_kernel import print_kernel
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.backends.triton.schedule_contraction import ContractionSchedule, steps_of
from fusible.compiler.ir.symbols import Symbol, product
from fusible.compiler.ir.types import DType
from fusible.compiler.region.parse import parse_region
from fusible.compiler.region.reorder import reordered
from tests.compiler.triton.contractions import Case, Model, check, tiles
from tests.compiler.triton.harness import BF16

__all__ = ["CASES", "CHOSEN", "TYPED", "Run", "runs"]

Make = Callable[[Model], Case]
CASES: dict[str, tuple[int, Make]] = {}
CHOSEN: list[str] = []  # those that the test suite runs
TYPED: set[str] = set()  # those whose element types are their own


def case(terms: int, *, chosen: bool = False, typed: bool = False) -> Callable[[Make], Make]:
    """Register a case by its name. terms: of one of its sums."""

    def register(make: Make) -> Make:
        CASES[make.__name__] = terms, make
        if chosen:
            CHOSEN.append(make.__name__)
        if typed:
            TYPED.add(make.__name__)
        return make

    return register


# Products of matrices


@case(83, chosen=True)
def linear_with_bias_gelu_and_residual(m: Model) -> Case:
    y = m("add", m("matmul", m.x(37, 83), m.w(83, 45)), m.w(45))
    return m.case(m("add", m("gelu", y), m.x(37, 45)))


@case(40)
def linear_with_tanh_gelu(m: Model) -> Case:
    return m.case(m("gelu", m("add", m("matmul", m.x(21, 40), m.w(40, 33)), m.w(33)), approximate="tanh"))


@case(70, chosen=True)
def transposed_weight(m: Model) -> Case:
    return m.case(m("relu", m("gemm", m.x(18, 70), m.w(40, 70), m.w(40), transB=True)))


@case(50)
def both_transposed(m: Model) -> Case:
    return m.case(m("gemm", m.x(50, 20), m.x(33, 50), None, transA=True, transB=True))


@case(19, chosen=True)
def batch_of_both_operands(m: Model) -> Case:
    return m.case(m("matmul", m.x(2, 3, 20, 19), m.x(2, 3, 19, 33)))


@case(24)
def batch_that_the_right_operand_repeats(m: Model) -> Case:
    return m.case(m("mul", m("matmul", m.x(2, 5, 9, 24), m.x(2, 1, 24, 17)), m.c(0.25)))


@case(24)
def batch_of_the_right_operand_alone(m: Model) -> Case:
    return m.case(m("matmul", m.x(19, 24), m.x(3, 24, 17)))


@case(20)
def scores_with_mask(m: Model) -> Case:
    keys = m("transpose", m.x(2, 3, 19, 20), perm=(0, 1, 3, 2))
    scores = m("mul", m("matmul", m.x(2, 3, 17, 20), keys), m.c(0.2))
    return m.case(m("add", scores, m.x(2, 1, 1, 19)))


@case(24)
def split_into_heads(m: Model) -> Case:
    y = m("add", m("matmul", m.x(2, 17, 24), m.w(24, 24)), m.w(24))
    return m.case(m("transpose", m("reshape", y, shape=(2, 17, 3, 8)), perm=(0, 2, 1, 3)))


@case(24)
def joined_heads(m: Model) -> Case:
    x = m("reshape", m("transpose", m.x(2, 3, 17, 8), perm=(0, 2, 1, 3)), shape=(2, 17, 24))
    return m.case(m("add", m("matmul", x, m.w(24, 20)), m.w(20)))


@case(27)
def two_contracted_axes(m: Model) -> Case:
    return m.case(m("einsum", m.x(2, 5, 7, 9), m.x(9, 7, 11), equation="bijk,kjl->bil"))


@case(21, chosen=True)
def computed_operands(m: Model) -> Case:
    """Both are other than zero behind the last term."""
    return m.case(m("matmul", m("sigmoid", m.x(20, 21)), m("exp", m.w(21, 22))))


@case(40, chosen=True, typed=True)
def dequantised_weight(m: Model) -> Case:
    w = m("mul", m("cast", m.w(40, 24, dtype=np.int8), dtype=DType.F32), m.w(24))
    return m.case(m("relu", m("matmul", m.x(19, 40), w)))


@case(300, chosen=True, typed=True)
def integers_with_zero_points(m: Model) -> Case:
    made = m.case(
        m("matmul_integer", m.x(18, 300, dtype=np.uint8), m.w(300, 20, dtype=np.int8), m.x(dtype=np.uint8),
          m.x(dtype=np.int8))
    )  # fmt: skip
    for array in made.inputs:  # sums as large as they may be
        array[...] = {(np.uint8, 2): 255, (np.int8, 2): 127, (np.uint8, 0): 3, (np.int8, 0): -100}[
            array.dtype.type, array.ndim
        ]
    return made


@case(40, typed=True)
def integers(m: Model) -> Case:
    return m.case(m("matmul_integer", m.x(18, 40, dtype=np.int8), m.w(40, 20, dtype=np.int8), None, None))


# Convolutions


@case(5 * 9)
def padded_convolution_silu_residual(m: Model) -> Case:
    y = m.conv(m.x(2, 5, 7, 9), m.w(12, 5, 3, 3), m.w(12), pads=1)
    return m.case(m("add", m("mul", y, m("sigmoid", y)), m.x(2, 12, 7, 9)), last=True)


@case(24 * 9, chosen=True)
def strided_convolution(m: Model) -> Case:
    return m.case(m("relu", m.conv(m.x(1, 24, 9, 11), m.w(20, 24, 3, 3), m.w(20), strides=2, pads=1)), last=True)


@case(288, chosen=True)
def convolution_of_whole_blocks(m: Model) -> Case:
    """Weights are one row of elements along taps and channels; where the window ends is known before the loop."""
    y = m.conv(m.x(2, 32, 9, 11), m.w(20, 32, 3, 3), m.w(20), pads=2, dilations=2)
    return m.case(m("relu", m("add", y, m.x(2, 20, 9, 11))), last=True)


@case(288, chosen=True)
def convolution_without_padding(m: Model) -> Case:
    """No window ends outside, and its rows are no row of the depth."""
    return m.case(m.conv(m.x(1, 32, 9, 11), m.w(20, 32, 3, 3), m.w(20)), last=True)


@case(24)
def pointwise_convolution(m: Model) -> Case:
    return m.case(m("relu", m.conv(m.x(2, 24, 5, 7), m.w(20, 24, 1, 1), m.w(20))), last=True)


@case(24)
def scaled_channels_before_a_convolution(m: Model) -> Case:
    x = m("mul", m.x(2, 24, 6, 7), m.x(2, 24, 1, 1))
    return m.case(m.conv(x, m.w(16, 24, 1, 1), m.w(16)), last=True)


@case(72, chosen=True)
def grouped_convolution(m: Model) -> Case:
    return m.case(m("relu", m.conv(m.x(2, 24, 7, 5), m.w(36, 8, 3, 3), m.w(36), pads=1, group=3)), last=True)


@case(27)
def dilated_convolution_of_planes(m: Model) -> Case:
    return m.case(m.conv(m.x(2, 3, 17, 19), m.w(20, 3, 3, 3), m.w(20), pads=2, dilations=2, strides=2))


@case(27, chosen=True)
def first_layer(m: Model) -> Case:
    """Reads planes, writes channels last."""
    made = m.case(m("relu", m.conv(m.x(2, 3, 17, 19), m.w(20, 3, 3, 3), m.w(20), pads=1, strides=2)))
    return replace(made, region=reordered(made.region, {}, {0: (0, 2, 3, 1)}))


@case(60)
def convolution_of_lines(m: Model) -> Case:
    return m.case(m("gelu", m.conv(m.x(2, 20, 33), m.w(24, 20, 3), m.w(24), pads=1)))


@case(8 * 27)
def convolution_of_volumes(m: Model) -> Case:
    return m.case(m.conv(m.x(1, 8, 5, 6, 7), m.w(16, 8, 3, 3, 3), m.w(16), pads=1), last=True)


@case(3 * 16)
def patches(m: Model) -> Case:
    y = m.conv(m.x(1, 3, 16, 12), m.w(24, 3, 4, 4), m.w(24), strides=4)
    return m.case(m("transpose", m("reshape", y, shape=(1, 24, 12)), perm=(0, 2, 1)))


@case(48, chosen=True)
def transposed_convolution(m: Model) -> Case:
    """Its phases sum different numbers of taps."""
    y = m(
        "conv_transpose", m.x(1, 12, 5, 7), m.w(12, 10, 3, 3), m.w(10), strides=(2, 2), pads=(1, 1, 1, 1),
        output_padding=(1, 1),
    )  # fmt: skip
    return m.case(m("sigmoid", y), last=True)


@case(36)
def transposed_convolution_of_odd_size(m: Model) -> Case:
    y = m("conv_transpose", m.x(1, 12, 5, 7), m.w(12, 10, 3, 3), m.w(10), strides=(2, 2), pads=(1, 1, 1, 1))
    return m.case(m("relu", y), last=True)


@case(24)
def pixel_shuffle(m: Model) -> Case:
    """The columns are parts of three axes of the result."""
    y = m.conv(m.x(1, 24, 5, 7), m.w(32, 24, 1, 1))
    return m.case(m("depth_to_space", y, blocksize=2, mode="CRD"))


# Sums


@case(9, chosen=True)
def depthwise_convolution(m: Model) -> Case:
    y = m.conv(m.x(1, 40, 9, 11), m.w(40, 1, 3, 3), m.w(40), pads=1, strides=2, group=40)
    return m.case(m("relu", y), last=True)


@case(70)
def matrix_by_vector(m: Model) -> Case:
    return m.case(m("add", m("matmul", m.x(1, 70), m.w(70, 33)), m.w(33)))


@case(70)
def few_rows_of_a_large_product(m: Model) -> Case:
    return m.case(m("matmul", m.x(3, 70), m.w(70, 65)))


@case(70, chosen=True)
def row_by_a_matrix_that_is_computed(m: Model) -> Case:
    """A sum would read the matrix across."""
    return m.case(m("matmul", m.x(1, 70), m.x(70, 97)))


@case(21)
def two_columns(m: Model) -> Case:
    return m.case(m("matmul", m.x(20, 21), m.w(21, 2)))


@case(3)
def three_terms(m: Model) -> Case:
    return m.case(m("matmul", m.x(20, 3), m.w(3, 17)))


@case(1)
def no_terms(m: Model) -> Case:
    return m.case(m("matmul", m.x(20, 0), m.w(0, 17)))


@case(21, typed=True)
def double_precision(_: Model) -> Case:
    m = Model(np.float64)
    return m.case(m("matmul", m.x(20, 21), m.w(21, 22)))


SUMS = ("depthwise_convolution", "matrix_by_vector", "two_columns", "three_terms", "no_terms", "double_precision")

DYNAMIC = """
region [i0=b, i1=n, i2=40, i3=k]
  in x0: f32[b, n, k]
  in x1: f32[k, 40]
  in x2: f32[b, n, 40]
  out y0: f32[b, n, 40]
  out y1: f16[40, b, n]
  v0: f32 = load x0[i0, i1, i3]
  v1: f32 = load x1[i3, i2]
  v2: f32 = contract over i3 of v0, v1
  v3: f32 = load x2[i0, i1, i2]
  v4: f32 = add(v2, v3)
  v5: f16 = f16(v4)
  store y0[i0, i1, i2] = v4
  store y1[i2, i0, i1] = v5
"""


@dataclass(frozen=True, slots=True)
class Run:
    """A case and its sums' terms, by a schedule of its own or (tile None) by the static one.

    precision: how f32 is multiplied by the static one.
    """

    case: Case
    terms: int
    tile: ContractionSchedule | None = None
    env: Mapping[str, int] = field(default_factory=dict)
    precision: str = "ieee"

    def check(self) -> PrintedKernel:
        """Fail unless its kernel, in checking mode, gives what float64 gives."""
        about = {"terms": self.terms, "constants": self.case.constants, "inputs": self.case.inputs or None}
        how = {"tile": self.tile, "env": self.env, "precision": self.precision}
        return check(self.case.region, **about, **how)  # type: ignore[arg-type]

    def printed(self, gpu: GpuTarget) -> PrintedKernel:
        """Its kernel for a GPU."""
        if self.tile is None:
            there = "ieee" if gpu.backend == "hip" else self.precision  # it has matrix units for fp32 itself
            return print_kernel(self.case.region, gpu, self.case.constants, precision=there)
        return print_product(contraction_of(self.case.region, self.case.constants), self.tile, "ieee")


def runs() -> Iterator[tuple[str, Run]]:
    """Everything, by name."""
    for name, (terms, make) in CASES.items():
        for dtype in (np.float32,) if name in TYPED else (np.float32, np.float16, BF16):
            made, kind = make(Model(dtype)), np.dtype(dtype)
            yield f"{name} {kind}", Run(made, terms)
            if name not in SUMS and kind == np.float32:
                yield f"{name} {kind}, three products", Run(made, terms, precision=TF32X3)
            if name not in SUMS:
                yield from ((f"{name} {kind}, {how}", Run(made, terms, tile)) for how, tile in _tiles(made))
    symbols = {size: Symbol(size) for size in "bnk"}
    for name in ("f32", "f16", "bf16"):
        region = parse_region(DYNAMIC.replace(": f32[", f": {name}["), symbols)
        yield f"sizes that are symbols {name}", Run(Case(region, (), ()), 70, env={"b": 3, "n": 13, "k": 70})


def _tiles(made: Case) -> Iterator[tuple[str, ContractionSchedule]]:
    """Ways to go through the depth."""
    depths = len(tiles(made).depths)
    least = 16 if all(b.dtype.numpy.itemsize > 1 for b in made.region.inputs) else 32  # terms of a matrix instruction
    for together in range(1, depths + 1):
        yield f"{together} of {depths} axes together", ContractionSchedule(16, 16, 32, together, 2, 1, 2)
    for split in (2, 3):
        yield f"{split} parts", ContractionSchedule(16, 16, least, 1, 2, 1, 2, split=split)
    yield "a shared tail", ContractionSchedule(16, 16, 32, 1, 2, 1, 2, split=2, wave=2)
    if (tile := sliced(made)) is not None:
        yield f"{tile.slices} slices", tile


def sliced(case: Case) -> ContractionSchedule | None:
    """A schedule with slices of the depth, if it has blocks for some."""
    sizes = tiles(case)
    for together in range(1, len(sizes.depths) + 1):
        tile = ContractionSchedule(16, 16, 32, together, 2, 1, 2)
        steps = product(steps_of(sizes, tile))
        for slices in (4, 2):
            if isinstance(steps, int) and steps % slices == 0:
                return replace(tile, slices=slices)
    return None


def main(words: Sequence[str]) -> int:
    """Run those whose names have all the words; returns how many failed."""
    failed = 0
    for name, run in runs():
        if not all(word in name for word in words):
            continue
        try:
            run.check()
            sys.stdout.write(f"ok     {name}\n")
        except Exception as error:  # noqa: BLE001  # any failure is shown, and the others still run
            failed += 1
            sys.stdout.write(f"FAILED {name}: {type(error).__name__}: {error}\n")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
