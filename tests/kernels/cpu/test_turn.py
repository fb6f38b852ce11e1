"""Squares of turn.h: rows and columns change places, at every width."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.cpu.harness import pointer
from tests.kernels.cpu.layers import guarded, random
from tests.kernels.cpu.variants import VARIANTS, compile_variant

SOURCE = """
#include "turn.h"

long width(void) { return VL; }
void turn(const float *from, float *to) {
    vf square[VL];
    for (int row = 0; row < VL; row++) square[row] = vf_load(from + row * VL);
    vf_turn(square);
    for (int row = 0; row < VL; row++) vf_store(to + row * VL, square[row]);
}
"""


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_become_columns(variant: str) -> None:
    library = compile_variant(SOURCE, variant)
    width = int(library.width())
    square = guarded(random((width, width), width))
    turned = guarded(np.full_like(square, np.nan))
    library.turn(pointer(square), pointer(turned))
    np.testing.assert_array_equal(turned, square.T)
