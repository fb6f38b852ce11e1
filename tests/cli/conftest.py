"""Calling the program, and small models to call it on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fusible.cli import main


@dataclass(frozen=True)
class Result:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The standard output as JSON."""
        return json.loads(self.out)


Command = Callable[..., Result]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs `fusible WORDS...` in this process."""

    def call(*words: str | Path) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int | None)
        return Result(code or 0, printed.out, printed.err)

    return call


def save(path: Path, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], channels: int = 3) -> Path:
    """Save a model with the input `x` float32[batch, channels, 5, 7] and the output `y`."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", channels, 5, 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model of Conv, Relu, Add: float32[batch, 3, 5, 7] -> float32[batch, 4, 5, 7]."""
    generator = np.random.default_rng(1)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Add", ["r", "a"], ["y"], "add"),
    ]
    shapes = {"w": (4, 3, 3, 3), "b": (4,), "a": (4, 1, 1)}
    weights = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return save(tmp_path / "small.onnx", nodes, weights)


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """Return a model with two operators that nothing knows, one after the other, and what depends on them."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "relu"),
        helper.make_node("Frobnicate", ["r"], ["f"], "first\x1b[31m", domain="com.example"),
        helper.make_node("Abs", ["f"], ["g"], "abs"),
        helper.make_node("Twiddle", ["g"], ["y"], "second", domain="com.example"),
    ]
    return save(tmp_path / "strange.onnx", nodes, {})
