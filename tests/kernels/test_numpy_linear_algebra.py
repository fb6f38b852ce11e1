"""det against ONNX Runtime and against a float64 product of eigenvalues."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.kernels.numpy.linear_algebra import det
from tests.kernels.single_node import run_node
from tests.tolerance import assert_close


@pytest.mark.parametrize("shape", [(3, 3), (2, 5, 5), (4, 1, 1), (0, 3, 3)])
def test_det(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    (expected,) = run_node("Det", [x], 1)
    got = det(x)
    assert got.dtype == np.float32 and got.shape == shape[:-2]
    assert_close(got, expected, accumulation=64)


def test_det_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="square"):
        det(np.zeros((2, 3)))
