"""Plain loops, as somebody would write them who has never heard of this benchmark: the rows must agree with them.

Each function sets a system up as its documentation's first page does. The loop runs it once to warm up, then
`iterations` times, and returns the mean seconds. Nothing is shared with the adapters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import numpy as np

from fusible.benchmarks.peers.protocol import Job, PeerError

__all__ = ["PLAIN_LOOPS", "Loop"]

Loop: TypeAlias = Callable[[int], float]


def _onnxruntime(job: Job) -> Loop:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    session = onnxruntime.InferenceSession(str(job.model), options, providers=["CPUExecutionProvider"])
    feeds = {i.name: job.inputs[i.name] for i in session.get_inputs()}

    def loop(iterations: int) -> float:
        session.run(None, feeds)
        started = time.perf_counter()
        for _ in range(iterations):
            session.run(None, feeds)
        return (time.perf_counter() - started) / iterations

    return loop


def _openvino(job: Job) -> Loop:
    import openvino

    model = openvino.Core().read_model(str(job.model))
    model.reshape({i: job.inputs[i.get_any_name()].shape for i in model.inputs})
    settings = {"INFERENCE_NUM_THREADS": job.threads, "PERFORMANCE_HINT": "LATENCY"}
    settings["INFERENCE_PRECISION_HINT"] = "bf16" if job.option == "bf16" else "f32"
    compiled = openvino.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    held = [np.ascontiguousarray(job.inputs[port.get_any_name()]) for port in model.inputs]
    for number, array in enumerate(held):
        request.set_input_tensor(number, openvino.Tensor(array, shared_memory=True))

    def loop(iterations: int) -> float:
        assert held  # the request reads their memory, and does not keep them
        request.infer()
        started = time.perf_counter()
        for _ in range(iterations):
            request.infer()
        return (time.perf_counter() - started) / iterations

    return loop


def _inductor(job: Job) -> Loop:
    import torch
    import torch._inductor.config

    from fusible.benchmarks.zoo.torch_modules import torch_module

    torch.set_num_threads(job.threads)
    torch._inductor.config.freezing = True
    compiled = torch.compile(torch_module(job.name)[0].eval())
    arguments = [torch.from_numpy(array) for array in job.inputs.values()]

    def loop(iterations: int) -> float:
        with torch.no_grad():
            compiled(*arguments)
            started = time.perf_counter()
            for _ in range(iterations):
                compiled(*arguments)
            return (time.perf_counter() - started) / iterations

    return loop


def _fusible(job: Job) -> Loop:
    import fusible
    import fusible.benchmarks.peers.fusible_peer  # for the whole package: see client.py

    artifact = (job.cache or job.model.parent) / "plain.fusible"
    if artifact.exists():
        executable = fusible.load(artifact)
    else:
        shapes: Mapping[str, tuple[int, ...]] = {name: array.shape for name, array in job.inputs.items()}
        target = job.option.removesuffix(":bf16") or "auto"
        precision: Literal["fp32", "bf16"] = "bf16" if job.option.endswith(":bf16") else "fp32"
        options = fusible.Options(threads=job.threads, precision=precision)
        executable = fusible.compile(job.model, target, shapes=shapes, options=options)
        executable.save(artifact)
    inputs: dict[str, np.ndarray] = dict(job.inputs)

    def loop(iterations: int) -> float:
        executable.run(inputs)
        started = time.perf_counter()
        for _ in range(iterations):
            executable.run(inputs)
        return (time.perf_counter() - started) / iterations

    return loop


def _none(job: Job) -> Loop:
    raise PeerError("there is no plain loop for this peer")


PLAIN_LOOPS: Mapping[str, Callable[[Job], Loop]] = {
    "onnxruntime": _onnxruntime,
    "onnxruntime-unoptimised": _none,
    "openvino": _openvino,
    "torch-inductor": _inductor,
    "fusible": _fusible,
}
"""By peer: from a job to the loop."""
