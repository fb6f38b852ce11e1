"""A region as a native kernel: C text whose function name is free, and the operands that are packed beforehand."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fusible.compiler.backends.cpu.c_gemm import Product, print_product, product_of
from fusible.compiler.backends.cpu.c_nest import print_nest
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.region.region import Region

__all__ = ["PLACEHOLDER", "NativeKernel", "NotPrintable", "print_region"]

PLACEHOLDER = "fusible_kernel"
"""The name in the text, to be replaced by the kernel's own: equal regions have equal texts."""


@dataclass(frozen=True)
class NativeKernel:
    """text: C that includes printed.h, for the function PLACEHOLDER. symbols: shape symbols, in the order of `dims`."""

    text: str
    symbols: tuple[str, ...]
    product: Product | None = None


def print_region(region: Region, constants: Collection[int]) -> NativeKernel:
    """The kernel of a region; `constants`: inputs whose contents are known. Raises NotPrintable with the reason."""
    if region.contractions:
        product = product_of(region, constants)
        text, symbols = print_product(region, product, PLACEHOLDER)
        return NativeKernel(text, symbols, product)
    text, symbols = print_nest(region, PLACEHOLDER)
    return NativeKernel(text, symbols)
