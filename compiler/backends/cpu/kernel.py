"""A region as a native kernel: C text whose function name is free, and the operands that are packed beforehand."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from fusible.compiler.backends.cpu.c_attention import attention_of, print_attention
from fusible.compiler.backends.cpu.c_convolution import (
    Convolution,
    convolution_of,
    packed_weights,
    print_convolution,
)
from fusible.compiler.backends.cpu.c_gemm import Product, packed_operand, print_product, product_of
from fusible.compiler.backends.cpu.c_nest import print_nest
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.region.region import Region

__all__ = ["PLACEHOLDER", "Machine", "NativeKernel", "NotPrintable", "packed", "print_region"]

PLACEHOLDER = "fusible_kernel"
"""The name in the text, to be replaced by the kernel's own: equal regions have equal texts."""


@dataclass(frozen=True)
class NativeKernel:
    """text: C that includes printed.h, for the function PLACEHOLDER. dims: what it takes besides buffers, shape symbols
    and numbers that were kept out of the text.

    anchor: the product or convolution that the region is built around, whose constant operand is to be packed.
    """

    text: str
    dims: tuple[str | int, ...]
    anchor: Product | Convolution | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """What work is cut for: threads, and lanes of a vector. exact: keep to algorithms that round as the sums do."""

    threads: int = 1
    lanes: int = 8
    exact: bool = False


def print_region(region: Region, constants: Collection[int], machine: Machine = Machine()) -> NativeKernel:
    """The kernel of a region; `constants`: inputs whose contents are known. Raises NotPrintable with the reason."""
    if not region.contractions:
        return NativeKernel(*print_nest(region, PLACEHOLDER))
    if len(region.contractions) == 2:
        return NativeKernel(*print_attention(attention_of(region), PLACEHOLDER))
    try:
        product = product_of(region, constants)
        return NativeKernel(*print_product(region, product, PLACEHOLDER), product)
    except NotPrintable as no_product:
        if len(region.inputs[0].shape) != 4 and not any(len(b.shape) == 4 for b in region.inputs):
            raise
        try:
            found = convolution_of(region, constants, exact=machine.exact)
            text, dims = print_convolution(region, found, PLACEHOLDER, machine.threads, machine.lanes)
        except NotPrintable as no_convolution:
            raise NotPrintable(f"{no_product}; {no_convolution}") from no_convolution
        return NativeKernel(text, dims, found)


def packed(region: Region, kernel: NativeKernel, array: np.ndarray) -> np.ndarray:
    """The anchor's constant operand as the kernel reads it, 1-D float32."""
    match kernel.anchor:
        case Product() as product:
            return packed_operand(region, product, array)
        case Convolution() as convolution:
            return packed_weights(convolution, array)
    raise AssertionError("the kernel has no anchor")
