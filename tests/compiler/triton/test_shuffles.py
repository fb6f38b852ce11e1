"""Channel shuffles: the last convolution of a unit stores its result, and what passes it by, shuffled."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

import fusible
from fusible.compiler.api import import_graph
from fusible.compiler.region.build import build_region
from fusible.compiler.region.evaluate import run_region
from fusible.compiler.region.group import home_of
from fusible.compiler.region.verify import verify_region
from fusible.runtime.plan import Launch
from tests.runtime import models
from tests.tolerance import assert_outputs_close

FLOAT = TensorProto.FLOAT


def unit(channels: int = 12, units: int = 2) -> onnx.ModelProto:
    """The units of a ShuffleNet V2 of so many channels, which pass half of them by."""
    node, half = helper.make_node, channels // 2
    random = np.random.default_rng(0)
    constants = {
        "split": np.asarray([half, half], np.int64),
        "apart": np.asarray([1, 2, half, 5, 5], np.int64),
        "whole": np.asarray([1, channels, 5, 5], np.int64),
    }
    nodes, value = [], "x"
    for n in range(units):
        constants[f"w{n}"] = (random.standard_normal((half, half, 1, 1)) / 3).astype(np.float32)
        nodes += [
            node("Split", [value, "split"], [f"a{n}", f"b{n}"], name=f"split{n}", axis=1),
            node("Conv", [f"b{n}", f"w{n}"], [f"c{n}"], name=f"conv{n}"),
            node("Relu", [f"c{n}"], [f"d{n}"], name=f"relu{n}"),
            node("Concat", [f"a{n}", f"d{n}"], [f"e{n}"], name=f"join{n}", axis=1),
            node("Reshape", [f"e{n}", "apart"], [f"f{n}"], name=f"apart{n}"),
            node("Transpose", [f"f{n}"], [f"g{n}"], name=f"turn{n}", perm=[0, 2, 1, 3, 4]),
            node("Reshape", [f"g{n}", "whole"], [f"y{n}"], name=f"whole{n}"),
        ]
        value = f"y{n}"
    return models.make(nodes, [models.value("x", FLOAT, [1, channels, 5, 5])], [value], constants)


def feeds(channels: int = 12) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((1, channels, 5, 5)).astype(np.float32)}


def test_a_unit_is_one_launch_on_targets_with_triton_kernels() -> None:
    model = unit(16, 3)
    expected = fusible.compile(model, target="numpy").run(feeds(16))
    exe = fusible.compile(model, target="triton-cpu", options=fusible.Options(threads=2, verify="kernels"))
    assert len([s for s in exe.plan.steps if isinstance(s, Launch)]) == 3
    assert_outputs_close(exe.run(feeds(16)), expected)


def test_the_target_cpu_keeps_its_copies() -> None:
    model = unit(16, 3)
    exe = fusible.compile(model, target="cpu", options=fusible.Options(threads=2))
    assert_outputs_close(exe.run(feeds(16)), fusible.compile(model, target="numpy").run(feeds(16)))


def test_a_region_stores_each_piece_of_what_it_joins() -> None:
    graph = import_graph(unit(units=1).SerializeToString())
    nodes = [node for node in graph if node.op.name != "split"]
    built = build_region(nodes, graph.outputs, home=home_of(nodes, graph.outputs))
    region = built.region
    verify_region(region)
    assert len(region.stores) == 2 and len(region.outputs) == 1
    steps = {str(store.map.components[1]) for store in region.stores}
    assert steps in ({"2*i0", "2*i0 + 1"}, {"2*i1", "2*i1 + 1"})
    given = feeds()["x"]
    halves = {"a0": given[:, :6], "b0": given[:, 6:]}
    inputs = [v.constant.array if v.constant is not None else halves[v.name] for v in built.inputs]
    expected = fusible.compile(unit(units=1), target="numpy").run(feeds())["y0"]
    np.testing.assert_allclose(run_region(region, inputs)[0], expected, rtol=1e-5, atol=1e-6)
