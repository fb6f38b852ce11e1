"""The memory of native kernels: results that take an operand's place, and an order of steps that keeps little alive."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fusible
from fusible.compiler.backends.cpu import backend
from fusible.runtime.executable import Executable
from fusible.runtime.plan import Launch
from tests.tolerance import assert_outputs_close

FLOAT = TensorProto.FLOAT


def model(
    nodes: list[onnx.NodeProto], shape: tuple[int, ...], output: str, weights: dict[str, tuple[int, ...]]
) -> onnx.ModelProto:
    random = np.random.default_rng(5)
    constants = [
        numpy_helper.from_array((random.standard_normal(s) / np.sqrt(np.prod(s[1:]))).astype(np.float32), name)
        for name, s in weights.items()
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "m", [value("x", FLOAT, shape)], [value(output, FLOAT, None)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def residual_convolutions(channels: int, side: int) -> onnx.ModelProto:
    """r + f(r) by every kind of convolution, each sum in its residual's place."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["r0"])]
    weights: dict[str, tuple[int, ...]] = {"w": (channels, 3, 1, 1)}
    kinds = [(1, 1), (3, 1), (3, channels), (5, 1), (5, channels)]
    for n, (size, groups) in enumerate(kinds):
        weights |= {f"u{n}": (channels, channels, 1, 1), f"v{n}": (channels, channels // groups, size, size)}
        nodes += [
            helper.make_node("Conv", [f"r{n}", f"u{n}"], [f"a{n}"]),
            helper.make_node("Relu", [f"a{n}"], [f"b{n}"]),
            helper.make_node("Conv", [f"b{n}", f"v{n}"], [f"c{n}"], pads=[size // 2] * 4, group=groups),
            helper.make_node("Add", [f"c{n}", f"r{n}"], [f"r{n + 1}"]),
        ]
    nodes.append(helper.make_node("Conv", [f"r{len(kinds)}", "w2"], ["y"]))
    return model(nodes, (1, 3, side, side), "y", weights | {"w2": (2, channels, 1, 1)})


def residual_products(rows: int) -> onnx.ModelProto:
    """x + f(x) by products of matrices and norms."""
    nodes, weights = [helper.make_node("MatMul", ["x", "w"], ["r0"])], {"w": (20, 20), "g": (20,), "w2": (20, 3)}
    for n in range(3):
        weights |= {f"u{n}": (20, 40), f"v{n}": (40, 20)}
        nodes += [
            helper.make_node("LayerNormalization", [f"r{n}", "g", "g"], [f"n{n}"]),
            helper.make_node("MatMul", [f"n{n}", f"u{n}"], [f"a{n}"]),
            helper.make_node("Tanh", [f"a{n}"], [f"b{n}"]),
            helper.make_node("MatMul", [f"b{n}", f"v{n}"], [f"c{n}"]),
            helper.make_node("Add", [f"r{n}", f"c{n}"], [f"r{n + 1}"]),
        ]
    nodes.append(helper.make_node("MatMul", ["r3", "w2"], ["y"]))
    return model(nodes, (rows, 20), "y", weights)


def in_place(exe: Executable) -> int:
    """The number of steps whose result lies where one of their operands lay."""
    place = [v.index if v.kind == "arena" else -1 - n for n, v in enumerate(exe.plan.values)]
    steps = [s for s in exe.plan.steps if isinstance(s, Launch)]
    return sum(place[s.outputs[0]] in {place[n] for n in s.inputs if n is not None} for s in steps)


def check(made: onnx.ModelProto, exe: Executable) -> None:
    shape = [d.dim_value for d in made.graph.input[0].type.tensor_type.shape.dim]
    given = {"x": np.random.default_rng(6).standard_normal(shape).astype(np.float32)}
    expected = fusible.compile(made, target="numpy").run(given)
    session = exe.session()
    session._poison = True
    for _ in range(2):
        assert_outputs_close(session.run(given), expected)


@pytest.mark.parametrize(("channels", "side"), [(16, 12), (24, 7), (19, 8)])
@pytest.mark.parametrize("threads", [1, 2])
def test_sums_take_the_place_of_their_residuals(channels: int, side: int, threads: int) -> None:
    made = residual_convolutions(channels, side)
    exe = fusible.compile(made, target="cpu", options=fusible.Options(threads=threads))
    check(made, exe)
    assert in_place(exe) == 4 and exe.report.host == ()  # the last sum never is in memory: the next kernel reads it


@pytest.mark.parametrize("rows", [2, 3, 50])  # of a single row all of it is one kernel
def test_products_in_place(rows: int) -> None:
    made = residual_products(rows)
    exe = fusible.compile(made, target="cpu", options=fusible.Options(threads=2))
    check(made, exe)
    assert in_place(exe) >= 2 and exe.report.host == ()


def test_a_result_over_what_is_still_read_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "overwritable", lambda region: tuple(range(len(region.inputs))))
    made = residual_convolutions(16, 12)
    exe = fusible.compile(made, target="cpu", options=fusible.Options(threads=1))
    with pytest.raises(AssertionError, match="y:"):
        check(made, exe)


def test_wide_branches_follow_each_other() -> None:
    # Four branches that grow to 64 channels and shrink again, in a file that lists all wide results first.
    nodes, weights = [], {}
    for n in range(4):
        weights |= {f"u{n}": (64, 3, 3, 3), f"v{n}": (2, 64, 1, 1)}
        nodes.append(helper.make_node("Conv", ["x", f"u{n}"], [f"a{n}"], pads=[1, 1, 1, 1]))
    nodes += [helper.make_node("Conv", [f"a{n}", f"v{n}"], [f"b{n}"]) for n in range(4)]
    nodes += [helper.make_node("Concat", [f"b{n}" for n in range(4)], ["c"], axis=1)]
    made = model([*nodes, helper.make_node("Relu", ["c"], ["y"])], (1, 3, 10, 10), "y", weights)
    exe = fusible.compile(made, target="cpu", options=fusible.Options(threads=1))
    check(made, exe)
    assert exe.report.memory["arena_bytes"] < 2 * 64 * 100 * 4


@pytest.mark.parametrize("target", ["cpu", "numpy", "cuda:sm_90"])
def test_sizes_that_agree_only_for_long_inputs_are_reported_at_such_lengths(target: str) -> None:
    """Windows of 10 over a line, twice: one of less than 55 elements has no result. Beside it windows of 50."""
    sizes = {"w1": (4, 1, 10), "w4": (4, 4, 10), "w50": (4, 1, 50)}
    weights = [numpy_helper.from_array(np.ones(size, np.float32), name) for name, size in sizes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], strides=[5]),
        helper.make_node("Conv", ["a", "w4"], ["b"], strides=[5]),
        helper.make_node("Shape", ["b"], ["s"], start=2),
        helper.make_node("ConstantOfShape", ["s"], ["zeros"]),
        helper.make_node("Add", ["b", "zeros"], ["c"]),
        helper.make_node("Conv", ["x", "w50"], ["d"], strides=[25]),
        helper.make_node("Add", ["c", "d"], ["e"]),
        helper.make_node("Neg", ["e"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, "w"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "lines", [x], [y], weights)
    exe = fusible.compile(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), target=target)
    memory = exe.report.memory
    assert memory["arena_bytes"] >= 0 and memory["arena_bytes_at"]["w"] >= 8  # below, there is no first result
    if target != "cuda:sm_90":  # built here, run elsewhere
        (found,) = exe.run({"x": np.ones((1, 1, 55), np.float32)}).values()
        assert found.shape == (1, 4, 1)
