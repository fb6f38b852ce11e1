"""Tiles in scratch memory: arrays that are alive at once never overlap, and others share."""

from __future__ import annotations

import re
from itertools import combinations

import pytest

from fusible.compiler.backends.triton.from_triton import ttir_of
from fusible.compiler.backends.triton.lower import lower_ttir
from fusible.compiler.backends.triton.scratch import lifetimes, place
from tests.compiler.triton import kernels

_DECLARED = re.compile(r"(\w+) \*restrict const (t\d+) = \(\w+ \*\)\(scratch \+ (\d+)\);")

LOOP = [
    "float *t1 = 0;",
    "t1[0] = 0;",
    "for (;;) {",
    "    float *t2 = 0;",
    "    t2[0] = t1[0];",
    "    float *t3 = 0;",
    "    t3[0] = t2[0];",
    "    float *t4 = 0;",
    "    t4[0] = t3[0];",
    "}",
    "float *t5 = 0;",
    "t5[0] = 1;",
]


def test_what_a_loop_reads_lives_to_its_end() -> None:
    sizes = dict.fromkeys(("t1", "t2", "t3", "t4", "t5"), 64)
    assert lifetimes(LOOP, sizes) == {"t1": (0, 9), "t2": (3, 6), "t3": (5, 8), "t4": (7, 8), "t5": (10, 11)}
    assert place(LOOP, sizes) == ({"t1": 0, "t2": 64, "t3": 128, "t4": 64, "t5": 0}, 192)


def test_sizes_are_rounded_and_gaps_are_used() -> None:
    lines = ["t1", "t2", "t3 t1 t3", "t2", "t4", "t3 t4"]
    assert place(lines, {"t1": 100, "t2": 1, "t3": 10, "t4": 100}) == ({"t1": 0, "t2": 128, "t3": 192, "t4": 0}, 256)


@pytest.mark.parametrize("checked", [False, True], ids=["plain", "checked"])
def test_no_two_arrays_of_a_kernel_overlap(checked: bool) -> None:
    kinds = {**dict.fromkeys(("q", "k", "v", "out"), "*fp16"), "T": "i32", "scale": "fp32"}
    text = ttir_of(kernels.flash_attention, kinds, {"D": 16, "BM": 16, "BN": 16})
    lowered = lower_ttir(text, checked=checked)
    lines = lowered.source.splitlines()
    starts = {name: int(offset) for line in lines for _, name, offset in _DECLARED.findall(line)}
    alive = lifetimes(lines, dict.fromkeys(starts, 0))
    assert len(starts) > 12
    for one, other in combinations(starts, 2):
        if alive[one][0] <= alive[other][1] and alive[other][0] <= alive[one][1]:
            assert starts[one] != starts[other], (one, other)
