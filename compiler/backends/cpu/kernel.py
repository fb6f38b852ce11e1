"""A region as a native kernel: C text whose function name is free, and the operands that are packed beforehand."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from fusible.compiler.backends.attention import attention_of
from fusible.compiler.backends.cpu.c_attention import print_attention
from fusible.compiler.backends.cpu.c_band import Band, band_of, print_band
from fusible.compiler.backends.cpu.c_convolution import (
    Convolution,
    convolution_of,
    packed_weights,
    print_convolution,
)
from fusible.compiler.backends.cpu.c_dims import axes_in
from fusible.compiler.backends.cpu.c_gemm import Product, packed_operand, packed_type, print_product, product_of
from fusible.compiler.backends.cpu.c_parts import print_nest
from fusible.compiler.backends.cpu.c_ring import Ring, print_ring, ring_of
from fusible.compiler.backends.cpu.c_serial import Serial, check_serial, print_serial
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.cpu.precision import Arithmetic, Products
from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.region.region import Contract, Group, Load, Region
from fusible.compiler.region.sums import contractions_as_sums

__all__ = ["PLACEHOLDER", "NativeKernel", "NotPrintable", "Packing", "print_group", "print_region"]

_FEW_TERMS = 2**18  # beyond, NumPy's BLAS wins over plain loops

PLACEHOLDER = "fusible_kernel"
"""The name in the text, to be replaced by the kernel's own: equal regions have equal texts."""

_USUAL = Arithmetic()


@dataclass(frozen=True)
class Packing:
    """How the constant operand of a product or convolution is laid out for its kernel."""

    region: Region
    anchor: Product | Convolution

    @property
    def key(self) -> str:
        """Equal for equal layouts of one constant."""
        anchor = self.anchor
        layout: object = (anchor.rights, anchor.bf16) if isinstance(anchor, Product) else None
        if isinstance(anchor, Convolution):
            layout = anchor.kind, anchor.winograd, anchor.line, anchor.geometry
        return repr((self.region.stages[anchor.right], layout, self.region.extents))

    def known_type(self) -> tuple[tuple[int], np.dtype] | None:
        """The shape and type that `packed` gives, where that is known before."""
        return packed_type(self.region, self.anchor) if isinstance(self.anchor, Product) else None

    def packed(self, array: np.ndarray) -> np.ndarray:
        """The operand as the kernel reads it, 1-D float32 or bfloat16."""
        match self.anchor:
            case Product() as product:
                return packed_operand(self.region, product, array)
            case Convolution() as convolution:
                return packed_weights(convolution, array)


@dataclass(frozen=True)
class NativeKernel:
    """text: C that includes printed.h, for the function PLACEHOLDER. dims: what it takes besides buffers, shape symbols
    and numbers that were kept out of the text.

    packings: of the constant operands of products and convolutions, by input. anchor: what the kernel is built around.
    steps: the texts of kernels that it calls, by the names of `step_name`. products: what it multiplies, in which
    precision.
    """

    text: str
    dims: tuple[str | Dim, ...]
    anchor: Product | Convolution | Band | Ring | Serial | None = None
    packings: Mapping[int, Packing] = field(default_factory=dict)
    steps: tuple[str, ...] = ()
    products: Products = Products()


def print_region(
    region: Region,
    constants: Collection[int],
    arithmetic: Arithmetic = _USUAL,
    *,
    loops: bool = False,
    draft: bool = False,
) -> NativeKernel:
    """The kernel of a region; `constants`: inputs whose contents are known. Raises NotPrintable with the reason.

    loops: a contraction that no kernel takes may be printed as plain loops, if it has few terms. draft: as for
    `print_nest`.
    """
    if not region.contractions:
        return NativeKernel(*print_nest(region, PLACEHOLDER, draft=draft))
    if len(region.contractions) == 2:
        products = Products(0, ("attention: its operands are computed, not packed",) * 2)
        return NativeKernel(*print_attention(attention_of(region), PLACEHOLDER), products=products)
    try:
        return _anchored(region, constants, arithmetic)
    except NotPrintable:
        if not _has_one_column(region) and not (loops and _has_few_terms(region)):
            raise
        products = Products(0, ("plain loops",) * len(region.contractions))
        return NativeKernel(*print_nest(contractions_as_sums(region), PLACEHOLDER), products=products)


def _has_few_terms(region: Region) -> bool:
    terms = product(region.extents)
    return isinstance(terms, int) and terms <= _FEW_TERMS


def _has_one_column(region: Region) -> bool:
    """True for one contraction that reads nothing again for another column, so that blocks would save nothing.

    What is computed on the way to it must not be read again for other windows either.
    """
    if len(region.contractions) != 1:
        return False
    contract = region.stages[region.contractions[0]]
    assert isinstance(contract, Contract)
    single = {axis for axis, extent in enumerate(region.extents) if extent == 1}
    summed = single | set(contract.axes)
    if not any(region.spaces[value] <= summed for value in contract.args):
        return False
    loaded = {v for v, s in zip(region.first_values, region.stages, strict=True) if isinstance(s, Load)}
    plain = loaded.issuperset(contract.args)
    loads = [stage for stage in region.stages if isinstance(stage, Load)]
    return plain or not any(len(set(axes_in(c)) - single) > 1 for load in loads for c in load.map.components)


