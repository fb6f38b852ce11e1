"""NumPy: the vectorised expression that a competent user would write. Not every op has one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

import numpy as np

from fusible.benchmarks.kernels.cases import Case
from fusible.benchmarks.kernels.counterparts import numpy_elementwise, numpy_layers, numpy_movement
from fusible.benchmarks.kernels.counterparts.forms import Form, Use
from fusible.benchmarks.kernels.counterparts.protocol import BaselineError, Counterpart, NoCounterpart

__all__ = ["FORMS", "System"]

FORMS: Mapping[str, Form] = MappingProxyType(
    {**numpy_elementwise.FORMS, **numpy_layers.FORMS, **numpy_movement.FORMS}
)


class System:
    """Threads are those of NumPy's BLAS, which whoever times has set."""

    device = "cpu"

    def __init__(self) -> None:
        self.version = np.__version__

    def build(self, case: Case, values: Sequence[Any], threads: int) -> Counterpart:
        """See `Baseline`."""
        form = FORMS.get(case.op)
        if form is None:
            raise NoCounterpart(f"no plain NumPy expression for {case.op}")
        try:
            call = form(Use(values, case))
            with _quiet():
                call()
        except (ValueError, TypeError, IndexError, ZeroDivisionError, OverflowError) as error:
            raise BaselineError(f"the NumPy expression for {case.op} fails: {error}") from error

        def results() -> Sequence[Any]:
            found = call()
            return found if isinstance(found, tuple) else (found,)

        return Counterpart(call, results, _quiet)


def _quiet() -> AbstractContextManager[object]:
    return np.errstate(all="ignore")
