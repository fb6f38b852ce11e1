"""What multiplies in bf16 where that was asked for, what stays in fp32, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from fusible.compiler.backends.cpu.windows import Geometry
from fusible.compiler.ir.assumed import assumed_size
from fusible.runtime.native.machine import instruction_sets

__all__ = ["Arithmetic", "Products", "notes_on", "winograd_beats_bf16"]

# Of one core with AVX512_BF16, in multiplications of fp32 for which there is time in one pass of its vectors: a pair of
# bf16 counts as one; a byte of weights, which come from memory while others are multiplied, as two (138 G/s and 70 GB/s
# on Zen 5); an element of a tile that is transformed, in and out.
_PER_BYTE = 2
_PER_INPUT, _PER_OUTPUT = 6, 4
_SLOW = (
    "precision bf16: this processor has no AVX512_BF16, so pairs are taken apart: results are those of bf16, but "
    "products take longer than in fp32, except those of few rows"
)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How kernels may compute. exact: by algorithms only that round as the sums do.

    bf16: multiply in bf16 where that is worth it.
    """

    exact: bool = False
    bf16: bool = False


@dataclass(frozen=True)
class Products:
    """The contractions of a kernel. bf16: how many multiply so; fp32: of each other one, why not."""

    bf16: int = 0
    fp32: tuple[str, ...] = ()

    @staticmethod
    def total(parts: Iterable[Products]) -> Products:
        """Those of all of them."""
        parts = list(parts)
        return Products(sum(p.bf16 for p in parts), tuple(reason for p in parts for reason in p.fp32))


def notes_on(products: Products) -> list[str]:
    """What the report says of a compilation to bf16: the counts, and whether this processor is made for it."""
    count = products.bf16 + len(products.fp32)
    text = f"precision bf16: {products.bf16} of {count} contractions multiply in bf16"
    reasons = sorted(Counter(products.fp32).items(), key=lambda item: (-item[1], item[0]))
    if reasons:
        text += "; in fp32: " + ", ".join(f"{number} ({reason})" for reason, number in reasons)
    return [text, *([] if "avx512_bf16" in instruction_sets().split() else [_SLOW])]


def winograd_beats_bf16(g: Geometry, m: int) -> bool:
    """Whether a convolution with 3x3 taps is faster by Winograd's tiles of m x m outputs in fp32 than directly in bf16.

    Both are counted in products and in bytes of weights: Winograd's F(4x4) has a quarter of the products, which the
    instruction for pairs does not make up for, but four times the weights in elements of twice the size. So it stays
    where images are large and loses where there are many channels and few pixels.
    """
    images = g.images if isinstance(g.images, int) else 1
    height, width = assumed_size(g.out_height), assumed_size(g.out_width)
    weights = g.channels * g.outputs
    direct = images * height * width * 9 * weights / 2 + _PER_BYTE * 2 * 9 * weights
    points, tiles = (m + 2) ** 2, images * -(-height // m) * -(-width // m)
    transforms = tiles * points * (_PER_INPUT * g.channels + _PER_OUTPUT * g.outputs)
    return tiles * points * weights + transforms + _PER_BYTE * 4 * points * weights < direct
