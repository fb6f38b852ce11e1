"""What steps call of torch in the place of a kernel: a product of matrices or a convolution."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fusible.errors import DeviceError
from fusible.runtime.devices.convolution import TorchCall, TorchConvolution
from fusible.runtime.devices.device import Prepared, Span
from fusible.runtime.devices.torch_convolution import TorchConvolutionLaunch
from fusible.runtime.devices.torch_product import TorchProductLaunch

__all__ = ["torch_launch", "torch_on_cpu"]


def torch_launch(
    torch: Any,
    call: TorchCall,
    buffers: Sequence[Any],
    entered: Callable[[], AbstractContextManager[Any]],
    where: str,
) -> Prepared:
    """A call with its operands settled.

    buffers: for each of its places a tensor of bytes. entered: what makes the stream torch's. where: the step, for
    errors.
    """
    if isinstance(call, TorchConvolution):
        return TorchConvolutionLaunch(torch, call, buffers, entered, where)
    return TorchProductLaunch(torch, call, buffers, entered, where)


def torch_on_cpu(call: TorchCall, spans: Sequence[Span], where: str) -> Prepared:
    """The call over memory of the process. where: the step, for errors. Raises DeviceError if torch is not there."""
    try:
        import torch  # noqa: PLC0415 - optional, and slow to import
    except ImportError as error:
        what = "a convolution" if isinstance(call, TorchConvolution) else "a product"
        raise DeviceError(f"{where} is {what} by torch, which is not there: pip install torch") from error
    bytes_at = [(ctypes.c_uint8 * span.nbytes).from_address(span.address) for span in spans]
    buffers = [torch.frombuffer(found, dtype=torch.uint8) for found in bytes_at]
    return torch_launch(torch, call, buffers, nullcontext, where)
