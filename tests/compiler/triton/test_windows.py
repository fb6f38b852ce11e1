"""Poolings in front of a product are part of its kernel, where no other block of it would fold the windows again."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fusible
from fusible.runtime.plan import Launch
from tests.runtime import models
from tests.tolerance import assert_outputs_close

FLOAT = TensorProto.FLOAT


def pooled(pool: str, channels: int, **attributes: object) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    weights = {
        n: (random.standard_normal(s) / 4).astype(np.float32)
        for n, s in (("v", (16, 3, 3, 3)), ("w", (channels, 16, 1, 1)))
    }
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["a"], name="first"),
        helper.make_node(pool, ["a"], ["p"], name="pool", **attributes),
        helper.make_node("Conv", ["p", "w"], ["y"], name="second"),
    ]
    model = models.make(nodes, [models.value("x", FLOAT, [1, 3, 15, 15])], ["y"], weights)
    return model, {"x": random.standard_normal((1, 3, 15, 15)).astype(np.float32)}


@pytest.mark.parametrize(
    ("pool", "channels", "attributes", "kernels"),
    [
        ("MaxPool", 12, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, 2),
        ("AveragePool", 16, {"kernel_shape": [2, 2], "strides": [2, 2]}, 2),
        ("MaxPool", 96, {"kernel_shape": [3, 3], "strides": [2, 2]}, 3),  # several blocks of columns
        ("MaxPool", 16, {"kernel_shape": [4, 4], "strides": [2, 2]}, 3),  # many points
    ],
)
def test_windows_are_read_by_the_product(pool: str, channels: int, attributes: dict[str, object], kernels: int) -> None:
    model, given = pooled(pool, channels, **attributes)
    exe = fusible.compile(model, target="triton-cpu", options=fusible.Options(threads=2, verify="kernels"))
    assert len([s for s in exe.plan.steps if isinstance(s, Launch)]) == kernels
    assert_outputs_close(exe.run(given), fusible.compile(model, target="numpy").run(given))
