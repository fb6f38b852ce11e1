"""fuse-regions: what a group knows of its operands."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

import fusible

POSITIONS = """
<ir_version: 10, opset_import: ["" : 21]> g (float[rows, columns] x) => (float y) {
    zero = Constant<value_int=0>()
    one = Constant<value_int=1>()
    shape = Shape(x)
    count = Gather(shape, zero)
    numbers = Range(zero, count, one)
    floats = Cast<to=1>(numbers)
    last = Constant<value_ints=[1]>()
    column = Unsqueeze(floats, last)
    y = Add(x, column)
}
"""


@pytest.mark.parametrize("target", ("cpu", "triton-cpu"))
def test_a_range_to_a_symbol_keeps_its_extent_in_a_group(target: str) -> None:
    model = onnx.parser.parse_model(POSITIONS)
    exe = fusible.compile(model, target=target, options=fusible.Options(verify="passes"))
    assert any("range" in row["reason"] for row in exe.report.fusions), exe.report.fusions
    for rows in (1, 3):
        x = np.ones((rows, 2), np.float32)
        np.testing.assert_array_equal(exe(x)[0], x + np.arange(rows, dtype=np.float32)[:, None])
