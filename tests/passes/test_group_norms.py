"""Norms over groups of channels: exporters' spelling, and sums by channel in the place of sums by group."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import fusible
from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes.recompose import recompose
from fusible.passes.spread_group_norms import spread_group_norms
from tests.passes.checking import ops, random, run, tensor

RNG = np.random.default_rng(5)


def numbers(g: Graph, channels: int, dtype: DType = DType.F32) -> list[Value]:
    return [g.constant(RNG.standard_normal(channels).astype(dtype.numpy)) for _ in range(2)]


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64, DType.F16])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("shape", [(2, 8, 5), (1, 8, 6, 7), (2, 8, 3, 4, 5)])
def test_groups_are_summed_by_channel(groups: int, shape: tuple[int, ...], dtype: DType) -> None:
    g = Graph("test")
    x = tensor(g, shape, dtype=dtype)
    g.set_outputs([g.add("group_normalization", x, *numbers(g, 8, dtype), num_groups=groups, epsilon=1e-3)], ["y"])
    run(spread_group_norms, g, [random(shape, dtype) * dtype.numpy.type(3) + dtype.numpy.type(5)], 1)
    assert "group_normalization" not in ops(g) and ops(g).count("reduce_mean") == 4


def test_a_group_of_one_channel_is_an_instance() -> None:
    g = Graph("test")
    x = tensor(g, (2, 8, "h", "w"))
    g.set_outputs([g.add("group_normalization", x, *numbers(g, 8), num_groups=8)], ["y"])
    run(spread_group_norms, g, [random((2, 8, 5, 6))], 1)
    assert ops(g) == ["instance_normalization"]


def test_unknown_channels_stay() -> None:
    g = Graph("test")
    x = tensor(g, (2, "c", 6))
    scale, bias = (g.input(TensorType(DType.F32, x.type.shape[1:2]), n) for n in "sb")  # type: ignore[union-attr, index]
    g.set_outputs([g.add("group_normalization", x, scale, bias, num_groups=1)], ["y"])
    run(spread_group_norms, g, [random((2, 4, 6)), random((4,)), random((4,), seed=1)], 0)


@pytest.mark.parametrize(("grouped", "same"), [((2, 4, -1), True), ((2, 4, 6, 7), True), ((4, 2, -1), False)])
def test_reshapes_around_an_instance_are_groups(grouped: tuple[int, ...], same: bool) -> None:
    g = Graph("test")
    x = tensor(g, (2, 8, 3, 7))
    shape = tuple(d if d > 0 else 2 * 8 * 3 * 7 // int(np.prod([e for e in grouped if e > 0])) for d in grouped)
    normal = g.add("instance_normalization", g.add("reshape", x, shape=shape), *numbers(g, shape[1]), epsilon=1e-4)
    g.set_outputs([g.add("reshape", normal, shape=(2, 8, 3, 7))], ["y"])
    run(recompose(), g, [random((2, 8, 3, 7))], int(same))
    assert ("group_normalization" in ops(g)) is same


@pytest.mark.parametrize("target", ["cpu", "triton-cpu"])
def test_no_kernel_sums_a_row_again_for_each_element(target: str) -> None:
    """A fold over an axis that a view takes apart behind it is a kernel of its own."""
    nodes = [
        helper.make_node("Reshape", ["x", "rows"], ["a"]),
        helper.make_node("Softmax", ["a"], ["b"], axis=-1),
        helper.make_node("Reshape", ["b", "whole"], ["c"]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    shapes = {"rows": [4, -1], "whole": [4, 64, 32]}
    graph = helper.make_graph(
        nodes,
        "rows",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 64, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in shapes.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    exe = fusible.compile(model, target=target)
    x = random((4, 64, 32))
    (found,) = exe.run({"x": x}).values()
    (expected,) = fusible.compile(model, target="numpy").run({"x": x}).values()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)
    kernels = [row["kernel"] for row in exe.report.kernels]
    assert not any("softmax" in k and "relu" in k for k in kernels), kernels
    assert all(row["flops"] < 100 * x.size for row in exe.report.kernels)