def _anchored(region: Region, constants: Collection[int], arithmetic: Arithmetic) -> NativeKernel:
    """The kernel of a region around a product or a convolution. Raises NotPrintable."""
    line = None if arithmetic.exact or arithmetic.bf16 else _along_lines(region, constants)
    if line is not None:
        with suppress(NotPrintable):
            text, dims = print_convolution(region, line, PLACEHOLDER)
            return NativeKernel(text, dims, line, {line.buffer: Packing(region, line)})
    try:
        anchor = product_of(region, constants, bf16=arithmetic.bf16)
        if anchor.batch is not None:
            with suppress(NotPrintable):
                return _convolution(region, constants, arithmetic, apart=True)
        packings = {} if anchor.computed else {anchor.buffer: Packing(region, anchor)}
        text, dims = print_product(region, anchor, PLACEHOLDER)
        products = Products(0, ("its operands are computed",)) if anchor.computed else Products(1)
        return NativeKernel(text, dims, anchor, packings, products=products)
    except NotPrintable as no_product:
        if len(region.inputs[0].shape) != 4 and not any(len(b.shape) == 4 for b in region.inputs):
            raise
        try:
            return _convolution(region, constants, arithmetic)
        except NotPrintable as no_convolution:
            raise NotPrintable(f"{no_product}; {no_convolution}") from no_convolution


def _convolution(
    region: Region, constants: Collection[int], arithmetic: Arithmetic, *, apart: bool = False
) -> NativeKernel:
    """The kernel of a region around a convolution. Raises NotPrintable.

    apart: only where image rows lie apart, for which a product would read its right operand once each.
    """
    found = convolution_of(region, constants, exact=arithmetic.exact, bf16=arithmetic.bf16)
    if apart and found.geometry.strides == (1, 1):
        raise NotPrintable("it is a product")
    text, dims = print_convolution(region, found, PLACEHOLDER)
    return NativeKernel(text, dims, found, {found.buffer: Packing(region, found)}, products=found.products)


def _along_lines(region: Region, constants: Collection[int]) -> Convolution | None:
    """The convolution, if it is best computed along lines. Without padding it would be a product of matrices too."""
    contract = region.stages[region.contractions[0]] if len(region.contractions) == 1 else None
    if not isinstance(contract, Contract) or len(contract.axes) < 2:
        return None
    try:
        found = convolution_of(region, constants)
    except NotPrintable:
        return None
    return found if found.line else None


def print_group(group: Group, constants: Collection[int], arithmetic: Arithmetic = _USUAL) -> NativeKernel:
    """The kernel of regions with buffers of their own between them. Raises NotPrintable."""
    reasons = []
    for printer in (_print_band, _print_ring, _print_serial):
        try:
            return printer(group, constants, arithmetic)
        except NotPrintable as refusal:
            reasons.append(str(refusal))
    raise NotPrintable("; ".join(reasons))


def _print_band(group: Group, constants: Collection[int], arithmetic: Arithmetic) -> NativeKernel:
    band = band_of(group, constants, exact=arithmetic.exact, bf16=arithmetic.bf16)
    text, dims = print_band(band, PLACEHOLDER)
    return NativeKernel(text, dims, band, _packings(band), products=_products(band))


def _print_ring(group: Group, constants: Collection[int], arithmetic: Arithmetic) -> NativeKernel:
    ring = ring_of(group, constants, bf16=arithmetic.bf16)
    text, dims = print_ring(ring, PLACEHOLDER)
    return NativeKernel(text, dims, ring, _packings(ring), products=_products(ring))


def _print_serial(group: Group, constants: Collection[int], arithmetic: Arithmetic) -> NativeKernel:
    serial = check_serial(group)
    steps: list[NativeKernel] = []
    packings: list[tuple[int, Packing]] = []
    plain: set[int] = set()
    for step in group.steps:
        known = [n for n, number in enumerate(step.inputs) if number in constants]
        kernel = print_region(step.region, known, arithmetic)
        steps.append(kernel)
        packings += [(step.inputs[buffer], packing) for buffer, packing in kernel.packings.items()]
        plain.update(number for n, number in enumerate(step.inputs) if n not in kernel.packings)
    text, dims = print_serial(serial, [kernel.dims for kernel in steps], PLACEHOLDER)
    products = Products.total(kernel.products for kernel in steps)
    texts = tuple(kernel.text for kernel in steps)
    return NativeKernel(text, dims, serial, _by_buffer(packings, plain), texts, products)


def _products(parts: Band | Ring) -> Products:
    """Of the convolutions of a chain."""
    return Products.total(anchor.products for anchor in parts.anchors)


def _packings(parts: Band | Ring) -> dict[int, Packing]:
    anchors = {id(anchor.nest.region): anchor.right for anchor in parts.anchors}
    plain = {
        stage.buffer
        for region in parts.regions
        for position, stage in enumerate(region.stages)
        if isinstance(stage, Load) and position != anchors.get(id(region))
    }
    return _by_buffer([(anchor.buffer, Packing(anchor.nest.region, anchor)) for anchor in parts.anchors], plain)


def _by_buffer(packings: Sequence[tuple[int, Packing]], plain: Collection[int]) -> dict[int, Packing]:
    """The packing of each input; `plain`: inputs that are read as they are.

    Raises NotPrintable if two parts of a kernel want one constant in two layouts.
    """
    found: dict[int, Packing] = {}
    for buffer, packing in packings:
        if found.setdefault(buffer, packing).key != packing.key or buffer in plain:
            raise NotPrintable("two of its parts read one constant, each in a layout of its own")
    return found
