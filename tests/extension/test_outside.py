"""A custom op, a rule and a replacement kernel in files outside the repository, end to end and after save and load."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, ValueInfoProto, helper

import fusible
from fusible.compiler.ir.inference import broadcast_type
from fusible.compiler.ir.ops import OPS
from fusible.definitions import Arg, apply
from fusible.kernels.registry import KERNELS

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
ROOT = str(Path(__file__).parents[2])

_SAVE = """
import numpy as np, fusible, swoosh
from onnx import TensorProto, ValueInfoProto, helper
nodes = [helper.make_node("Swoosh", ["x", "s"], ["a"], domain="my.ops"), helper.make_node("Tanh", ["a"], ["y"])]
inputs = [helper.make_tensor_value_info("x", 1, ["n"]), helper.make_tensor_value_info("s", 1, [])]
graph = helper.make_graph(nodes, "g", inputs, [ValueInfoProto(name="y")])
opsets = [helper.make_opsetid("", 21), helper.make_opsetid("my.ops", 1)]
exe = fusible.compile(helper.make_model(graph, opset_imports=opsets), target="numpy")
exe.save("m.fusible")
np.save("y.npy", exe(np.arange(5, dtype=np.float32), np.float32(0.5))[0])
"""
_LOAD = """
import numpy as np, fusible
y, = fusible.load("m.fusible")(np.arange(5, dtype=np.float32), np.float32(0.5))
assert np.array_equal(y, np.load("y.npy"))
"""


def _run(code: str, folder: Path, path: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*path, ROOT])}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_save_in_one_process_load_in_another(tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    shutil.copy(EXAMPLES / "swoosh.py", plugins)
    for code in (_SAVE, _LOAD):
        done = _run(code, tmp_path, [str(plugins)])
        assert done.returncode == 0, done.stderr
    lost = _run(_LOAD, tmp_path, [])
    assert "ArtifactError" in lost.stderr and "swoosh:" in lost.stderr
    text = (plugins / "swoosh.py").read_text()
    (plugins / "swoosh.py").write_text(text + "\nfast_tanh.__fusible_version__ = 2\n")
    newer = _run(_LOAD, tmp_path, [str(plugins)])
    assert "ArtifactError" in newer.stderr and "version 2" in newer.stderr


def test_the_example_runs() -> None:
    command = [sys.executable, str(EXAMPLES / "use_swoosh.py")]
    environment = os.environ | {"PYTHONPATH": ROOT}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the same result" in done.stdout


def test_a_function_that_cannot_be_found_again_cannot_be_saved(tmp_path: Path) -> None:
    name = "test.outside::Local"
    fusible.register_op("test.outside", "Local", numpy=lambda x: x + 1, definition=apply("add", Arg(0), 1.0))
    try:
        node = helper.make_node("Local", ["x"], ["y"], domain="test.outside")
        info = helper.make_tensor_value_info("x", TensorProto.DOUBLE, None)
        graph = helper.make_graph([node], "g", [info], [ValueInfoProto(name="y")])
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("test.outside", 1)]
        exe = fusible.compile(helper.make_model(graph, opset_imports=opsets), target="numpy")
        assert np.array_equal(exe(np.zeros(2))[0], np.ones(2))
        with pytest.raises(fusible.ArtifactError, match="top level"):
            exe.save(tmp_path / "m.fusible")
    finally:
        OPS.unregister(name)


def test_bad_registrations() -> None:
    with pytest.raises(fusible.UsageError, match="domain"):
        fusible.register_op("", "X", numpy=np.abs)
    with pytest.raises(fusible.UsageError, match="no op"):
        fusible.register_kernel("nonsense", function=np.abs)
    with pytest.raises(fusible.UsageError, match="targets"):
        fusible.register_kernel("relu", function=np.abs, targets=("toaster",))
    with pytest.raises(fusible.UsageError, match=r"test::Beyond reads Arg\(3\); with 1 inputs the last is Arg\(0\)"):
        fusible.register_op("test", "Beyond", numpy=np.abs, definition=apply("tanh", Arg(3)))


@pytest.mark.parametrize(
    ("function", "outputs", "found"),
    (
        (lambda x: x[:1], 1, r"shape \(3, 4\) as result 0, got shape \(1, 4\)"),
        (lambda x: None, 1, "got None"),
        (lambda x: (x, x[:1]), 2, "as result 1, got shape"),
        (lambda x: (x, x, x), 2, "must return 2 arrays, got 3"),
    ),
)
@pytest.mark.parametrize("target", ("numpy", "cpu"))
def test_results_of_another_shape_are_errors(target: str, function: Any, outputs: int, found: str) -> None:
    name = "test.outside::Shapes"
    infer = lambda ctx: [broadcast_type(ctx)] * outputs  # noqa: E731
    fusible.register_op("test.outside", "Shapes", numpy=function, outputs=outputs, infer=infer)
    try:
        results = [f"y{n}" for n in range(outputs)]
        node = helper.make_node("Shapes", ["x"], results, domain="test.outside")
        info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 4])
        graph = helper.make_graph([node], "g", [info], [ValueInfoProto(name=y) for y in results])
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("test.outside", 1)]
        exe = fusible.compile(helper.make_model(graph, opset_imports=opsets), target=target)
        with pytest.raises(fusible.ExecutionError, match=found):
            exe(np.ones((3, 4), np.float32))
    finally:
        OPS.unregister(name)


@pytest.mark.parametrize(("target", "noted"), [("numpy", False), ("triton-cpu", True)])
def test_kernels_that_are_registered_for_other_targets_are_noted(target: str, noted: bool) -> None:
    kernel = fusible.register_kernel("softplus", function=lambda x: np.log1p(np.exp(x)), targets=("numpy",))
    try:
        node = helper.make_node("Softplus", ["x"], ["y"])
        inputs, outputs = [helper.make_tensor_value_info("x", 1, [4])], [ValueInfoProto(name="y")]
        model = helper.make_model(helper.make_graph([node], "g", inputs, outputs), ir_version=10)
        notes = fusible.compile(model, target=target).report.notes
    finally:
        KERNELS.unregister(kernel)
    assert any("registered for softplus are for numpy" in note for note in notes) is noted
