"""Models of the zoo with bounded sizes on triton-cpu:  python -m tests.compiler.triton.buckets [NAME ...] [--checked]

Runs of many sizes by buckets must give the bits that the same kernels give for exact sizes, whatever lies behind the
true ones (memory is filled with NaN before each run). gpt2-decode is exported with a cache of any length, which needs
torch. Exits 1 if a bit differs, or a graph is of exact sizes.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import mock

import numpy as np
import onnx

import fusible
from fusible.benchmarks.zoo.architectures.table import architecture, example_inputs
from fusible.benchmarks.zoo.catalog import Variant, obtain
from fusible.compiler.backends.triton import backend
from fusible.runtime.devices.session import DeviceSession
from fusible.runtime.executable import Executable

__all__ = ["main"]

Bounds = dict[str, tuple[int, int]]
Feeds = dict[str, np.ndarray]

_DECODER = "gpt2-decode"
_CASES: dict[str, tuple[Bounds, list[dict[str, int]]]] = {
    _DECODER: (
        {"past": (1, 128), "past + 1": (2, 129)},
        [{"past": n, "past + 1": n + 1} for n in (1, 2, 3, 31, 32, 33, 40, 63, 64, 65, 100, 127, 128)],
    ),
    "flan-t5-title-encoder": (
        {"batch_size": (1, 5), "encoder_sequence_length": (1, 40)},
        [
            {"batch_size": b, "encoder_sequence_length": t}
            for b, t in ((5, 40), (5, 33), (5, 37), (4, 32), (3, 17), (4, 25), (2, 7), (1, 1), (2, 5), (2, 8))
        ],
    ),
    "mobilenet-v2": ({"batch": (1, 8)}, [{"batch": n} for n in (1, 2, 3, 4, 5, 3)]),
}


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each model, and its captures."""
    parser = argparse.ArgumentParser(prog="python -m tests.compiler.triton.buckets")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(_CASES)} (default: all)")
    parser.add_argument("--checked", action="store_true", help="check every access of kernels")
    options = parser.parse_args(arguments)
    verify = fusible.Options(verify="kernels" if options.checked else "off")
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for name in options.names or _CASES:
            bounds, sizes = _CASES[name]
            good = _agrees(name, _model(name, Path(folder)), bounds, sizes, verify) and good
    return 0 if good else 1


def _agrees(name: str, path: Path, bounds: Bounds, sizes: list[dict[str, int]], options: fusible.Options) -> bool:
    shapes: Mapping[str, tuple[int, int]] = bounds
    made = fusible.compile(path, "triton-cpu", shapes=dict(shapes), options=options)
    with mock.patch.object(backend, "sized_for", lambda plan, kernels: (dict(kernels), "switched off")):
        plain = fusible.compile(path, "triton-cpu", shapes=dict(shapes), options=options)
    session, exact = _session(made), _session(plain)
    session._poison = True
    wrong = 0
    for size, feeds in zip(sizes, _feeds(path, sizes), strict=True):
        found, wanted = session.run(feeds), exact.run(feeds)
        if not all(np.array_equal(found[n], wanted[n], equal_nan=True) for n in wanted):
            wrong += 1
            _print(f"{name}: other bits for {size}")
    by_buckets = bool(session.captures) and all(capture.bucket is not None for capture in session.captures)
    _print(f"{name}: {len(sizes)} runs, {wrong} differ, {len(session.captures)} captures")
    for capture in session.captures:
        _print(f"    {capture}")
    return wrong == 0 and by_buckets


def _session(executable: Executable) -> DeviceSession:
    found = executable.session()
    assert isinstance(found, DeviceSession)
    return found


def _feeds(path: Path, sizes: list[dict[str, int]]) -> Iterator[Feeds]:
    """Random inputs: masks of ones, small numbers where the model wants integers."""
    inputs = onnx.load(path, load_external_data=False).graph.input
    generator = np.random.default_rng(0)
    for size in sizes:
        found: Feeds = {}
        for each in inputs:
            tensor = each.type.tensor_type
            shape = [size.get(d.dim_param, d.dim_value) for d in tensor.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            values = generator.integers(0, 100, shape) if dtype.kind == "i" else generator.standard_normal(shape)
            found[each.name] = (np.ones(shape) if "mask" in each.name else values).astype(dtype)
        yield found


def _model(name: str, folder: Path) -> Path:
    if name != _DECODER:
        return obtain(name, Variant(dynamic=name == "mobilenet-v2")).path
    import torch

    from fusible.benchmarks.zoo.torch_modules import torch_module

    module, given = torch_module(name, 1)
    past = torch.export.Dim("past", min=2, max=1023)
    bound = inspect.signature(module.forward).bind(*given).arguments
    shapes = {
        key: tuple({2: past} for _ in value) if isinstance(value, tuple) else {1: past + 1} if "mask" in key else {}
        for key, value in bound.items()
    }
    program = torch.onnx.export(
        module, given, dynamo=True, verbose=False, dynamic_shapes=shapes,
        input_names=list(example_inputs(name)), output_names=list(architecture(name).outputs),
    )  # fmt: skip
    program.save(folder / "decoder.onnx")
    return folder / "decoder.onnx"


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
