"""Outputs that float32 cannot give to the bound, whatever computes them: float64 and a second float32 system decide.

The target numpy computes some functions in float64 (a GELU's 1 + erf cancels in float32), so that its own error is not
always what float32 allows. ONNX Runtime without optimisations computes them as everybody does. Its error at one place
may be small by luck, so it is looked at for inputs close to those of the sample.

Nothing is wider than float64: there the output is looked at for inputs that are moved in their last place.

Where it gives an output exactly by chance, or has no such type, each value on the way is rounded somehow (rounding.py).

And the kernels of activations that multiply by x state their errors in ulp of x (kernels/cpu/vector_math.h), for the
result may be as small as one pleases: what such errors make of the output is looked at in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort

import fusible
from fusible.compiler.accuracy import Bound, compare
from tests import oracle
from tests.differential.builder import Sample
from tests.differential.rounding import moved
from tests.differential.tensors import F32

__all__ = ["alone", "is_ill_conditioned", "widened"]

_WORSE = 8  # times the error of another float32 system against float64 that an error may be
_WINOGRAD = 10  # times a plain sum's is the error of F(4x4), for which the table of bounds leaves room
_SMALL = 1e-6
_ROUNDED = 4  # times what the rounding of each value alone makes: sums round their terms too
_NEIGHBOURS, _NEAR = 8, 1e-5  # inputs are moved by so much of themselves at most
_ORT_ERRORS = (ort.Fail, ort.InvalidArgument, ort.InvalidGraph, ort.NotImplemented, ort.RuntimeException)
_SHORT = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_FLOATS = (TensorProto.FLOAT, *_SHORT)
Arrays = Mapping[str, np.ndarray]


def is_ill_conditioned(sample: Sample, name: str, expected: np.ndarray, got: np.ndarray) -> bool:
    """True if an output's error has the size of numpy's, of ONNX Runtime's near the same inputs, or of rounding's."""
    one = alone(sample, name)
    try:
        errs = _errs_as_inputs if expected.dtype == np.float64 and not _reads_float32(one) else _errs_as_float32
        return errs(one, name, expected, got) or _errs_by_rounding(one, name, got)
    except (fusible.FusibleError, *_ORT_ERRORS):
        return False


def _reads_float32(one: Sample) -> bool:
    """True if an input or a constant is float32: what is computed of it is no better in a float64 output."""
    constants = (tensor.data_type == TensorProto.FLOAT for tensor in one.model.graph.initializer)
    return any(constants) or any(array.dtype == F32 for array in one.feeds.values())


def _errs_as_inputs(one: Sample, name: str, expected: np.ndarray, got: np.ndarray) -> bool:
    """True if an error in float64 has the size of those that come of inputs that are off in the last place."""
    if not compare(expected, got, Bound(np.inf, np.inf)):
        return False
    executable, finite = fusible.compile(one.model, target="numpy"), np.isfinite(expected) & np.isfinite(got)
    ours, *others = (
        float(np.max(np.abs(values - expected), initial=0.0, where=finite))
        for values in (got, *(executable.run(_off(one.feeds, seed))[name] for seed in range(_NEIGHBOURS)))
    )
    return ours <= _ROUNDED * max(others)


def _off(feeds: Arrays, seed: int) -> Arrays:
    """Inputs in float64 of which each element is the next number above, or below, or itself."""
    random = np.random.default_rng(seed)
    return {
        key: np.nextafter(array, array + random.integers(-1, 2, array.shape)) if array.dtype == np.float64 else array
        for key, array in feeds.items()
    }


def _errs_by_rounding(one: Sample, name: str, got: np.ndarray) -> bool:
    """True if an error has the size of those that come of rounding each value on the way."""
    wide = widened(one, short=True)
    feeds = {key: array.astype(np.float64) if _is_float(array) else array for key, array in one.feeds.items()}
    exact = _in_float64(wide, one.feeds, name) if wide is not None else None
    if wide is None or exact is None or not compare(exact, np.asarray(got, np.float64), Bound(np.inf, np.inf)):
        return False
    finite = np.isfinite(exact) & np.isfinite(np.asarray(got, np.float64))
    others = (moved(one.model, wide, feeds, name, n) for n in range(_NEIGHBOURS))
    ours, *rounded = (
        float(np.max(np.abs(values - exact), initial=0.0, where=finite)) for values in (np.float64(got), *others)
    )
    return ours <= _ROUNDED * max(rounded)


def _errs_as_float32(one: Sample, name: str, expected: np.ndarray, got: np.ndarray) -> bool:
    if expected.dtype not in (F32, np.float64):
        return False
    wide = widened(one)
    if wide is None:
        return False
    worse = _WORSE * (_WINOGRAD if any(map(_has_three_taps, one.model.graph.node)) else 1)
    exact = _in_float64(wide, one.feeds, name)
    ours, least = _error(exact, got), _error(exact, expected)
    if ours > worse * least + _SMALL:
        least = _stated(wide, one.feeds, name, exact)
    if ours > worse * least + _SMALL:
        least = max((_near(one, wide, name, seed) for seed in range(_NEIGHBOURS)), default=np.inf)
    return bool(np.isfinite(least)) and ours <= worse * least + _SMALL


def _has_three_taps(node: NodeProto) -> bool:
    """True for convolutions that Winograd's algorithm may compute: 3 or 5 taps along an axis."""
    shape = next((list(a.ints) for a in node.attribute if a.name == "kernel_shape"), [])
    return node.op_type == "Conv" and bool({3, 5} & set(shape))


