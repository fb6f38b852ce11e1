"""Mutate a model where it hurts: attributes, element types, shapes, wiring, operators, inputs that become constants."""

from __future__ import annotations

import math
import random

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, helper, numpy_helper

__all__ = ["mutated"]

_NUMBERS = (-1, 0, 1, 2, 3, -2, 7, 64, 100_000, 2**31, -(2**31), 2**40, 2**62, -(2**62))
_FLOATS = (0.0, -1.0, 1e30, math.nan, math.inf)
_TEXTS = (b"", b"SAME_UPPER", b"linear", b"nonsense")
_OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})


def mutated(model: ModelProto, rng: random.Random) -> ModelProto:
    """A copy of a model with one to three mutations."""
    result = ModelProto()
    result.CopyFrom(model)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if result.graph.node and rng.random() < 0.6:
            _mutate_node(result, rng.choice(result.graph.node), rng)
        elif result.graph.input:
            _mutate_input(result, rng)
    return result


def _mutate_node(model: ModelProto, node: NodeProto, rng: random.Random) -> None:
    match rng.randrange(5):
        case 0 | 1 if node.attribute:
            _mutate_attribute(rng.choice(node.attribute), rng)
        case 2 if node.attribute:
            del node.attribute[rng.randrange(len(node.attribute))]
        case 3 if node.input:
            names = ["", *(i.name for i in model.graph.input)]
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
        case 4 if node.input and rng.random() < 0.5:
            del node.input[rng.randrange(len(node.input))]
        case _:
            node.op_type = rng.choice(_OPERATORS)


def _mutate_attribute(attribute: AttributeProto, rng: random.Random) -> None:
    match attribute.type:
        case AttributeProto.INT:
            attribute.i = rng.choice(_NUMBERS)
        case AttributeProto.FLOAT:
            attribute.f = rng.choice(_FLOATS)
        case AttributeProto.STRING:
            attribute.s = rng.choice(_TEXTS)
        case AttributeProto.INTS if len(attribute.ints) and rng.random() < 0.8:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(_NUMBERS)
        case AttributeProto.INTS:
            attribute.ints.append(rng.choice(_NUMBERS))


def _mutate_input(model: ModelProto, rng: random.Random) -> None:
    index = rng.randrange(len(model.graph.input))
    info = model.graph.input[index]
    tensor = info.type.tensor_type
    match rng.randrange(4):
        case 0:
            tensor.elem_type = rng.randrange(1, 27)
        case 1 if tensor.shape.dim:
            dim = rng.choice(tensor.shape.dim)
            if rng.random() < 0.5:
                dim.dim_value = rng.choice((0, 1, 2, 3, 5, 17))
            else:
                dim.dim_param = rng.choice(("n", "m"))
        case 2:
            _mutate_rank(tensor, rng)
        case _:
            _make_constant(model, index, info, rng)


def _mutate_rank(tensor: TypeProto.Tensor, rng: random.Random) -> None:
    if rng.random() < 0.5:
        tensor.ClearField("shape")
    elif tensor.shape.dim:
        del tensor.shape.dim[rng.randrange(len(tensor.shape.dim))]
    else:
        tensor.shape.dim.add().dim_value = 2


def _make_constant(model: ModelProto, index: int, info: ValueInfoProto, rng: random.Random) -> None:
    tensor = info.type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") else 2 for d in tensor.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type) if tensor.elem_type in range(1, 17) else None
    if math.prod(shape) > 100_000 or dtype is None:
        return
    numbers = [rng.choice((-1, 0, 1, 2, 3, 5)) for _ in range(math.prod(shape))]
    texts = np.full(shape, "a", object)
    data = texts if dtype == object else np.asarray(numbers).reshape(shape).astype(dtype)
    model.graph.initializer.append(numpy_helper.from_array(data, info.name))
    del model.graph.input[index]
