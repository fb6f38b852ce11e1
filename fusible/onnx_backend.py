"""Fusible behind the backend interface of the onnx package (`onnx.backend.base.Backend`).

    import fusible.onnx_backend as backend

    representation = backend.prepare(onnx.load("model.onnx"), device="CPU")
    outputs = representation.run([x])

The official test suite runs through it: `onnx.backend.test.BackendTest(fusible.onnx_backend, __name__)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.backend.base import Backend, BackendRep

import fusible
from fusible.errors import InvalidModel, SignatureError, UsageError

__all__ = [
    "FusibleBackend",
    "FusibleRep",
    "is_compatible",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
]

Inputs = Sequence[Any] | Mapping[str, Any] | np.ndarray

_TARGETS = {"CPU": "numpy"}


class FusibleRep(BackendRep):
    """A compiled model, ready to run. `executable` is the `fusible.Executable`."""

    def __init__(self, executable: fusible.Executable) -> None:
        self.executable = executable

    def run(self, inputs: Inputs, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs in the order of the graph.

        inputs: by name, or in the order of the graph, or the only one. Strings may be bytes (UTF-8). Raises
        SignatureError if they do not fit the model.
        """
        _refuse(kwargs)
        results = self.executable.run(_named(self.executable, inputs))
        return tuple(results[spec.name] for spec in self.executable.outputs)


class FusibleBackend(Backend):
    """Compiles for the device "CPU"."""

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether `device` ("CPU", "CUDA", "CPU:0"...) is one that models can be prepared for."""
        return device.partition(":")[0] in _TARGETS

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the model can be compiled, that is, whether `prepare` raises nothing."""
        try:
            cls.prepare(model, device, **kwargs)
        except fusible.FusibleError:
            return False
        return True

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> FusibleRep:
        """Compile `model`. Raises what `fusible.compile` raises, UsageError for another device or other arguments.

        kwargs: shapes, passes and options, as `fusible.compile` takes them.
        """
        if not cls.supports_device(device):
            raise UsageError(f"device must be one of {', '.join(_TARGETS)}, got {device!r}")
        settings = {name: kwargs.pop(name) for name in ("shapes", "passes", "options") if name in kwargs}
        _refuse(kwargs)
        return FusibleRep(fusible.compile(model, target=_TARGETS[device.partition(":")[0]], **settings))

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Inputs, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """Compile and run at once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Inputs,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run a model of this one node.

        inputs: the tensors of the node's non-empty inputs, by name or in order. outputs_info: dtype and shape of each
        output; inferred if absent. kwargs: opset_version (default: the newest) and what `prepare` takes.
        """
        opset = int(kwargs.pop("opset_version", onnx.defs.onnx_opset_version()))
        model = _single_node_model(node, inputs, outputs_info, opset)
        return cls.prepare(model, device, **kwargs).run(inputs)


def _single_node_model(
    node: onnx.NodeProto,
    inputs: Inputs,
    outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None,
    opset: int,
) -> onnx.ModelProto:
    names = list(dict.fromkeys(name for name in node.input if name))
    arrays = [np.asarray(inputs[name]) for name in names] if isinstance(inputs, Mapping) else _in_order(inputs)
    if len(arrays) != len(names):
        raise InvalidModel(f"node {node.op_type!r} has inputs {names}, but {len(arrays)} arrays were given")
    results = [name for name in node.output if name]
    if outputs_info is None:
        outputs = [helper.make_empty_tensor_value_info(name) for name in results]
    else:
        outputs = [_value_info(name, dtype, shape) for name, (dtype, shape) in zip(results, outputs_info, strict=True)]
    graph = helper.make_graph(
        [node], "node", [_value_info(n, a.dtype, a.shape) for n, a in zip(names, arrays, strict=True)], outputs
    )
    opsets = [helper.make_opsetid("", opset)]
    if node.domain not in ("", "ai.onnx"):
        opsets.append(helper.make_opsetid(node.domain, 1))
    return helper.make_model(graph, opset_imports=opsets)


def _value_info(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    text = np.dtype(dtype).kind in "OSU"
    kind = onnx.TensorProto.STRING if text else helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, shape)


def _named(executable: fusible.Executable, inputs: Inputs) -> dict[str, Any]:
    if isinstance(inputs, Mapping):
        return {name: _plain(value) for name, value in inputs.items()}
    values, names = _in_order(inputs), [spec.name for spec in executable.inputs]
    if len(values) != len(names):
        raise SignatureError(", ".join(names), f"{len(names)} inputs", str(len(values)))
    return dict(zip(names, values, strict=True))


def _in_order(inputs: Inputs) -> list[Any]:
    return [_plain(inputs)] if isinstance(inputs, np.ndarray) else [_plain(value) for value in inputs]


def _plain(value: Any) -> Any:
    """An array (strings as `str`), a list for a sequence, None for an empty optional."""
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    array = np.asarray(value)
    if array.dtype.kind not in "OSU":
        return array
    texts = [item.decode() if isinstance(item, bytes) else str(item) for item in array.ravel().tolist()]
    return np.array(texts, dtype=object).reshape(array.shape)


def _refuse(unknown: Mapping[str, Any]) -> None:
    if unknown:
        raise UsageError(f"unknown arguments: {', '.join(unknown)}")


is_compatible = FusibleBackend.is_compatible
prepare = FusibleBackend.prepare
run_model = FusibleBackend.run_model
run_node = FusibleBackend.run_node
supports_device = FusibleBackend.supports_device
