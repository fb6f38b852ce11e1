"""What rounding makes of an output: each value on the way to it is moved by as much as its type rounds, in float64.

For outputs that other systems give exactly where it is chance: sums of values that cancel, and for types shorter than
float32, which no other system computes with.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

import fusible

__all__ = ["moved"]

# Half the distance from one to the next number, relative.
_ROUNDS = {TensorProto.FLOAT: 2.0**-24, TensorProto.FLOAT16: 2.0**-11, TensorProto.BFLOAT16: 2.0**-9}
Arrays = Mapping[str, np.ndarray]


def moved(model: onnx.ModelProto, wide: onnx.ModelProto, feeds: Arrays, name: str, seed: int) -> np.ndarray:
    """The output `name` of `wide`, where the results of nodes outside subgraphs are rounded somehow.

    model: whose types say how far. wide: the same in float64; feeds: its inputs.
    """
    types = _types(model)
    rounds = {o: _ROUNDS[types[o]] for node in wide.graph.node for o in node.output if types.get(o) in _ROUNDS}
    values = _values(wide, feeds, list(rounds))
    random = np.random.default_rng(seed)
    changed = onnx.ModelProto()
    changed.CopyFrom(wide)
    del changed.graph.node[:]
    for node in wide.graph.node:
        changed.graph.node.extend(_moved(node, rounds))
    for output, array in values.items():
        factors = 1 + rounds[output] * random.uniform(-1, 1, array.shape)
        changed.graph.initializer.append(numpy_helper.from_array(factors, f"{output}_factors"))
    found: np.ndarray = fusible.compile(changed, target="numpy").run(dict(feeds))[name]
    return found


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}


def _values(wide: onnx.ModelProto, feeds: Arrays, names: list[str]) -> dict[str, np.ndarray]:
    model = onnx.ModelProto()
    model.CopyFrom(wide)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.DOUBLE, None) for n in names)
    return fusible.compile(model, target="numpy").run(dict(feeds))


def _moved(node: NodeProto, rounds: Mapping[str, float]) -> list[NodeProto]:
    """The node, its results under other names, and what moves them."""
    copy = NodeProto()
    copy.CopyFrom(node)
    found = [copy]
    for number, output in enumerate(node.output):
        if output in rounds:
            copy.output[number] = f"{output}_exact"
            found.append(helper.make_node("Mul", [f"{output}_exact", f"{output}_factors"], [output]))
    return found
