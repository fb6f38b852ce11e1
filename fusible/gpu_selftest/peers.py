"""What torch and onnxruntime take for the same work on the same GPU. Everything here needs one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import onnx

from fusible.benchmarks.zoo.catalog import obtain
from fusible.gpu_selftest.models import matmul, softmax_rows
from fusible.gpu_selftest.rows import CheckFailed, Result, Row, check
from fusible.gpu_selftest.sessions import session_of
from fusible.runtime.executable import Executable

__all__ = ["MODELS", "kernel_rows", "model_rows"]

MODELS = ("resnet-50", "mobilenet-v2", "bert-base")
"""The zoo's models that are timed by default."""

_RUNS = 30
_HELD = 200_000  # cycles


def kernel_rows(compile_model: Callable[..., Executable]) -> Iterator[Row]:
    """Kernels beside torch's functions, in fp16, by the device's clock."""
    for m, n, k in ((512, 512, 512), (2048, 2048, 2048), (4096, 4096, 4096)):
        product = partial(_kernel, compile_model, matmul(m, n, k), partial(_product, n, k))
        yield from check("kernel", f"matmul {m} x {n} x {k}", product)
    softmax = partial(_kernel, compile_model, softmax_rows(4096, 4096), _softmax)
    yield from check("kernel", "softmax 4096 x 4096", softmax)


def _product(n: int, k: int, torch: Any, x: Any) -> Callable[[], object]:
    w = torch.randn(k, n, device=x.device, dtype=x.dtype)
    return lambda: x @ w


def _softmax(torch: Any, x: Any) -> Callable[[], object]:
    return lambda: torch.softmax(x, -1)


def _kernel(
    compile_model: Callable[..., Executable],
    model: onnx.ModelProto,
    function: Callable[[Any, Any], Callable[[], object]],
) -> str:
    import torch  # noqa: PLC0415 - only where there is a GPU

    executable = compile_model(model, precision="fp16")
    (spec,) = executable.inputs
    shape = tuple(int(d) for d in spec.shape or ())
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    ours = sum(float(row["seconds"]) for row in executable.profile({spec.name: x}, repeat=_RUNS))
    given = torch.from_numpy(x).cuda().half()
    theirs = _torch_seconds(torch, function(torch, given))
    return f"{ours * 1e6:.1f} us, torch {theirs * 1e6:.1f} us: {theirs / ours:.2f} times as fast"


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


def model_rows(compile_model: Callable[..., Executable], names: tuple[str, ...]) -> Iterator[Row]:
    """Latencies of whole models of the zoo, operands on the device, beside the peers that are installed."""
    for name in names:
        for precision in ("fp32", "fp16"):
            yield from check("model", f"{name}, {precision}", partial(_ours, compile_model, name, precision))
        yield from _peer_row(f"{name}, torch.compile fp16", "torch", partial(_inductor, name))
        yield from _peer_row(f"{name}, onnxruntime fp32", "onnxruntime", partial(_onnxruntime, name))


def _peer_row(what: str, package: str, function: Callable[[], str]) -> Iterator[Row]:
    for row in check("model", what, function):
        missing = row.result is Result.FAILED and row.detail.startswith(("ModuleNotFoundError", "CheckFailed: without"))
        yield Row(row.section, what, Result.SKIPPED, f"needs {package} for GPUs") if missing else row


def _ours(compile_model: Callable[..., Executable], name: str, precision: str) -> str:
    obtained = obtain(name)
    executable = compile_model(obtained.path, precision=precision)
    session = session_of(executable)
    inputs: dict[str, Any] = dict(obtained.inputs)
    seconds = _wall(lambda: session.run_on_device(inputs))
    captures = ", ".join(f"{c.launches} launches" for c in session.captures)
    return f"{seconds * 1e3:.3f} ms ({captures or 'no graph'}; {len(executable.report.host)} steps on the host)"


def _inductor(name: str) -> str:
    import torch  # noqa: PLC0415 - a peer, where it is installed

    from fusible.benchmarks.zoo.torch_modules import torch_module  # noqa: PLC0415 - it needs transformers

    module, given = torch_module(name)
    compiled = torch.compile(module.eval().cuda().half(), mode="reduce-overhead")
    inputs = tuple(t.cuda().half() if t.is_floating_point() else t.cuda() for t in given)

    def run() -> None:
        with torch.no_grad():
            compiled(*inputs)
        torch.cuda.synchronize()

    return f"{_wall(run) * 1e3:.3f} ms"


def _onnxruntime(name: str) -> str:
    import onnxruntime  # noqa: PLC0415 - a peer, where it is installed

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise CheckFailed("without CUDAExecutionProvider")
    obtained = obtain(name)
    session = onnxruntime.InferenceSession(obtained.path, providers=["CUDAExecutionProvider"])
    binding = session.io_binding()
    for key, array in obtained.inputs.items():
        binding.bind_ortvalue_input(key, onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda")

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return f"{_wall(run) * 1e3:.3f} ms"


def _wall(function: Callable[[], object]) -> float:
    """The median of wall times, after three runs."""
    for _ in range(3):
        function()
    samples = []
    for _ in range(_RUNS):
        began = perf_counter()
        function()
        samples.append(perf_counter() - began)
    return median(samples)
