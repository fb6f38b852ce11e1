"""Products of matrices by torch, over memory of a device: cuBLAS on a GPU, torch's own library on the CPU.

A step of this kind is one call in the session's stream, so that graphs capture it as they do kernels; a kernel that
computes what follows the product may be launched behind it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from fusible.errors import ExecutionError
from fusible.runtime.devices.device import Memory, Prepared
from fusible.runtime.devices.product import Matrix, TorchProduct

__all__ = ["InOrder", "TorchProductLaunch"]


class TorchProductLaunch(Prepared):
    """The call with its operands settled."""

    def __init__(
        self,
        torch: Any,
        product: TorchProduct,
        buffers: Sequence[Any],
        entered: Callable[[], AbstractContextManager[Any]],
        where: str,
    ) -> None:
        """Take torch, for each of the product's matrices a tensor of bytes, and what makes the stream torch's.

        where: the step, for errors.
        """
        self._torch, self._entered, self._product, self._where = torch, entered, product, where
        m, n, k = product.rows, product.columns, product.depth
        sizes = ((m, k), (k, n), (m, n), (m, n))
        left, right, self._result, *added = (
            _strided(torch, product, matrix, size, tensor)
            for matrix, size, tensor in zip(product.places, sizes, buffers, strict=False)
        )
        alone = product.batch == 1
        self._operands = (*added, left, right)
        if added:
            self._multiply = torch.addmm if alone else torch.baddbmm
        else:
            self._multiply = torch.mm if alone else torch.bmm

    def launch(self) -> None:
        """See Prepared."""
        with self._entered(), _precision(self._torch, self._product):
            try:
                self._multiply(*self._operands, out=self._result)
            except RuntimeError as error:  # of cuBLAS, or of memory that it wants
                raise ExecutionError(self._where, f"torch's product failed: {error}") from error


_SETTINGS = threading.Lock()  # they are the process's: sessions of other threads must not see what one call needs
_SHORT_SUMS = (
    "allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction", "allow_fp16_accumulation",
)  # fmt: skip


@contextmanager
def _precision(torch: Any, product: TorchProduct) -> Iterator[None]:
    """How cuBLAS reads float32 operands and adds up are settings of the process; for one call they are the product's.

    Code of the caller's that multiplies in another thread meanwhile is not kept from seeing them.
    """
    settings = torch.backends.cuda.matmul
    wanted: dict[str, str | bool] = {name: False for name in _SHORT_SUMS if hasattr(settings, name)}
    if product.dtype == "float32" and hasattr(settings, "fp32_precision"):
        wanted["fp32_precision"] = "tf32" if product.tf32 else "ieee"
    elif product.dtype == "float32":  # before torch 2.9; since then the two must not be mixed
        wanted["allow_tf32"] = product.tf32
    with _SETTINGS:
        before = {name: getattr(settings, name) for name in wanted}
        changed = {name: value for name, value in wanted.items() if before[name] != value}
        for name, value in changed.items():
            setattr(settings, name, value)
        try:
            yield
        finally:
            for name in changed:
                setattr(settings, name, before[name])


def _strided(torch: Any, product: TorchProduct, matrix: Matrix, size: tuple[int, int], tensor: Any) -> Any:
    whole = tensor.view(getattr(torch, product.dtype))
    if product.batch == 1:
        return whole.as_strided(size, (matrix.rows, matrix.columns), matrix.offset)
    return whole.as_strided((product.batch, *size), (matrix.batch, matrix.rows, matrix.columns), matrix.offset)


class InOrder(Prepared):
    """Launches one after the other, with memory that only they use."""

    def __init__(self, launches: Sequence[Prepared], memory: Memory | None) -> None:
        """Take launches and memory that must stay."""
        self._launches, self._memory = tuple(launches), memory

    def launch(self) -> None:
        """See Prepared."""
        for launch in self._launches:
            launch.launch()