def _near(sample: Sample, wide: onnx.ModelProto, name: str, seed: int) -> float:
    """The error of ONNX Runtime in float32 for inputs that are not quite the sample's."""
    random = np.random.default_rng(seed)
    feeds = {
        key: array * (1 + random.uniform(-_NEAR, _NEAR, array.shape)).astype(F32) if array.dtype == F32 else array
        for key, array in sample.feeds.items()
    }
    return _error(_in_float64(wide, feeds, name), oracle.run(sample.model, feeds)[name])


def _stated(wide: onnx.ModelProto, feeds: Arrays, name: str, exact: np.ndarray) -> float:
    """The error that errors of activations make, of an ulp of what they multiply."""
    model = onnx.ModelProto()
    model.CopyFrom(wide)
    producers = {output: node for node in wide.graph.node for output in node.output}
    nodes: list[NodeProto] = []
    for node in wide.graph.node:
        nodes.append(node)
        factor = _factor(node, producers)
        if factor is not None:
            (out,) = node.output
            nodes[-1] = NodeProto()
            nodes[-1].CopyFrom(node)
            nodes[-1].output[0] = f"{out}_exact"
            ulp = onnx.helper.make_node("Constant", [], [f"{out}_ulp"], value_float=2.0**-23)
            wide_ulp = onnx.helper.make_node("Cast", [f"{out}_ulp"], [f"{out}_wide_ulp"], to=TensorProto.DOUBLE)
            error = onnx.helper.make_node("Mul", [factor, f"{out}_wide_ulp"], [f"{out}_error"])
            nodes += [ulp, wide_ulp, error, onnx.helper.make_node("Add", [f"{out}_exact", f"{out}_error"], [out])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return _error(exact, _in_float64(model, feeds, name))


def _factor(node: NodeProto, producers: Mapping[str, NodeProto]) -> str | None:
    """What an activation multiplies: the input of a Gelu or Swish, the other factor of a product with a step."""
    if node.op_type in ("Gelu", "Swish"):
        return str(node.input[0])
    if node.op_type == "Mul":
        for factor, step in (node.input, reversed(node.input)):
            if _is_step(step, producers, 3):
                return str(factor)
    return None


def _is_step(name: str, producers: Mapping[str, NodeProto], depth: int) -> bool:
    """True for a sigmoid, and for what a Tanh or Erf becomes by a few sums and products."""
    node = producers.get(name)
    if node is None:
        return False
    if node.op_type in ("Sigmoid", "Tanh", "Erf"):
        return True
    return (
        node.op_type in ("Add", "Mul", "Div")
        and depth > 0
        and any(_is_step(other, producers, depth - 1) for other in node.input)
    )


def _error(exact: np.ndarray, got: np.ndarray) -> float:
    found = compare(exact, np.asarray(got, np.float64), Bound(np.inf, np.inf))
    return found.max_error if found else np.inf


def _is_float(array: np.ndarray) -> bool:
    return array.dtype == F32 or (array.dtype.itemsize == 2 and array.dtype.kind not in "iu")


def _in_float64(wide: onnx.ModelProto, feeds: Arrays, name: str) -> np.ndarray:
    fed = {key: array.astype(np.float64) if _is_float(array) else array for key, array in feeds.items()}
    found: np.ndarray = fusible.compile(wide, target="numpy").run(fed)[name]
    return found


def alone(sample: Sample, name: str) -> Sample:
    """The sample with one output, and what that is computed from."""
    graph, wanted, nodes = sample.model.graph, {name}, []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            nodes.append(node)
            wanted.update(_read(node))
    model = onnx.ModelProto()
    model.CopyFrom(sample.model)
    del model.graph.node[:], model.graph.input[:], model.graph.output[:], model.graph.initializer[:]
    model.graph.node.extend(reversed(nodes))
    model.graph.input.extend(v for v in graph.input if v.name in wanted)
    model.graph.output.extend(v for v in graph.output if v.name == name)
    model.graph.initializer.extend(t for t in graph.initializer if t.name in wanted)
    return Sample(model, {key: array for key, array in sample.feeds.items() if key in wanted}, sample.known)


def _read(node: NodeProto) -> set[str]:
    """All names that a node reads, those within its subgraphs too."""
    found = set(node.input)
    for graph in _subgraphs(node):
        found.update(name for inner in graph.node for name in _read(inner))
        found.update(value.name for value in graph.output)
    return found


def widened(sample: Sample, *, short: bool = False) -> onnx.ModelProto | None:
    """The model in float64; None if it holds shorter floats, whose roundings belong to its meaning, unless `short`."""
    model = onnx.ModelProto()
    model.CopyFrom(sample.model)
    if not short and any(_is_float(array) and array.dtype != F32 for array in sample.feeds.values()):
        return None
    graphs = list(_graphs(model.graph))[::-1]  # inner ones first: nodes are copied
    fixed = {name for graph in graphs for node in graph.node if node.op_type == "Resize" for name in node.input[1:]}
    for graph in graphs:
        for node in graph.node:
            if not short and node.op_type == "Cast" and any(a.name == "to" and a.i in _SHORT for a in node.attribute):
                return None
            _widen_node(node)
        with_casts = [one for node in graph.node for one in _between_casts(node)]
        del graph.node[:]
        graph.node.extend(with_casts)
        for tensor in graph.initializer:
            if not short and tensor.data_type in _SHORT:
                return None
            if tensor.name not in fixed:
                _widen_tensor(tensor)
        for value in (*graph.input, *graph.output, *graph.value_info):
            _widen_value(value)
    return model


def _widen_node(node: NodeProto) -> None:
    if node.op_type == "Celu" and all(a.f == 1.0 for a in node.attribute):
        node.op_type = "Elu"  # the same for alpha = 1, and there in float64
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _FLOATS:
            attribute.i = TensorProto.DOUBLE
        if attribute.type == onnx.AttributeProto.TENSOR:
            _widen_tensor(attribute.t)


# Of ops that know no float64: the inputs and the outputs that are floats.
_NARROW = {"QuantizeLinear": ((0, 1), ()), "DequantizeLinear": ((1,), (0,)), "DynamicQuantizeLinear": ((0,), (1,))}


def _between_casts(node: NodeProto) -> list[NodeProto]:
    """A node, with casts from and to float64 around it if it is a quantisation."""
    inputs, outputs = _NARROW.get(node.op_type, ((), ()))
    before, after = [], []
    for number in inputs:
        name = f"{node.output[0]}_narrow_{number}"
        before.append(helper.make_node("Cast", [node.input[number]], [name], to=TensorProto.FLOAT))
        node.input[number] = name
    for number in outputs:
        name = f"{node.output[number]}_narrow"
        after.append(helper.make_node("Cast", [name], [node.output[number]], to=TensorProto.DOUBLE))
        node.output[number] = name
    return [*before, node, *after]


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type in _FLOATS:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


def _widen_value(value: ValueInfoProto) -> None:
    if value.type.tensor_type.elem_type in _FLOATS:
        value.type.tensor_type.elem_type = TensorProto.DOUBLE


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for inner in _subgraphs(node):
            yield from _graphs(inner)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs
