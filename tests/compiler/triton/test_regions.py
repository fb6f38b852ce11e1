"""Random regions in checking mode: a few of those that tests.compiler.triton.regions makes, and planted errors."""

from __future__ import annotations

import pytest

from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.errors import ExecutionError
from tests.compiler.triton.regions import check_sample, made_sample, printed_sample

SEEDS = (1, 2, 3, 10, 94, 166)  # the last two are folds that programs share


@pytest.mark.parametrize("seed", SEEDS)
def test_a_region_computes_in_checking_mode_what_it_says(seed: int) -> None:
    made = made_sample(seed)
    check_sample(made, printed_sample(made))


PLANTED = (("in_rows = r <", "in_rows = r <="), ("tl.store(y0 + (", "tl.store(y0 + (1 + "))


@pytest.mark.parametrize(("old", "new"), PLANTED)
def test_writes_to_other_places_are_noticed(old: str, new: str) -> None:
    for seed in range(1, 60):
        made = made_sample(seed)
        kernel = printed_sample(made)
        if old in kernel.source and seed % 5 != 2:
            break
    with pytest.raises((AssertionError, ExecutionError), match=r"checking mode found|exceeds|out of place"):
        check_sample(made, PrintedKernel(kernel.source.replace(old, new), kernel.rule))
