"""Kernels beside torch's functions for the same work: models of one operator in fp16, channels last where they are
images, and what calls the library on the same operands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fusible.gpu_selftest.rows import Row, check, require
from fusible.runtime.executable import Executable

__all__ = ["KERNELS", "Kernel", "kernel_rows"]

Function: TypeAlias = Callable[..., Any]
"""Of torch, its functions module, the inputs and the constants, as tensors on the GPU; gives the output."""

_RUNS = 30
_HELD = 200_000  # cycles
_TOLERANCE = 2e-2  # of the root mean square of torch's result: sums of fp16 in another order


@dataclass(frozen=True, slots=True)
class Kernel:
    """A model of one operator, and torch's function of the same. constants: by name, in the order torch takes them."""

    name: str
    model: onnx.ModelProto
    constants: tuple[str, ...]
    torch_function: Function


def _model(
    nodes: list[onnx.NodeProto], inputs: Mapping[str, tuple[int, ...]], constants: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape) for name, shape in inputs.items()]
    known = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "kernel", given, [onnx.ValueInfoProto(name="y")], known)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


def _node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], name=output, **attributes)


def _weights(*shape: int) -> np.ndarray:
    made: np.ndarray = np.random.default_rng(sum(shape)).standard_normal(shape, np.float32) / np.sqrt(shape[0])
    return made.astype(np.float16)


def _matmul(m: int, n: int, k: int) -> Kernel:
    model = _model([_node("MatMul", "x w", "y")], {"x": (m, k)}, {"w": _weights(k, n)})
    return Kernel(f"matmul {m} x {n} x {k}", model, ("w",), lambda torch, f, x, w: x @ w)


