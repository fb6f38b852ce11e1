"""Concatenations made in place: the numbers, which steps are left, what the ledger says, errors that must be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fusible
from fusible.compiler.api import import_graph
from fusible.compiler.backends.cpu.backend import CpuBackend
from fusible.compiler.backends.cpu.joins import Join
from fusible.compiler.pipeline import pipeline
from fusible.compiler.run_passes import run_passes
from fusible.passes.ledger import Kind
from fusible.runtime.executable import Executable
from fusible.runtime.plan import Launch
from tests.compiler.cpu.joined_models import dense_block, inputs_of, random_model
from tests.tolerance import assert_outputs_close

OPTIONS = fusible.Options(threads=2)
FLOAT = TensorProto.FLOAT


def compiled(model: onnx.ModelProto) -> Executable:
    return fusible.compile(model, target="cpu", options=OPTIONS)


def check(model: onnx.ModelProto, exe: Executable, batch: int = 2) -> None:
    """In one call and step by step, with every buffer poisoned before, twice in the same session."""
    given = inputs_of(model, batch)
    expected = fusible.compile(model, target="numpy").run(given)
    session = exe.session()
    session._poison = True
    assert_outputs_close(session.run(given), expected)
    assert_outputs_close(session.run(given), expected)
    session._observer = lambda step, seconds: None
    assert_outputs_close(session.run(given), expected)


def entries(exe: Executable, kind: str) -> list[tuple[str, str]]:
    """(reason, value) of what was said about joining in place."""
    rows = [*exe.report.fusions, *exe.report.refusals]
    found = [row for row in rows if row["pass"] == "place-joins" and row["kind"] == kind]
    return [(row["reason"], ", ".join(row["culprits"])) for row in found]


def steps(exe: Executable) -> list[str]:
    """The names of the kernels without their numbers."""
    return [s.kernel.partition("_")[2] for s in exe.plan.steps if isinstance(s, Launch)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_random_models(seed: int) -> None:
    model = random_model(seed)
    check(model, compiled(model))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 105))
def test_random_models_with_a_symbol(seed: int) -> None:
    model = random_model(seed, symbolic=True)
    exe = compiled(model)
    for batch in (1, 3, 0, 2):
        check(model, exe, batch)


def test_random_models_are_joined_in_place() -> None:
    # Else the tests above would say nothing.
    placed = 0
    for seed in range(10):
        graph = import_graph(random_model(seed), options=OPTIONS)
        run_passes(pipeline("cpu"), graph, OPTIONS, "cpu")
        backend = CpuBackend()
        backend.prepare(graph)
        placed += sum(entry.kind is Kind.FUSED for entry in backend.entries)
    assert placed >= 20


@pytest.mark.parametrize("nested", [False, True])
def test_the_growth_of_a_dense_block_copies_nothing(nested: bool) -> None:
    model = dense_block(nested=nested)
    exe = compiled(model)
    check(model, exe, 1)
    assert not [name for name in steps(exe) if "concat" in name]
    assert steps(exe).count("identity") == 0
    assert exe.report.host == ()
    # Four concatenations, the last of them out of the group that reads it; all results lie in one buffer.
    whole = [v for v in exe.plan.values if v.whole is not None]
    assert len({v.index for v in whole}) == 1 and {v.whole for v in whole} == {(1, 48, 8, 8)}
    if not nested:
        assert len([e for e in entries(exe, "fused") if e[0] == "its operands lie side by side"]) == 3
    assert exe.report.kernels and len(exe.report.kernels) == len(exe.plan.steps)


def test_an_artifact_keeps_the_places(tmp_path: Path) -> None:
    model = dense_block()
    exe = compiled(model)
    exe.save(tmp_path / "dense.fusible")
    loaded = fusible.load(tmp_path / "dense.fusible")
    assert loaded.plan == exe.plan
    given = inputs_of(model, 1)
    expected = exe.run(given)
    assert all(np.array_equal(found, expected[name]) for name, found in loaded.run(given).items())
    exe.save(tmp_path / "again.fusible")
    assert (tmp_path / "dense.fusible").read_bytes() == (tmp_path / "again.fusible").read_bytes()


def image_model(nodes: list[onnx.NodeProto], outputs: list[str], **weights: tuple[int, ...]) -> onnx.ModelProto:
    """Nodes over an image x [1, 3, 9, 9] and random weights."""
    random = np.random.default_rng(1)
    constants = [
        numpy_helper.from_array((random.standard_normal(s) / np.sqrt(np.prod(s[1:]))).astype(np.float32), name)
        for name, s in weights.items()
    ]
    graph = helper.make_graph(
        nodes,
        "image",
        [helper.make_tensor_value_info("x", FLOAT, (1, 3, 9, 9))],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def fire(last: str, **attributes: object) -> list[onnx.NodeProto]:
    node = helper.make_node
    return [
        node("Conv", ["x", "squeeze"], ["s"], name="s"),
        node("Conv", ["s", "one"], ["a"], name="a"),
        node("Relu", ["a"], ["left"], name="left"),
        node("Conv", ["s", "three"], ["b"], name="b", pads=[1, 1, 1, 1]),
        node("Relu", ["b"], ["right"], name="right"),
        node("Concat", ["left", "right"], ["joined"], name="joined", axis=1),
        node(last, ["joined", *(["next"] if last == "Conv" else [])], ["y"], name="y", **attributes),
    ]


FIRE = {"squeeze": (8, 3, 1, 1), "one": (16, 8, 1, 1), "three": (24, 8, 3, 3)}


def test_convolutions_store_side_by_side() -> None:
    model = image_model([*fire("Conv"), helper.make_node("Relu", ["y"], ["z"])], ["z"], **FIRE, next=(5, 40, 1, 1))
    exe = compiled(model)
    check(model, exe, 1)
    assert steps(exe) == ["identity", "conv", "conv_relu", "conv_relu", "conv_relu"]
    assert entries(exe, "fused") == [
        ("it is computed where it is joined", "left"),
        ("it is computed where it is joined", "right"),
    ]
    saved = [row["saved"] for row in exe.report.fusions if row["pass"] == "place-joins"]
    assert saved == [{"bytes": 2 * 4 * 81 * 16, "launches": 0}, {"bytes": 2 * 4 * 81 * 24, "launches": 1}]


def test_a_concatenation_leaves_the_group_that_computes_with_it() -> None:
    model = image_model(fire("MaxPool", kernel_shape=[3, 3]), ["y"], **FIRE)
    exe = compiled(model)
    check(model, exe, 1)
    assert steps(exe) == ["identity", "conv", "conv_relu", "conv_relu", "max_pool"]


def test_what_cannot_lie_in_place_is_copied_alone() -> None:
    node = helper.make_node
    nodes = [
        *fire("Conv"),
        node("Concat", ["y", "x", "joined", "y", "bias"], ["all"], name="all", axis=1),
        node("Conv", ["all", "last"], ["z"], name="z"),
    ]
    model = image_model(nodes, ["z"], **FIRE, next=(40, 40, 1, 1), last=(4, 125, 1, 1), bias=(1, 2, 9, 9))
    exe = compiled(model)
    check(model, exe, 1)
    assert entries(exe, "refused") == [
        ("it is an input", "x"),
        ("it is joined twice", "y"),
        ("it is a constant", "bias"),
    ]
    assert not [name for name in steps(exe) if "concat" in name] and steps(exe).count("identity") == 4


def test_a_padded_reader_keeps_rows_apart() -> None:
    # Joined below each other: a convolution that pads its image cannot see where its own rows end.
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="a"),
        node("Conv", ["x", "v"], ["b"], name="b"),
        node("Concat", ["a", "b"], ["joined"], name="joined", axis=2),
        node("Conv", ["joined", "w4"], ["y"], name="y"),
        node("Conv", ["a", "w3"], ["z"], name="z", pads=[1, 1, 1, 1]),
    ]
    model = image_model(nodes, ["y", "z"], w=(4, 3, 1, 1), v=(4, 3, 1, 1), w4=(2, 4, 3, 3), w3=(2, 4, 3, 3))
    exe = compiled(model)
    check(model, exe, 1)
    ((reason, value),) = entries(exe, "refused")
    assert value == "a" and "its padding does not begin where the image ends" in reason
    assert [e[1] for e in entries(exe, "fused")] == ["b"]


def test_an_output_is_never_a_block() -> None:
    few = FIRE | {"one": (7, 8, 1, 1)}
    model = image_model(fire("Conv"), ["y", "left"], **few, next=(5, 31, 1, 1))
    exe = compiled(model)
    check(model, exe, 1)
    assert ("it is an output", "left") in entries(exe, "refused")


def test_an_output_of_many_channels_is_a_copy_of_a_block() -> None:
    model = image_model(fire("Conv"), ["y", "left"], **FIRE, next=(5, 40, 1, 1))
    exe = compiled(model)
    check(model, exe, 1)
    assert [reason for reason, _ in entries(exe, "fused")] == ["it is computed where it is joined"] * 2
    assert steps(exe).count("identity") == 2


def test_a_wrong_place_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Join.corners

    def wrong(join: Join, corner: tuple[object, ...]) -> list[tuple[object, ...]]:
        first, *rest = right(join, corner)
        return [first, *(first for _ in rest)]

    monkeypatch.setattr(Join, "corners", wrong)
    model = image_model(fire("Conv"), ["y"], **FIRE, next=(5, 40, 1, 1))
    exe = compiled(model)
    with pytest.raises(AssertionError, match="y:"):
        check(model, exe, 1)


def test_indices_are_checked_against_what_is_read() -> None:
    node = helper.make_node
    nodes = [
        node("Relu", ["x"], ["a"], name="a"),
        node("Sigmoid", ["x"], ["b"], name="b"),
        node("Concat", ["a", "b"], ["joined"], name="joined", axis=0),
        node("Neg", ["joined"], ["y"], name="y"),
        node("Exp", ["joined"], ["z"], name="z"),
        node("Gather", ["a", "ids"], ["rows"], name="rows"),
        node("Neg", ["b"], ["w"], name="w"),
    ]
    value = helper.make_tensor_value_info
    ids = value("ids", TensorProto.INT64, (2,))
    outputs = [value(name, FLOAT, None) for name in ("y", "z", "rows", "w")]
    graph = helper.make_graph(nodes, "rows", [value("x", FLOAT, (4, 5)), ids], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    exe = compiled(model)
    x = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    expected = fusible.compile(model, target="numpy").run({"x": x, "ids": np.asarray([3, -4])})
    assert_outputs_close(exe.run({"x": x, "ids": np.asarray([3, -4])}), expected)
    with pytest.raises(fusible.FusibleError, match="out of range"):
        exe.run({"x": x, "ids": np.asarray([4, 0])})  # row 4 of what is joined, of which a has only 4
    assert any("checked against the end" in reason for reason, _ in entries(exe, "refused"))


def test_recurrent_layers_keep_buffers_of_their_own() -> None:
    node = helper.make_node
    nodes = [
        node("Relu", ["x"], ["a"], name="a"),
        node("LSTM", ["a", "w", "r"], ["", "h"], name="lstm", hidden_size=6),
        node("Sigmoid", ["x"], ["b"], name="b"),
        node("Concat", ["a", "b"], ["wide"], name="wide", axis=2),
        node("Neg", ["wide"], ["y"], name="y"),
        node("Exp", ["wide"], ["z"], name="z"),
        node("Neg", ["b"], ["v"], name="v"),
        node("Concat", ["h", "h2"], ["states"], name="states", axis=2),
        node("Neg", ["states"], ["s"], name="s"),
        node("Exp", ["states"], ["t"], name="t"),
        node("LSTM", ["b", "w", "r"], ["", "h2"], name="lstm2", hidden_size=6),
    ]
    nodes.insert(7, nodes.pop())
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((1, 24, 5)) / 3, "r": random.standard_normal((1, 24, 6)) / 3}
    value = helper.make_tensor_value_info
    outputs = [value(name, FLOAT, None) for name in ("y", "z", "v", "s", "t")]
    constants = [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()]
    graph = helper.make_graph(nodes, "recurrent", [value("x", FLOAT, (7, 2, 5))], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    exe = compiled(model)
    given = {"x": random.standard_normal((7, 2, 5)).astype(np.float32)}
    session = exe.session()
    session._poison = True
    assert_outputs_close(session.run(given), fusible.compile(model, target="numpy").run(given))
    assert ("lstm reads and writes whole buffers", "a") in entries(exe, "refused")
