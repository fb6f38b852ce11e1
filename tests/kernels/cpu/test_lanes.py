"""Strided loads and stores of lanes.h: only their own elements are read and written, beside unreadable pages."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from tests.kernels.cpu.harness import pointer
from tests.kernels.cpu.layers import guarded, random
from tests.kernels.cpu.variants import VARIANTS, compile_variant

STEPS = (1, 2, 3)


def source(step: int) -> str:
    """A copy of `n` elements between places `step` apart and adjacent ones, a vector at a time; the step is literal."""
    copy = "for (long i = 0; i < n; i += VL) {{ long lanes = long_min(VL, n - i); {0}; }}"
    load = f"vf_store_first(to + i, vf_load_step(from + {step} * i, {step}, lanes), lanes)"
    store = f"vf_store_step(to + {step} * i, {step}, vf_load_first(from + i, lanes), lanes)"
    functions = (
        f"void {n}(const float *from, float *to, long n) {{ {copy.format(c)} }}"
        for n, c in (("gather", load), ("scatter", store))
    )
    return "\n".join(['#include "lanes.h"', *functions])


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_strided_vectors_touch_their_own_elements_alone(variant: str, step: int) -> None:
    library = compile_variant(source(step), variant)
    for n in range(1, 40):
        near, far = guarded(random((n,), n)), guarded(random(((n - 1) * step + 1,), n))
        gathered = guarded(np.full(n, np.nan, np.float32))
        library.gather(pointer(far), pointer(gathered), ctypes.c_long(n))
        np.testing.assert_array_equal(gathered, far[::step])
        expected = far.copy()
        expected[::step] = near
        for front in (False, True):
            scattered = guarded(far, front)
            library.scatter(pointer(near), pointer(scattered), ctypes.c_long(n))
            np.testing.assert_array_equal(scattered, expected)
