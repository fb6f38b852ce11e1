"""torch on the CPU, eager: the function of torch or torch.nn.functional that a user would call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import torch

from fusible.benchmarks.kernels.cases import Case
from fusible.benchmarks.kernels.counterparts import torch_elementwise, torch_layers, torch_movement, torch_recurrent
from fusible.benchmarks.kernels.counterparts.forms import Form, Use
from fusible.benchmarks.kernels.counterparts.protocol import BaselineError, Counterpart, NoCounterpart

__all__ = ["FORMS", "System"]

FORMS: Mapping[str, Form] = MappingProxyType(
    {**torch_elementwise.FORMS, **torch_layers.FORMS, **torch_movement.FORMS, **torch_recurrent.FORMS}
)


class System:
    """Calls are made in inference mode, with so many threads within an operation as the benchmark asks for."""

    device = "cpu"

    def __init__(self) -> None:
        self.version = str(torch.__version__)

    def build(self, case: Case, values: Sequence[Any], threads: int) -> Counterpart:
        """See `Baseline`."""
        form = FORMS.get(case.op)
        if form is None:
            raise NoCounterpart(f"torch has no function for {case.op}")
        torch.set_num_threads(threads)
        with torch.inference_mode():
            try:
                call = form(Use([_tensor(value) for value in values], case))
                call()
            except NotImplementedError as error:
                raise NoCounterpart(f"torch has no kernel for these types: {_first_line(error)}") from error
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                lacking = "not implemented for" in str(error)
                kind = NoCounterpart if lacking else BaselineError
                raise kind(f"torch fails on {case.op}: {_first_line(error)}") from error

        def results() -> Sequence[Any]:
            found = call()
            return [_array(one) for one in found] if isinstance(found, tuple) else [_array(found)]

        return Counterpart(call, results, _inference)


def _inference() -> AbstractContextManager[object]:
    context: AbstractContextManager[object] = torch.inference_mode()
    return context


def _tensor(value: Any) -> Any:
    """A tensor of its own memory. Raises NoCounterpart for element types that torch lacks."""
    if value is None:
        return None
    if isinstance(value, list):
        return [_tensor(element) for element in value]
    if value.dtype == object:
        raise NoCounterpart("torch has no strings")
    if value.dtype.name == "bfloat16":
        return torch.from_numpy(value.view(np.int16).copy()).view(torch.bfloat16)
    try:
        return torch.from_numpy(np.array(value))
    except TypeError as error:
        raise NoCounterpart(f"torch has no elements of type {value.dtype}") from error


def _array(result: Any) -> Any:
    if isinstance(result, list):
        return [_array(element) for element in result]
    if not isinstance(result, torch.Tensor):
        return np.asarray(result)
    if result.dtype is torch.bfloat16:
        return result.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return result.contiguous().numpy()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
