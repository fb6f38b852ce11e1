"""Convolutions by torch, over memory of a device: cuDNN on a GPU, torch's own library on the CPU.

On a GPU the result is written where it belongs, in the session's stream, by `aten::cudnn_convolution.out`. It takes as
arguments what else are settings of the process: algorithms are chosen by cuDNN's heuristics, not by timing, and only
those that give the same bits in every run. What cuDNN works in comes from torch's allocator: in a captured graph from
that graph's own memory. An image or a weight whose channels are not adjacent is copied there first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from fusible.errors import ExecutionError
from fusible.runtime.devices.convolution import Placed, TorchConvolution
from fusible.runtime.devices.device import Prepared

__all__ = ["TorchConvolutionLaunch"]


class TorchConvolutionLaunch(Prepared):
    """The call with its operands settled."""

    def __init__(
        self,
        torch: Any,
        convolution: TorchConvolution,
        buffers: Sequence[Any],
        entered: Callable[[], AbstractContextManager[Any]],
        where: str,
    ) -> None:
        """Take torch, for each of the convolution's places a tensor of bytes, and what makes the stream torch's.

        where: the step, for errors.
        """
        self._torch, self._entered, self._convolution, self._where = torch, entered, convolution, where
        self._image, self._weight, self._result = (
            _placed(torch, convolution.dtype, place, tensor)
            for place, tensor in zip(convolution.places, buffers, strict=True)
        )

    def launch(self) -> None:
        """See Prepared."""
        run = self._by_cudnn if self._image.is_cuda else self._on_cpu
        with self._entered():
            try:
                run()
            except RuntimeError as error:  # of cuDNN, or of memory that it wants
                raise ExecutionError(self._where, f"torch's convolution failed: {error}") from error

    def _by_cudnn(self) -> None:
        """With a window of two dimensions at least, which is what cuDNN has."""
        of = self._convolution
        strides, dilations, pads = list(of.strides), list(of.dilations), list(of.pads)
        tensors = [self._image, self._weight, self._result]
        if len(strides) == 1:
            strides, dilations, pads = [1, *strides], [1, *dilations], [0, *pads]
            tensors = [tensor.unsqueeze(2) for tensor in tensors]
        image, weight, result = tensors
        self._torch.ops.aten.cudnn_convolution.out(
            image, weight, pads, strides, dilations, of.groups,
            benchmark=False, deterministic=True, allow_tf32=of.tf32, out=result,
        )  # fmt: skip

    def _on_cpu(self) -> None:
        """In f32, and rounded to the element type once."""
        torch, of = self._torch, self._convolution
        image, weight = self._image.to(torch.float32), self._weight.to(torch.float32)
        none = [0] * len(of.strides)
        found = torch.convolution(
            image, weight, None, list(of.strides), list(of.pads), list(of.dilations), False, none, of.groups
        )
        self._result.copy_(found)


def _placed(torch: Any, dtype: str, place: Placed, tensor: Any) -> Any:
    return tensor.view(getattr(torch, dtype)).as_strided(place.sizes, place.steps, place.offset)
