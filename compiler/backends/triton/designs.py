"""Kernels before their sizes are chosen: what the static model chooses, what a tuner may try, and how it is printed.

A schedule goes into a lockfile as a configuration: its numbers by name. `configured` is the way back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Generic, TypeVar

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.attention import attention_in, print_attention
from fusible.compiler.backends.triton.contraction import Contraction, contraction_of
from fusible.compiler.backends.triton.contraction_printer import print_product, sizes_of
from fusible.compiler.backends.triton.dequantised import whole_depth
from fusible.compiler.backends.triton.f32_products import IEEE
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.library_convolution import print_library_convolution
from fusible.compiler.backends.triton.library_product import is_large, print_library_product
from fusible.compiler.backends.triton.printer import PrintedKernel, print_region
from fusible.compiler.backends.triton.schedule import Form, Schedule, schedule
from fusible.compiler.backends.triton.schedule_attention import AttentionSchedule, schedule_attention
from fusible.compiler.backends.triton.schedule_candidates import (
    attention_candidates,
    contraction_candidates,
    region_candidates,
)
from fusible.compiler.backends.triton.schedule_contraction import ContractionSchedule, schedule_contraction
from fusible.compiler.region.region import Region
from fusible.compiler.region.reorder import Order
from fusible.compiler.tuning import Config

__all__ = [
    "LIBRARY",
    "AnyDesign",
    "AnySchedule",
    "AttentionDesign",
    "Design",
    "ProductDesign",
    "RegionDesign",
    "config_of",
    "configured",
]

LIBRARY: Config = MappingProxyType({"library": "torch"})
"""The configuration of what torch multiplies or convolves."""

AnySchedule = Schedule | ContractionSchedule | AttentionSchedule
S = TypeVar("S", Schedule, ContractionSchedule, AttentionSchedule)

_POWERS = frozenset({"rows", "columns", "keys", "block_m", "block_n", "block_k", "warps", "slices"})
_MOST = {"warps": 32, "stages": 8, "split": 64}
_FEWEST = {"wave": 0}
_SIDES = frozenset({"block_m", "block_n", "block_k", "keys"})  # of products of tiles
_LEAST_SIDE = 16
_MOST_POINTS = 2**20  # of a tile, which is Triton's own limit


class Design(ABC, Generic[S]):
    """A region and the kind of kernel that it becomes."""

    kind: str
    """What kind: configurations of one mean nothing to another."""
    precision: str
    """How it multiplies f32 (`f32_products`)."""

    @abstractmethod
    def static(self) -> S:
        """What the static model chooses. Raises NotPrintable."""

    @abstractmethod
    def candidates(self) -> list[S]:
        """What a tuner may try, the static model's choice first; some may not be printable."""

    @abstractmethod
    def printed(self, schedule: S) -> PrintedKernel:
        """The kernel by a schedule. Raises NotPrintable."""

    def static_config(self) -> Config:
        """The static model's choice as a configuration. Raises NotPrintable."""
        return config_of(self.static())

    def configs(self) -> list[Config]:
        """The candidates as configurations. Raises NotPrintable."""
        return [config_of(schedule) for schedule in self.candidates()]

    def by_static(self) -> PrintedKernel:
        """The kernel by the static model's choice. Raises NotPrintable."""
        return self.printed(self.static())

    def by_config(self, config: Config) -> PrintedKernel:
        """The kernel by a configuration. Raises NotPrintable, ValueError for one that cannot be."""
        return self.printed(configured(self.static(), config))


@dataclass(frozen=True)
class RegionDesign(Design[Schedule]):
    """A region without contractions, which are sums where there were any.

    repacked, packed: as of the kernel.
    """

    region: Region
    target: GpuTarget
    repacked: Mapping[int, Order] = field(default_factory=dict)
    packed: Mapping[int, int] = field(default_factory=dict)
    kind = "region"
    precision = IEEE

    def static(self) -> Schedule:
        """See Design."""
        return schedule(self.region, self.target)

    def candidates(self) -> list[Schedule]:
        """See Design."""
        return region_candidates(self.region, self.target)

    def printed(self, schedule: Schedule) -> PrintedKernel:
        """See Design."""
        return replace(print_region(self.region, schedule), repacked=self.repacked, packed=self.packed)


