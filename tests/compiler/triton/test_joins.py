"""Concatenations made in place by Triton kernels: numbers in checking mode, which launches are left, alignment."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fusible
from fusible.compiler.backends.base import Block
from fusible.compiler.backends.triton.backend import _alignment
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.symbols import Symbol, SymInt
from fusible.compiler.ir.types import DType, TensorType
from fusible.runtime.executable import Executable
from fusible.runtime.plan import Launch
from tests.compiler.cpu.joined_models import dense_block, inputs_of, random_model
from tests.runtime import models
from tests.tolerance import assert_outputs_close

FLOAT = TensorProto.FLOAT


def checked(model: onnx.ModelProto, batch: int = 2) -> Executable:
    """Run in a poisoned session that checks every access, launched and replayed, and compare with the target numpy."""
    exe = fusible.compile(model, target="triton-cpu", options=fusible.Options(threads=2, verify="kernels"))
    given = inputs_of(model, batch)
    expected = fusible.compile(model, target="numpy").run(given)
    session = exe.session()
    session._poison = True
    for _ in range(3):
        assert_outputs_close(session.run(given), expected)
    return exe


def launches(exe: Executable) -> list[str]:
    return [s.kernel.partition("_")[2] for s in exe.plan.steps if isinstance(s, Launch)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", (2, 5))
def test_random_models(seed: int) -> None:
    checked(random_model(seed))


@pytest.mark.slow
def test_a_random_model_with_a_symbol() -> None:
    model = random_model(102, symbolic=True)
    for batch in (1, 3):
        checked(model, batch)


def test_the_growth_of_a_dense_block_copies_nothing() -> None:
    exe = checked(dense_block(), 1)
    assert not [name for name in launches(exe) if "concat" in name or "identity" in name]
    assert len({v.index for v in exe.plan.values if v.whole is not None}) == 1


def test_a_view_of_what_is_joined_keeps_it_out() -> None:
    # A reshaped block would have to be copied: the view is of memory without gaps.
    node = helper.make_node
    nodes = [
        node("Relu", ["x"], ["a"], name="a"),
        node("Neg", ["x"], ["b"], name="b"),
        node("Concat", ["a", "b"], ["j"], name="join", axis=1),
        node("Reshape", ["a", "flat"], ["r"], name="reshape"),
        node("Softmax", ["r"], ["s"], name="softmax"),
        node("ReduceSum", ["j", "axes"], ["t"], name="sum", keepdims=0),
    ]
    constants = {"flat": np.asarray([2, 4, 6], np.int64), "axes": np.asarray([2], np.int64)}
    checked(models.make(nodes, [models.value("x", FLOAT, [2, 3, 8])], ["s", "t"], constants))


def test_alignment_is_that_of_where_a_block_begins() -> None:
    graph = Graph("g")
    value = graph.input(TensorType(DType.F32, (1, 58, 4, 4)), "v")
    last = (0, 2, 3, 1)

    def found(channel: int, side: int | SymInt, order: tuple[int, ...] | None) -> int:
        return _alignment(Block(value, (0, channel, 0, 0), (1, 116, side, side)), order, value)

    assert [found(c, 7, last) for c in (0, 58, 57, 4, 116)] == [16, 8, 4, 16, 16]
    assert [found(c, 7, None) for c in (0, 58, 57, 4)] == [16, 8, 4, 16]
    height = SymInt.of(Symbol("h"))
    assert [found(c, height, None) for c in (58, 57, 4)] == [8, 4, 16]


def test_kernels_assume_no_more_alignment_than_blocks_have() -> None:
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "u"], ["a"], name="a"),
        node("MatMul", ["x", "v"], ["b"], name="b"),
        node("Concat", ["a", "b"], ["j"], name="join", axis=1),
        node("MatMul", ["j", "w"], ["y"], name="product"),
    ]
    shapes = {"w": (66, 16), "u": (33, 33), "v": (33, 33)}
    random = np.random.default_rng(0)
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    exe = checked(models.make(nodes, [models.value("x", FLOAT, [2, 33])], ["y"], weights))
    assert exe.device is not None
    kernels = {k.name: k for k in exe.device.code.kernels}
    stored = [kernels[s.kernel].divisibility for s in exe.plan.steps if isinstance(s, Launch)]
    # 33 floats are 132 bytes: the second half begins at a multiple of 4.
    assert [d.get("y0") for d in stored] == [16, 4, 16]


def test_numpy_reads_and_writes_blocks_on_the_device() -> None:
    node = helper.make_node
    nodes = [
        node("Relu", ["x"], ["a"], name="a"),
        node("Neg", ["x"], ["b"], name="b"),
        node("Concat", ["a", "b"], ["j"], name="join", axis=2),
        node("Det", ["a"], ["d"], name="det"),
        node("Det", ["b"], ["s"], name="other"),
        node("Concat", ["d", "s"], ["k"], name="vector", axis=0),
        node("Softmax", ["j"], ["y"], name="y"),
        node("Exp", ["k"], ["z"], name="z"),
    ]
    exe = checked(models.make(nodes, [models.value("x", FLOAT, [2, 3, 3])], ["y", "z"]))
    assert [row["op"] for row in exe.report.host] == ["det", "det"]
    assert len([v for v in exe.plan.values if v.whole is not None]) == 4
