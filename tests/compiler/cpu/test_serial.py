"""Small steps on vectors of channels as one kernel: squeeze-and-excitation, a classifier after a mean."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fusible
from tests.tolerance import assert_outputs_close


def excited(batch: int | str, size: int, channels: int, squeezed: int) -> onnx.ModelProto:
    """conv -> x; x * hard_sigmoid(w2 relu(w1 mean(x))) -> 1x1 conv -> mean -> gemm."""
    random = np.random.default_rng(8)

    def weight(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    weights = {"a": weight(channels, 3, 3, 3), "w1": weight(squeezed, channels, 1, 1), "b1": weight(squeezed, 1)[:, 0]}
    weights |= {"w2": weight(channels, squeezed, 1, 1), "c": weight(24, channels, 1, 1), "d": weight(10, 24)}
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "a"], ["a1"], pads=[1, 1, 1, 1]),
        node("HardSwish", ["a1"], ["a2"]),
        node("GlobalAveragePool", ["a2"], ["s0"]),
        node("Conv", ["s0", "w1", "b1"], ["s1"]),
        node("Relu", ["s1"], ["s2"]),
        node("Conv", ["s2", "w2"], ["s3"]),
        node("HardSigmoid", ["s3"], ["s4"]),
        node("Mul", ["a2", "s4"], ["e"]),
        node("Conv", ["e", "c"], ["c1"]),
        node("GlobalAveragePool", ["c1"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "d"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "excited",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


@pytest.mark.parametrize(
    ("batch", "size", "squeezed", "kernels"),
    [
        (1, 9, 12, 4),  # convolution, excitation, convolution of what it scales, classifier
        (1, 61, 12, 5),  # too many points for one thread: the means are kernels of their own
        (1, 9, 1300, 5),  # too many weights, of the first product
        (3, 9, 12, 7),  # matrices, not vectors
        ("n", 9, 12, 4),  # vectors, or matrices, for which all threads are called
    ],
)
def test_squeeze_and_excitation(batch: int | str, size: int, squeezed: int, kernels: int) -> None:
    model = excited(batch, size, 57, squeezed)
    exe = fusible.compile(model, target="cpu", options=fusible.Options(threads=2))
    names = [row["kernel"] for row in exe.report.kernels]
    oracle = fusible.compile(model, target="numpy")
    for count in (2, 0, 1, 100) if isinstance(batch, str) else (batch,):
        x = np.random.default_rng(9).standard_normal((count, 3, size, size)).astype(np.float32)
        assert_outputs_close(exe.run({"x": x}), oracle.run({"x": x}))
    assert exe.report.host == () and len(names) == kernels, names