def _convolution(batch: int, channels: int, pixels: int, filters: int, size: int, groups: int = 1) -> Kernel:
    nodes = [
        _node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        _node("Conv", "t w b", "c", pads=[size // 2] * 4, group=groups),
        _node("Relu", "c", "r"),
        _node("Transpose", "r", "y", perm=[0, 2, 3, 1]),
    ]
    weights = _weights(channels // groups * size * size, filters).reshape(channels // groups, size, size, filters)
    constants = {"w": np.ascontiguousarray(weights.transpose(3, 0, 1, 2)), "b": _weights(filters)}
    kind = "depthwise convolution" if groups == channels else "convolution"
    name = f"{kind} {size} x {size}, {channels} to {filters}, {pixels} x {pixels} pixels, batch {batch}"
    model = _model(nodes, {"x": (batch, pixels, pixels, channels)}, constants)
    return Kernel(name, model, ("w", "b"), partial(_torch_convolution, size, groups))


def _torch_convolution(size: int, groups: int, torch: Any, f: Any, x: Any, w: Any, b: Any) -> Any:
    w = w.contiguous(memory_format=torch.channels_last)
    return torch.relu_(f.conv2d(x.permute(0, 3, 1, 2), w, b, 1, size // 2, 1, groups)).permute(0, 2, 3, 1)


def _attention(batch: int, heads: int, queries: int, keys: int, size: int, *, causal: bool = False) -> Kernel:
    shapes = {"q": (batch, heads, queries, size), "k": (batch, heads, keys, size), "v": (batch, heads, keys, size)}
    model = _model([_node("Attention", "q k v", "y", is_causal=int(causal))], shapes, {})
    name = f"attention {queries} of {keys}, {batch * heads} heads of {size}" + (", causal" if causal else "")

    def function(torch: Any, f: Any, q: Any, k: Any, v: Any) -> Any:
        return f.scaled_dot_product_attention(q, k, v, is_causal=causal)

    return Kernel(name, model, (), function)


def _rows_of(op: str, rows: int, columns: int) -> Kernel:
    if op == "softmax":
        model = _model([_node("Softmax", "x", "y", axis=-1)], {"x": (rows, columns)}, {})
        return Kernel(f"softmax {rows} x {columns}", model, (), lambda torch, f, x: torch.softmax(x, -1))
    constants = {"g": _weights(columns), "b": _weights(columns)}
    model = _model([_node("LayerNormalization", "x g b", "y", axis=-1)], {"x": (rows, columns)}, constants)
    name = f"layer norm {rows} x {columns}"
    return Kernel(name, model, ("g", "b"), lambda torch, f, x, g, b: f.layer_norm(x, (columns,), g, b))


KERNELS: tuple[Callable[[], Kernel], ...] = (
    *(partial(_matmul, m, n, k) for m, n, k in ((1, 4096, 4096), (128, 3072, 768), (128, 768, 3072))),
    *(partial(_matmul, n, n, n) for n in (512, 1024, 2048, 4096)),
    partial(_convolution, 1, 256, 14, 256, 3),
    partial(_convolution, 32, 64, 56, 64, 3),
    partial(_convolution, 32, 64, 56, 256, 1),
    partial(_convolution, 32, 256, 14, 256, 3),
    partial(_convolution, 32, 192, 28, 192, 3, groups=192),
    partial(_convolution, 1, 384, 14, 384, 7, groups=384),
    partial(_attention, 1, 12, 512, 512, 64),
    partial(_attention, 4, 32, 2048, 2048, 128, causal=True),
    partial(_attention, 1, 32, 1, 4096, 128),
    partial(_rows_of, "softmax", 4096, 4096),
    partial(_rows_of, "layer norm", 128, 768),
    partial(_rows_of, "layer norm", 4096, 4096),
)
"""What is timed; each is made when its turn comes."""


def kernel_rows(compile_model: Callable[..., Executable]) -> Iterator[Row]:
    """Kernels beside torch's functions, in fp16, checked and then timed by the device's clock. Needs a GPU."""
    for make in KERNELS:
        kernel = make()
        yield from check("kernel", kernel.name, partial(_beside, compile_model, kernel))


def _beside(compile_model: Callable[..., Executable], kernel: Kernel) -> str:
    import torch  # noqa: PLC0415 - only where there is a GPU

    executable = compile_model(kernel.model, precision="fp16")
    generator = np.random.default_rng(0)
    inputs = {
        spec.name: generator.standard_normal(tuple(map(int, spec.shape or ())), np.float32).astype(np.float16)
        for spec in executable.inputs
    }
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in kernel.model.graph.initializer}
    tensors = [torch.tensor(a).cuda() for a in (*inputs.values(), *(known[c] for c in kernel.constants))]
    function = partial(kernel.torch_function, torch, torch.nn.functional, *tensors)
    error = _error(executable.run(inputs)["y"], function().float().cpu().numpy())
    require(error <= _TOLERANCE, f"error {error:.1e} beside torch, allowed {_TOLERANCE:.0e}")
    steps = executable.profile(inputs, repeat=_RUNS)
    ours, theirs = sum(float(step["seconds"]) for step in steps), _torch_seconds(torch, function)
    launches = "" if len(steps) == 1 else f" in {len(steps)} steps"
    return f"{ours * 1e6:.1f} us{launches}, torch {theirs * 1e6:.1f} us: {theirs / ours:.2f} times as fast"


def _error(got: np.ndarray, wanted: np.ndarray) -> float:
    """The root mean square of differences, by that of what is wanted."""
    difference = got.astype(np.float64) - wanted
    return float(np.sqrt(np.mean(difference**2)) / np.sqrt(np.mean(wanted.astype(np.float64) ** 2)))


def _torch_seconds(torch: Any, function: Callable[[], object]) -> float:
    """The least time between events, after a warm-up; the device is held up until the host has launched everything."""
    function()
    samples = []
    for _ in range(_RUNS):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(_HELD)
        before.record()
        function()
        after.record()
        after.synchronize()
        samples.append(before.elapsed_time(after) / 1000)
    return float(min(samples))
