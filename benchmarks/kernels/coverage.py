"""Which op has a counterpart in which baseline, and why the others have none.

    python -m fusible.benchmarks.kernels.coverage [BASELINE...]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from fusible.benchmarks.kernels.cases import Case
from fusible.benchmarks.kernels.counterparts.protocol import (
    BASELINES,
    Baseline,
    BaselineError,
    NoCounterpart,
    find_baseline,
)
from fusible.benchmarks.kernels.values import operand_values
from fusible.benchmarks.kernels.written import written_cases
from fusible.compiler.ir.ops import OPS
from fusible.errors import FusibleError, UsageError

__all__ = ["NOWHERE", "main", "reasons"]

_NO_KERNEL = "it is no kernel: the session itself does it"
_OPTIONAL = "its operand or result may be absent, for which no baseline has a value"
_HALF = "half of non-maximum suppression, which is timed as a whole"
_OPTIMISER = "one step of an optimiser: ONNX Runtime has it for training only, torch none with ONNX's decay"

NOWHERE: Mapping[str, str] = MappingProxyType(
    {
        "adagrad": _OPTIMISER,
        "adam": _OPTIMISER,
        "momentum": _OPTIMISER,
        "conv_bytes": "passes make it of quantised convolutions, which are timed as conv_integer and qlinear_conv",
        "dims": "it writes sizes that a run has anyway; in a baseline they are a chain of Shape and Gather",
        "fail": _NO_KERNEL,
        "first_rows": _HALF,
        "fused": "it stands for a group of other ops, which are timed one by one",
        "if": _NO_KERNEL,
        "loop": _NO_KERNEL,
        "require": _NO_KERNEL,
        "suppressed_rows": _HALF,
        "optional": _OPTIONAL,
        "optional_get_element": _OPTIONAL,
        "optional_has_element": _OPTIONAL,
    }
)
"""Ops without a counterpart in any baseline, and the reason."""


def reasons(baseline: Baseline, cases: Iterable[Case]) -> dict[str, str]:
    """By op: "" if the baseline does one of the cases, else why it does not do the last of them."""
    found: dict[str, str] = {}
    for case in cases:
        if found.get(case.op) != "":
            found[case.op] = _reason(baseline, case)
    return found


def _reason(baseline: Baseline, case: Case) -> str:
    try:
        counterpart = baseline.build(case, operand_values(case, 0), 1)
        with counterpart.around():
            counterpart.results()
    except (NoCounterpart, BaselineError) as error:
        return str(error)
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print for each baseline the ops it has, and the others with the reason. Exit code 2 for wrong usage."""
    names = list(sys.argv[1:] if arguments is None else arguments) or list(BASELINES)
    cases = written_cases()
    own = sorted(op.name for op in OPS if not op.domain)
    try:
        for name in names:
            found = reasons(find_baseline(name), cases)
            having = [op for op in own if found.get(op) == ""]
            print(f"{name}: {len(having)} of {len(own)} ops have a counterpart; the others:")
            for op in own:
                if op not in having:
                    print(f"  {op}: {NOWHERE.get(op) or found.get(op, 'no case is written for it')}")
    except FusibleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
