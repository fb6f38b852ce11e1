"""From an architecture in torch to an ONNX model, by either exporter of torch.

The same versions give the same bytes: what names files or lines of the machine that exported is stripped.
"""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Iterator, Sequence

import onnx
import torch
from google.protobuf.message import Message
from torch import nn

from fusible.benchmarks.zoo.architectures.table import Architecture, architecture, example_inputs
from fusible.benchmarks.zoo.torch_modules import torch_module
from fusible.errors import FusibleError, UsageError

__all__ = ["ExportError", "export"]

OPSET = 20
_TRACED_BATCH = 2  # torch.export takes a batch of 1 for a constant
_PROTOBUF_LIMIT = 2**31


class ExportError(FusibleError):
    """An exporter of torch refused an architecture."""


def export(name: str, exporter: str, *, dynamic: bool = False, batch: int = 1) -> onnx.ModelProto:
    """The ONNX model of an architecture, with weights; names of inputs and outputs as in `architectures.table`.

    exporter: "torchscript" or "dynamo". dynamic: the first dimension of every input and output is the symbol `batch`.
    Raises UsageError for an unknown name or a batch below 1, ExportError if torch refuses.
    """
    if batch < 1:
        raise UsageError(f"batch must be at least 1, got {batch}")
    row = architecture(name)
    module, arguments = torch_module(name, max(batch, _TRACED_BATCH) if dynamic else batch)
    inputs = list(example_inputs(name))
    run = _torchscript if exporter == "torchscript" else _dynamo
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what torch will do in later releases, and constants in traces
            model = run(row, module, arguments, inputs, dynamic)
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(
            f"{name} cannot be exported by {exporter}: {str(error).splitlines()[0]}; take the other exporter"
        ) from error
    _strip(model)
    with torch.no_grad():
        results = module(*arguments)
    _declare_outputs(model, [results] if isinstance(results, torch.Tensor) else results, dynamic)
    if model.ByteSize() >= _PROTOBUF_LIMIT:
        raise ExportError(f"{name} has {model.ByteSize()} bytes, more than one ONNX file may have ({_PROTOBUF_LIMIT})")
    return model


def _torchscript(
    row: Architecture, module: nn.Module, arguments: tuple[torch.Tensor, ...], inputs: list[str], dynamic: bool
) -> onnx.ModelProto:
    file = io.BytesIO()
    torch.onnx.export(
        module,
        arguments,
        file,
        dynamo=False,
        opset_version=OPSET,
        input_names=inputs,
        output_names=list(row.outputs),
        dynamic_axes={value: {0: "batch"} for value in (*inputs, *row.outputs)} if dynamic else None,
    )
    return onnx.load_from_string(file.getvalue())


def _dynamo(
    row: Architecture, module: nn.Module, arguments: tuple[torch.Tensor, ...], inputs: list[str], dynamic: bool
) -> onnx.ModelProto:
    program = torch.onnx.export(
        module,
        arguments,
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=inputs,
        output_names=list(row.outputs),
        dynamic_shapes=_dynamic_shapes(module, arguments) if dynamic else None,
    )
    model: onnx.ModelProto = program.model_proto
    return model


def _dynamic_shapes(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> dict[str, object]:
    """By parameter of `forward`: the first dimension is symbolic; a starred parameter takes a tuple."""
    batch = {0: torch.export.Dim("batch")}
    bound = inspect.signature(module.forward).bind(*arguments).arguments
    return {key: tuple(batch for _ in value) if isinstance(value, tuple) else batch for key, value in bound.items()}


def _strip(model: onnx.ModelProto) -> None:
    """Remove doc strings and metadata: they hold stack traces with paths."""
    for proto in _documented(model):
        proto.ClearField("doc_string")
        proto.ClearField("metadata_props")


def _documented(model: onnx.ModelProto) -> Iterator[Message]:
    yield model
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        yield from (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer)
        attributes = [attribute for node in graph.node for attribute in node.attribute]
        graphs += [attribute.g for attribute in attributes if attribute.type == onnx.AttributeProto.GRAPH]


def _declare_outputs(model: onnx.ModelProto, results: Sequence[torch.Tensor], dynamic: bool) -> None:
    """Write the known sizes of the outputs in place of symbols that an exporter made up."""
    for value, result in zip(model.graph.output, results, strict=True):
        shape = ["batch" if dynamic else result.shape[0], *result.shape[1:]]
        element = value.type.tensor_type.elem_type
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, element, shape))
