"""The nine "light" models of the onnx package with seeded random weights in place of their constants.

As shipped, their weights are one repeated value, made by ConstantOfShape, so that their outputs check almost nothing.
Here convolutions and matrix products get normal weights of variance 2 / fan-in (He et al. 2015, "Delving Deep into
Rectifiers", section 2.2), batch normalisations get the statistics that they meet in one run of a calibration picture,
and the last weighted layer is scaled so that the logits have a standard deviation of 3. Shapes stay untouched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
from onnx import helper, numpy_helper

from tests import oracle

Inputs = dict[str, np.ndarray]

NAMES = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
HEAVY = frozenset({"bvlc_alexnet", "vgg19", "zfnet512"})
"""Models of 200 MB and more of weights."""

# No Reshape of these says that the batch is 1, so that every extent of the picture but the channels may be symbolic.
_FREE = frozenset({"densenet121", "squeezenet"})
_LOGITS_DEVIATION = 3.0
_RESHAPING = ("Reshape", "Unsqueeze")
_FOLDER = Path(onnx.backend.test.__file__).parent / "data" / "light"


def light_model(name: str, seed: int = 20261123) -> tuple[onnx.ModelProto, tuple[Inputs, ...]]:
    """Model `name` with random weights, and two sets of inputs; the same at every call with the same seed."""
    model = onnx.load(_FOLDER / f"light_{name}.onnx")
    generator = np.random.default_rng(seed)
    draft = _Draft.of(model)
    draft.draw(generator)
    free = name in _FREE
    draft.calibrate(_picture(generator, 1, 224, 224))
    sets = [(1, 224, 224), (2, 192, 256) if free else (1, 224, 224)]
    return draft.finished(free), tuple({draft.data: _picture(generator, *extents)} for extents in sets)


def _picture(generator: np.random.Generator, batch: int, height: int, width: int) -> np.ndarray:
    """Smooth patches with noise, float32 [batch, 3, height, width] of mean 0 and variance about 1."""
    patches = np.kron(generator.standard_normal((batch, 3, height // 32, width // 32)), np.ones((1, 1, 32, 32)))
    return (0.9 * patches + 0.4 * generator.standard_normal(patches.shape)).astype(np.float32)


@dataclass
class _Draft:
    """A light model taken apart: nodes that compute, weights by name, the name of its one true input."""

    model: onnx.ModelProto
    nodes: list[onnx.NodeProto]
    weights: dict[str, np.ndarray]
    data: str
    constants: dict[str, np.ndarray] = field(default_factory=dict)  # shapes: kept as they are

    @classmethod
    def of(cls, model: onnx.ModelProto) -> _Draft:
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        fills = [node for node in model.graph.node if node.op_type == "ConstantOfShape"]
        made = {node.output[0]: np.zeros(stored[node.input[0]], np.float32) for node in fills}
        floats = {key: array.astype(np.float32) for key, array in stored.items() if array.dtype == np.float32}
        (data,) = [value.name for value in model.graph.input if value.name not in stored]
        nodes = [node for node in model.graph.node if node.op_type != "ConstantOfShape"]
        shapes = {key: array for key, array in stored.items() if array.dtype != np.float32}
        return cls(model, nodes, floats | made, data, shapes)

    def draw(self, generator: np.random.Generator) -> None:
        """Replace every weight by random numbers that suit the operand it is."""
        for node in self.nodes:
            for place, operand in enumerate(node.input):
                key = self._weight(operand)
                if key in self.weights and node.op_type not in _RESHAPING:
                    self.weights[key] = _random_operand(generator, node, place, self.weights[key].shape)

    def calibrate(self, picture: np.ndarray) -> None:
        """Set the statistics of batch normalisations, then the scale of the last weighted layer."""
        model = self._assembled(list(_with_statistics(self.nodes)))
        norms = [node for node in self.nodes if node.op_type == "BatchNormalization"]
        logits = self._logits()
        wanted = [logits, *(f"{statistic}/{node.output[0]}" for node in norms for statistic in ("mean", "square"))]
        del model.graph.output[:]
        model.graph.output.extend(helper.make_empty_tensor_value_info(key) for key in wanted)
        got = oracle.run(model, {self.data: picture})
        for node in norms:
            mean, square = (
                got[f"{statistic}/{node.output[0]}"].astype(np.float64)[0] for statistic in ("mean", "square")
            )
            self.weights[node.input[3]] = mean.astype(np.float32)
            self.weights[node.input[4]] = (square - mean**2).clip(1e-3).astype(np.float32)
        last = [node for node in self.nodes if node.op_type in ("Conv", "Gemm")][-1]
        for operand in last.input[1:]:
            self.weights[self._weight(operand)] *= np.float32(_LOGITS_DEVIATION / got[logits].std())

    def finished(self, free: bool) -> onnx.ModelProto:
        """The model with its weights; with symbolic batch, height and width if `free`."""
        model = self._assembled(self.nodes)
        model.graph.output.extend(self.model.graph.output)
        if free:
            picture, result = (
                value.type.tensor_type.shape.dim for value in (model.graph.input[0], model.graph.output[0])
            )
            for extent, symbol in ((picture[0], "N"), (picture[2], "H"), (picture[3], "W"), (result[0], "N")):
                extent.dim_param = symbol
        onnx.checker.check_model(model)
        return model

    def _weight(self, operand: str) -> str:
        """The weight behind an operand that may be a reshaped weight."""
        sources = (node.input[0] for node in self.nodes if node.op_type in _RESHAPING and node.output[0] == operand)
        return next(sources, operand)

    def _logits(self) -> str:
        softmax = [node.input[0] for node in self.nodes if node.op_type == "Softmax"]
        return softmax[-1] if softmax else self.model.graph.output[0].name

    def _assembled(self, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
        used = {operand for node in nodes for operand in node.input}
        arrays: Mapping[str, np.ndarray] = self.weights | self.constants
        graph = helper.make_graph(
            nodes,
            self.model.graph.name,
            [value for value in self.model.graph.input if value.name == self.data],
            [],
            [numpy_helper.from_array(array, key) for key, array in arrays.items() if key in used],
        )
        return helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=8)


def _random_operand(
    generator: np.random.Generator, node: onnx.NodeProto, place: int, shape: tuple[int, ...]
) -> np.ndarray:
    normal = generator.standard_normal(shape, np.float32)
    match node.op_type, place:
        case "Conv", 1:
            return normal * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        case "Gemm", 1:
            transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            return normal * np.float32(np.sqrt(2 / shape[-1 if transposed else -2]))
        case ("BatchNormalization", 1) | ("Mul", _):
            return np.exp(normal / 8)
        case "BatchNormalization", 4:
            return np.ones(shape, np.float32)
        case _:
            return normal / 8


def _with_statistics(nodes: list[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, with batch normalisations that normalise by the statistics of their one picture and tell them."""
    for node in nodes:
        if node.op_type != "BatchNormalization":
            yield node
            continue
        source, result = node.input[0], node.output[0]
        squares = f"squares/{result}"
        yield helper.make_node("Mul", [source, source], [squares])
        yield helper.make_node("ReduceMean", [source], [f"mean/{result}"], axes=[2, 3], keepdims=0)
        yield helper.make_node("ReduceMean", [squares], [f"square/{result}"], axes=[2, 3], keepdims=0)
        yield helper.make_node("InstanceNormalization", [source, *node.input[1:3]], [result])
