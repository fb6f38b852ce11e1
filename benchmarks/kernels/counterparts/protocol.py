"""What a baseline must offer for a case: a call without arguments, and its results as NumPy arrays."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from fusible.benchmarks.kernels.cases import Case
from fusible.errors import FusibleError, UsageError

__all__ = ["BASELINES", "Baseline", "BaselineError", "Counterpart", "NoCounterpart", "find_baseline"]


class NoCounterpart(FusibleError):
    """A baseline has nothing that does what the case does, or is not installed."""


class BaselineError(FusibleError):
    """A baseline has the op, but fails on the case."""


@dataclass(frozen=True)
class Counterpart:
    """The baseline's way to do a case.

    call: one call, as a user would make it; results: what a call gives, as NumPy arrays (lists for sequences). around:
    a context in which calls are made.
    """

    call: Callable[[], object]
    results: Callable[[], Sequence[Any]]
    around: Callable[[], AbstractContextManager[object]] = nullcontext


class Baseline(Protocol):
    """A system to compare with. Its module is imported when it is asked for. device: where it computes."""

    version: str
    device: str

    def build(self, case: Case, values: Sequence[Any], threads: int) -> Counterpart:
        """Prepare a case. values: an array (list, None) for each operand.

        Raises NoCounterpart if the baseline lacks it, BaselineError if it fails.
        """


# name -> (module with a class `System` that is a Baseline, what to install)
BASELINES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "numpy": ("numpy_baseline", "numpy"),
        "torch": ("torch_baseline", "torch"),
        "onnxruntime": ("onnxruntime_baseline", "onnxruntime"),
    }
)


def find_baseline(name: str) -> Baseline:
    """Import a baseline, and with it the system. Raises UsageError if it is unknown, NoCounterpart if not installed."""
    if name not in BASELINES:
        raise UsageError(f"no baseline is called {name!r}; there are {', '.join(BASELINES)}")
    module, package = BASELINES[name]
    try:
        found = importlib.import_module(f"fusible.benchmarks.kernels.counterparts.{module}")
    except ImportError as error:
        raise NoCounterpart(f"{name} is not installed ({error}); pip install {package}") from error
    system: Baseline = found.System()
    return system
