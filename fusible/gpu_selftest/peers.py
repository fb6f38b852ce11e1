"""What torch and onnxruntime take for whole models on the same GPU. Everything here needs one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

from fusible.benchmarks.zoo.catalog import obtain
from fusible.gpu_selftest.rows import CheckFailed, Result, Row, check
from fusible.gpu_selftest.sessions import session_of
from fusible.runtime.executable import Executable

__all__ = ["MODELS", "model_rows"]

MODELS = ("resnet-50", "mobilenet-v2", "bert-base")
"""The zoo's models that are timed by default."""

_RUNS = 30


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
