"""The cases of `onnx.backend.test`: what they are called, which operator they are about, their models and data."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")

Value = np.ndarray | list["Value"] | None

_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
_SILENT = {"Constant", "Identity"}
_BY_EXAMPLE = "_expanded"


@dataclass(frozen=True)
class Case:
    """One case: a model (a file, or in memory), inputs and the outputs expected, within rtol and atol."""

    name: str
    kind: str
    op: str
    model: onnx.ModelProto
    path: Path | None
    data_sets: tuple[tuple[tuple[Value, ...], tuple[Value, ...]], ...]
    rtol: float
    atol: float

    @property
    def source(self) -> Path | onnx.ModelProto:
        """What to compile."""
        return self.model if self.path is None else self.path

    @property
    def random(self) -> bool:
        """Whether the numbers are drawn at random, so that only shapes and dtypes can be compared."""
        return any(node.op_type in _RANDOM or _drops_out(node) for node in _all_nodes(self.model))

    def feeds(self, inputs: Iterable[Value]) -> dict[str, Value]:
        """The inputs of a data set by name: they stand for the graph's inputs in order."""
        values, stored = list(inputs), {tensor.name for tensor in self.model.graph.initializer}
        names = [value.name for value in self.model.graph.input]
        if len(values) < len(names):
            names = [name for name in names if name not in stored]
        return dict(zip(names, values, strict=True))


@functools.cache
def load_cases(kind: str) -> tuple[Case, ...]:
    """All cases of a kind, sorted by name. Those of kind "node" are computed by onnx, which takes about ten seconds."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():  # onnx computes infinities on purpose
        warnings.simplefilter("ignore")
        tests = sorted(load_model_tests(kind=kind), key=lambda test: test.name)
    ops = {test.name: _op(_model(test)) for test in tests}
    return tuple(_case(test, ops.get(test.name.partition(_BY_EXAMPLE)[0], ops[test.name])) for test in tests)


def _model(test: Any) -> onnx.ModelProto:
    return test.model if test.model is not None else onnx.load(Path(test.model_dir) / "model.onnx")


def _case(test: Any, op: str) -> Case:
    model = _model(test)
    path = None if test.model_dir is None else Path(test.model_dir) / "model.onnx"
    if path is None:
        sets = tuple((tuple(map(plain, inputs)), tuple(map(plain, outputs))) for inputs, outputs in test.data_sets)
    else:
        folders = sorted(path.parent.glob("test_data_set_*"))
        graph = model.graph
        sets = tuple((_read(f, "input", graph.input), _read(f, "output", graph.output)) for f in folders)
    return Case(test.name, test.kind, op, model, path, sets, test.rtol, test.atol)


def _op(model: onnx.ModelProto) -> str:
    """The first operator that computes something, with its domain if it is not the standard one."""
    loud = [node for node in model.graph.node if node.op_type not in _SILENT] or list(model.graph.node)
    first = loud[0]
    return f"{first.domain}.{first.op_type}" if first.domain not in ("", "ai.onnx") else first.op_type


def _read(folder: Path, side: str, declared: Iterable[onnx.ValueInfoProto]) -> tuple[Value, ...]:
    files = sorted(folder.glob(f"{side}_*.pb"), key=lambda path: int(path.stem.rpartition("_")[2]))
    return tuple(_parse(path.read_bytes(), value.type) for path, value in zip(files, declared, strict=False))


def _parse(content: bytes, declared: onnx.TypeProto) -> Value:
    match declared.WhichOneof("value"):
        case "sequence_type":
            return plain(numpy_helper.to_list(onnx.SequenceProto.FromString(content)))
        case "optional_type":
            return plain(numpy_helper.to_optional(onnx.OptionalProto.FromString(content)))
        case _:
            return plain(onnx.TensorProto.FromString(content))


def plain(value: Any) -> Value:
    """A value of a data set as an array (strings as `str`), a list for a sequence, or None for an empty optional."""
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    array = np.asarray(numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value)
    if array.dtype.kind not in "OSU":
        return array
    texts = [item.decode() if isinstance(item, bytes) else str(item) for item in array.ravel().tolist()]
    return np.array(texts, dtype=object).reshape(array.shape)


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from _nodes(model.graph.node)
    for function in model.functions:
        yield from _nodes(function.node)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g.node)


def _drops_out(node: onnx.NodeProto) -> bool:
    return node.op_type == "Dropout" and len(node.input) == 3