@dataclass(frozen=True)
class ProductDesign(Design[ContractionSchedule]):
    """A contraction by a template for products.

    packed: as of the kernel. region, constants: what the contraction was made of, for torch's convolutions.
    """

    contraction: Contraction
    target: GpuTarget
    precision: str
    packed: Mapping[int, int]
    region: Region
    constants: frozenset[int]
    kind = "product"

    def static(self) -> ContractionSchedule:
        """See Design."""
        sizes, kind = sizes_of(self.contraction), self.contraction.kind
        return self._own(schedule_contraction(sizes, kind, self.precision, self.target))

    def candidates(self) -> list[ContractionSchedule]:
        """See Design."""
        sizes, kind = sizes_of(self.contraction), self.contraction.kind
        found = contraction_candidates(sizes, kind, self.precision, self.target)
        return list(dict.fromkeys(map(self._own, found)))

    def printed(self, schedule: ContractionSchedule) -> PrintedKernel:
        """See Design."""
        return replace(print_product(self.contraction, schedule, self.precision), packed=self.packed)

    def _own(self, schedule: ContractionSchedule) -> ContractionSchedule:
        """The schedule, or of a product in halves what its template takes."""
        return schedule if self.contraction.half is None else whole_depth(schedule)

    def configs(self) -> list[Config]:
        """See Design: torch competes for large products and convolutions."""
        static, *others = super().configs()
        return [static, *([LIBRARY] if is_large(self.contraction) else []), *others]

    def by_config(self, config: Config) -> PrintedKernel:
        """See Design."""
        if "library" not in config:
            return super().by_config(config)
        if config != LIBRARY:
            raise ValueError(f"the only library there is is {dict(LIBRARY)}")
        try:
            return print_library_product(self.contraction, self.target, self.precision)
        except NotPrintable as no_product:
            return self._convolution(no_product)

    def _convolution(self, no_product: NotPrintable) -> PrintedKernel:
        """By torch's convolution, where its product does not do. Raises NotPrintable, with both reasons."""
        try:
            contraction = contraction_of(self.region, self.constants, phases=False)
            return print_library_convolution(contraction, self.constants, self.target, self.precision)
        except NotPrintable as refusal:
            raise NotPrintable(f"{no_product}; as a convolution: {refusal}") from refusal


@dataclass(frozen=True)
class AttentionDesign(Design[AttentionSchedule]):
    """A region that is attention."""

    region: Region
    target: GpuTarget
    precision: str
    kind = "attention"

    def static(self) -> AttentionSchedule:
        """See Design."""
        attention, dtype, _ = attention_in(self.region)
        return schedule_attention(attention, dtype, self.target, self.precision)

    def candidates(self) -> list[AttentionSchedule]:
        """See Design."""
        attention, dtype, _ = attention_in(self.region)
        return attention_candidates(attention, dtype, self.target, self.precision)

    def printed(self, schedule: AttentionSchedule) -> PrintedKernel:
        """See Design."""
        return print_attention(self.region, self.target, schedule, precision=self.precision)


AnyDesign = RegionDesign | ProductDesign | AttentionDesign


def config_of(schedule: AnySchedule) -> Config:
    """The numbers of a schedule by name; of an enum its value."""
    return {name: value.value if isinstance(value, Enum) else value for name, value in asdict(schedule).items()}


def configured(static: S, config: Config) -> S:
    """A schedule with the numbers of a configuration; what it does not mention is as in the static choice.

    Raises ValueError, which says what cannot be.
    """
    known = config_of(static)
    for name, value in config.items():
        if name not in known:
            raise ValueError(f"it has no {name}, but {', '.join(known)}")
        if type(value) is not type(known[name]):
            raise ValueError(f"{name} is {value!r}, and {known[name]!r} is of the kind expected")
        _check(name, value)
    sides = [config.get(name) for name in ("rows", "columns", "block_m", "block_n")]
    points = [side for side in sides if isinstance(side, int)]
    if _product(points) > _MOST_POINTS:
        raise ValueError(f"its tile of {' x '.join(map(str, points))} has more than {_MOST_POINTS} points")
    found: dict[str, object] = dict(config)
    if "form" in found:
        try:
            found["form"] = Form(found["form"])
        except ValueError as error:
            raise ValueError(f"form is none of {', '.join(f.value for f in Form)}: {found['form']!r}") from error
    return replace(static, **found)  # type: ignore[arg-type]  # the kinds were compared


def _check(name: str, value: object) -> None:
    """Raise ValueError for a number that no kernel can have."""
    if not isinstance(value, int) or isinstance(value, bool) or name == "across" or (name, value) == ("wave", 0):
        return
    least = _FEWEST.get(name, 1)
    if value < least or value > _MOST.get(name, _MOST_POINTS):
        raise ValueError(f"{name} is {value}, no number from {least} to {_MOST.get(name, _MOST_POINTS)}")
    if name in _POWERS and value & (value - 1):
        raise ValueError(f"{name} is {value}, no power of two")
    if name in _SIDES and value < _LEAST_SIDE:
        raise ValueError(f"{name} is {value}, and products of tiles take at least {_LEAST_SIDE}")


def _product(points: Sequence[int]) -> int:
    found = 1
    for each in points:
        found *= each
    return found
