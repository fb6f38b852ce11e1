"""Make a failing sample small: fewer outputs, fewer nodes, smaller dimensions, while it fails in the same way."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import AttributeProto, helper, numpy_helper

import fusible
from tests.differential.builder import Sample
from tests.differential.judge import plain, without_symbols

__all__ = ["kind_of", "shrink"]


def kind_of(reason: str) -> str:
    """What two failures have in common whose numbers and names differ."""
    return re.sub(r"\(.*|'[^']*'|[-+]?[\d.]+(e[-+]?\d+)?", "", reason.partition("exceeds")[0]).strip()[:60]


@dataclass
class _Search:
    sample: Sample
    fails: Callable[[Sample], bool]
    deadline: float

    def accepts(self, candidate: Sample | None) -> bool:
        """Take the candidate if it fails too."""
        if candidate is None or time.monotonic() > self.deadline or not self.fails(candidate):
            return False
        self.sample = candidate
        return True


def shrink(sample: Sample, fails: Callable[[Sample], bool], seconds: float) -> Sample:
    """The smallest sample found for which `fails` holds, in about so much time."""
    search = _Search(sample, fails, time.monotonic() + seconds)
    search.accepts(without_symbols(sample))
    for name in search.sample.outputs:
        if search.accepts(_with_output(search.sample, name)):
            break
    again = True
    while again and time.monotonic() < search.deadline:
        again = any([_fewer_nodes(search), _smaller_sizes(search)])
    return search.sample


def _fewer_nodes(search: _Search) -> bool:
    """End earlier, feed the value of a node instead of computing it, leave a node out."""
    progress = False
    for way in (_ends, _cuts, _bypasses):
        again = True
        while again and time.monotonic() < search.deadline:
            again = any(search.accepts(candidate) for candidate in way(search.sample))
            progress = progress or again
    return progress


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _with_output(sample: Sample, *names: str) -> Sample | None:
    """The sample with other outputs, and no node that leads to none of them."""
    if any(name not in sample.known for name in names):
        return None
    model = _copied(sample.model)
    del model.graph.output[:]
    for name in names:
        kind = helper.np_dtype_to_tensor_dtype(sample.known[name].dtype)
        model.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return _pruned(model, dict(sample.feeds), sample)


def _pruned(model: onnx.ModelProto, feeds: dict[str, np.ndarray], sample: Sample) -> Sample | None:
    needed, kept = {value.name for value in model.graph.output}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    if not kept:
        return None
    for held, wanted in (
        (model.graph.node, list(reversed(kept))),
        (model.graph.input, [value for value in model.graph.input if value.name in needed]),
        (model.graph.initializer, [tensor for tensor in model.graph.initializer if tensor.name in needed]),
    ):
        copies = [type(item).FromString(item.SerializeToString()) for item in wanted]
        del held[:]
        held.extend(copies)
    return Sample(model, {name: array for name, array in feeds.items() if name in needed}, sample.known)


def _ends(sample: Sample) -> Iterator[Sample | None]:
    """Samples whose output is a value in the middle, the first first."""
    outputs = set(sample.outputs)
    for node in list(sample.model.graph.node)[:-1]:
        for name in node.output:
            if name not in outputs:
                yield _with_output(sample, name)


def _cuts(sample: Sample) -> Iterator[Sample | None]:
    """Samples in which a value is fed that was computed, the last first."""
    names = [n for node in sample.model.graph.node for n in node.output if n in sample.known]
    inner = [n for n in names if n not in sample.outputs]
    probed = _with_output(sample, *names)
    if probed is None:
        return
    try:
        values = plain(probed)
    except fusible.FusibleError:
        return
    for name in reversed(inner):
        model = _copied(sample.model)
        for node in model.graph.node:
            for place, output in enumerate(node.output):
                if output == name:
                    node.output[place] = f"{name}_unused" if len(node.output) > 1 else ""
        kept = [node for node in model.graph.node if any(node.output)]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del model.graph.node[:]
        model.graph.node.extend(copies)
        kind = helper.np_dtype_to_tensor_dtype(values[name].dtype)
        model.graph.input.append(helper.make_tensor_value_info(name, kind, values[name].shape))
        yield _pruned(model, {**sample.feeds, name: values[name]}, sample)


def _bypasses(sample: Sample) -> Iterator[Sample | None]:
    """Samples in which readers of a node read one of its operands of the same type instead."""
    for node in sample.model.graph.node:
        result = sample.known.get(node.output[0])
        for name in node.input:
            operand = sample.known.get(name)
            if result is None or operand is None or node.output[0] in sample.outputs:
                continue
            if (operand.dtype, operand.shape) == (result.dtype, result.shape):
                model = _copied(sample.model)
                for reader in model.graph.node:
                    for place, read in enumerate(reader.input):
                        if read == node.output[0]:
                            reader.input[place] = name
                yield _pruned(model, dict(sample.feeds), sample)


def _smaller_sizes(search: _Search) -> bool:
    """Replace a size, wherever it occurs in operands, constants of shapes and attributes, by a smaller one."""
    progress = False
    arrays = [*search.sample.feeds.values(), *map(numpy_helper.to_array, search.sample.model.graph.initializer)]
    for size in sorted({extent for array in arrays for extent in array.shape if extent > 1}, reverse=True):
        for smaller in (1, 2, 3, size // 2):
            if smaller < size and search.accepts(_resized(search.sample, size, smaller)):
                progress = True
                break
    return progress


def _resized(sample: Sample, old: int, new: int) -> Sample:
    def cut(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array[tuple(slice(new if extent == old else extent) for extent in array.shape)])

    def number(value: int) -> int:
        return new if value == old else value

    model = _copied(sample.model)
    for tensor in model.graph.initializer:
        array = cut(numpy_helper.to_array(tensor)) if tensor.dims else numpy_helper.to_array(tensor)
        if array.dtype == np.int64 and array.size < 8:
            array = np.asarray([number(v) for v in array.ravel().tolist()], np.int64).reshape(array.shape)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.INT and attribute.name in ("group", "num_groups", "num_outputs"):
                attribute.i = number(attribute.i)
            elif attribute.name == "kernel_shape":
                attribute.ints[:] = [number(v) for v in attribute.ints]
    feeds = {name: cut(array) if array.ndim else array for name, array in sample.feeds.items()}
    for value in model.graph.input:
        for dim, extent in zip(value.type.tensor_type.shape.dim, feeds[value.name].shape, strict=True):
            dim.dim_value = extent
    return Sample(model, feeds, sample.known)
