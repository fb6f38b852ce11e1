"""Recurrent layers on the target cpu, against the target numpy: native in threads, saved, or refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fusible
from tests.tolerance import assert_outputs_close

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def layer(
    kind: str,
    *,
    steps: int | str = 9,
    rows: int | str = 3,
    lengths: bool = False,
    free: bool = False,
    **attributes: Any,
) -> onnx.ModelProto:
    """y, final states = kind(x); the weights are constant unless `free`. Width 12, hidden 20."""
    random, gates = np.random.default_rng(4), _GATES[kind]
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    shapes = {"w": (directions, gates * 20, 12), "r": (directions, gates * 20, 20), "b": (directions, 2 * gates * 20)}
    arrays = {n: (random.standard_normal(s) / 4).astype(np.float32) for n, s in shapes.items()}
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [steps, rows, 12])]
    if free:
        inputs += [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    if lengths:
        inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, [rows]))
    results = ["y", "y_h", "y_c"][: 3 if kind == "LSTM" else 2]
    node = helper.make_node(
        kind, ["x", "w", "r", "b", "lengths" if lengths else ""], results, name="layer", hidden_size=20, **attributes
    )
    constants = [] if free else [onnx.numpy_helper.from_array(a, n) for n, a in arrays.items()]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in results]
    graph = helper.make_graph([node], "layer", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])


def inputs(steps: int = 9, rows: int = 3) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(5).standard_normal((steps, rows, 12)).astype(np.float32)}


def check(model: onnx.ModelProto, given: dict[str, np.ndarray], threads: int = 2) -> fusible.Executable:
    exe = fusible.compile(model, target="cpu", options=fusible.Options(threads=threads))
    assert exe.report.host == ()
    assert_outputs_close(exe.run(given), fusible.compile(model, target="numpy").run(given))
    return exe


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", _GATES)
def test_every_kind_is_native(kind: str, direction: str) -> None:
    attributes = {"linear_before_reset": 1} if kind == "GRU" else {}
    check(layer(kind, direction=direction, **attributes), inputs())


def test_a_long_layer_uses_all_threads_and_gives_the_same_bits() -> None:
    model, given = layer("LSTM", steps=70, rows=40, direction="bidirectional"), inputs(70, 40)
    results = [check(model, given, threads).run(given) for threads in (1, 2, 3)]
    for other in results[1:]:
        assert all(np.array_equal(results[0][name], other[name]) for name in other)


def test_symbolic_sizes_and_a_saved_artifact(tmp_path: Path) -> None:
    exe = check(layer("GRU", steps="time", rows="batch"), inputs())
    exe.save(tmp_path / "layer.fusible")
    again = fusible.load(tmp_path / "layer.fusible")
    for steps, rows in ((1, 1), (4, 7)):
        given = inputs(steps, rows)
        assert_outputs_close(again.run(given), exe.run(given))


def test_lengths_and_lengths_out_of_range() -> None:
    model = layer("LSTM", lengths=True, direction="bidirectional")
    exe = check(model, inputs() | {"lengths": np.asarray([9, 0, 4], np.int32)})
    with pytest.raises(fusible.FusibleError, match="out of range"):
        exe.run(inputs() | {"lengths": np.asarray([9, 0, 10], np.int32)})


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [({"activations": ["Relu"]}, "its activations are not tanh"), ({"free": True}, "its weights are no constant")],
)
def test_other_layers_call_numpy_and_say_why(attributes: dict[str, Any], reason: str) -> None:
    model = layer("RNN", **attributes)
    exe = fusible.compile(model, target="cpu")
    assert [row["reason"] for row in exe.report.host] == [reason]
    given = inputs()
    if "free" in attributes:
        given |= {n: np.ones(s, np.float32) / 9 for n, s in (("w", (1, 20, 12)), ("r", (1, 20, 20)), ("b", (1, 40)))}
    assert_outputs_close(exe.run(given), fusible.compile(model, target="numpy").run(given))
