"""What a convolution by a library is, as plain data: its window, and where its operands and its result lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from fusible.runtime.devices.facts import Facts, damaged
from fusible.runtime.devices.product import TorchProduct

__all__ = ["Placed", "TorchCall", "TorchConvolution", "torch_call_from_json"]

_RANKS = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor inside an argument: offset and steps count elements.

    argument: the position of its buffer among the kernel's arguments. sizes, steps: as torch has its dimensions.
    """

    argument: int
    offset: int
    sizes: tuple[int, ...]
    steps: tuple[int, ...]

    @staticmethod
    def from_json(data: Mapping[str, Any], buffers: int, rank: int) -> Placed:
        """What `asdict` and JSON made of one. buffers: how many arguments it may be in. Raises ArtifactError."""
        facts = Facts.of("a tensor of a convolution", data)
        facts.only([f.name for f in fields(Placed)])
        place = facts.position("argument", buffers), facts.number("offset")
        return Placed(*place, facts.numbers("sizes", rank, 1), facts.numbers("steps", rank))


@dataclass(frozen=True, slots=True)
class TorchConvolution:
    """result = convolution of image and weight, as torch.nn.functional.conv1d, conv2d, conv3d have it; no bias.

    image, result: [batch, channels, sizes...], in memory mostly with the channels last; weight: [channels of result,
    channels of image / groups, window...]. dtype: torch's name of the element type of all three; sums are held in
    f32 and rounded to it once. strides, dilations, pads: a number for each dimension of the window; as many zeros stand
    behind an image as before it. tf32, scratch: as of a `TorchProduct`.
    """

    dtype: str
    image: Placed
    weight: Placed
    result: Placed
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int = 1
    tf32: bool = False
    scratch: int = 0

    @property
    def places(self) -> tuple[Placed, ...]:
        """Image, weight and result."""
        return (self.image, self.weight, self.result)

    @staticmethod
    def from_json(data: Mapping[str, Any], buffers: int) -> TorchConvolution:
        """What `asdict` and JSON made of one. buffers: how many of the kernel's arguments are. Raises ArtifactError."""
        facts = Facts.of("a convolution", data)
        facts.only([f.name for f in fields(TorchConvolution)])
        rank = len(facts.items("strides"))
        if rank not in _RANKS:
            raise damaged(facts.what, f"its window has {rank} dimensions")
        image, weight, result = (
            Placed.from_json(facts.get(name), buffers, rank + 2) for name in ("image", "weight", "result")
        )
        window = facts.numbers("strides", rank, 1), facts.numbers("dilations", rank, 1), facts.numbers("pads", rank)
        rest = facts.number("groups", 1), facts.flag("tf32"), facts.number("scratch")
        return TorchConvolution(facts.text("dtype"), image, weight, result, *window, *rest)


TorchCall: TypeAlias = TorchProduct | TorchConvolution
"""What torch may compute in the place of a kernel, or before one."""


def torch_call_from_json(data: Mapping[str, Any], buffers: int) -> TorchCall:
    """What `asdict` and JSON made of one. buffers: how many of the kernel's arguments are. Raises ArtifactError."""
    has_window = "strides" in Facts.of("a call of torch", data).fields
    return (TorchConvolution if has_window else TorchProduct).from_json(data, buffers)
