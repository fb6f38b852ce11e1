"""The panel format: packing.py against its definition, panels.h against packing.py."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from fusible.kernels.cpu.packing import pack_panels, packed_size, panel_offset, panel_width, unpack_panels
from tests.kernels.cpu.harness import pointer
from tests.kernels.cpu.layers import guarded, random
from tests.kernels.cpu.variants import VARIANTS, compile_variant

SHAPES = [(1, 1), (3, 7), (5, 8), (4, 24), (9, 31), (13, 32), (6, 33), (17, 64), (2, 95), (21, 109)]

SOURCE = """
#include "panels.h"
long size(long depth, long columns) { return panels_size(depth, columns); }
void pack(const float *from, float *packed, long depth, long columns, long depth_stride, long column_stride) {
    struct panels_source source = {from, depth, columns, depth_stride, column_stride};
    for (long panel = 0; panel < panels_count(columns); panel++) panels_pack(&source, packed, panel);
}
"""


@pytest.mark.parametrize(("depth", "columns"), SHAPES)
def test_every_element_stands_where_the_format_says(depth: int, columns: int) -> None:
    matrix = random((depth, columns))
    packed = pack_panels(matrix)
    assert packed.shape == (packed_size(depth, columns),) and packed.dtype == np.float32
    seen = np.zeros(packed.size, dtype=bool)
    for k in range(depth):
        for column in range(columns):
            panel, inside = divmod(column, 32)
            place = panel_offset(depth, panel) + k * panel_width(columns, panel) + inside
            assert packed[place] == matrix[k, column]
            seen[place] = True
    assert not packed[~seen].any()
    np.testing.assert_array_equal(unpack_panels(packed, depth, columns), matrix)


def test_leading_axes_are_a_batch() -> None:
    matrices = random((2, 3, 5, 41))
    packed = pack_panels(matrices)
    np.testing.assert_array_equal(packed[1, 2], pack_panels(matrices[1, 2]))
    np.testing.assert_array_equal(unpack_panels(packed, 5, 41), matrices)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_an_empty_matrix_has_no_panels(shape: tuple[int, int]) -> None:
    assert pack_panels(np.zeros(shape, dtype=np.float32)).size == 0


def test_errors() -> None:
    with pytest.raises(ValueError, match="at least two axes"):
        pack_panels(np.zeros(3, dtype=np.float32))
    with pytest.raises(TypeError, match="float64"):
        pack_panels(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="have 24 floats"):
        unpack_panels(np.zeros(9, dtype=np.float32), 3, 3)
    with pytest.raises(TypeError, match="float64"):
        unpack_panels(np.zeros(24), 3, 3)
    with pytest.raises(ValueError, match="no panel 2"):
        panel_width(64, 2)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("depth", "columns"), SHAPES)
@pytest.mark.parametrize("layout", ["rows", "transposed", "spread"])
def test_packing_at_run_time_gives_the_same_panels(layout: str, depth: int, columns: int, variant: str) -> None:
    library = compile_variant(SOURCE, variant)
    matrix = random((depth, columns))
    strides = {"rows": (columns, 1), "transposed": (1, depth), "spread": (3, 3 * depth + 2)}[layout]
    held = np.full((depth - 1) * strides[0] + (columns - 1) * strides[1] + 1, np.nan, dtype=np.float32)
    view = np.lib.stride_tricks.as_strided(held, matrix.shape, [4 * s for s in strides])
    view[...] = matrix
    source = guarded(held)
    packed = guarded(np.full(packed_size(depth, columns), np.nan, dtype=np.float32))
    assert library.size(ctypes.c_long(depth), ctypes.c_long(columns)) == packed.size
    library.pack(pointer(source), pointer(packed), *map(ctypes.c_long, (depth, columns, *strides)))
    np.testing.assert_array_equal(packed, pack_panels(matrix))
