"""Models of the zoo on triton-cpu against ONNX Runtime:  python -m tests.compiler.triton.zoo [NAME ...]

For each model: the largest errors over all outputs, scaled as the tolerances are (of quantised models in steps), how
many launches a run takes (branches and bodies of loops once), how many of its steps stay in NumPy and the share that
does not, and the seconds of compiling and of the second run. Exits 1 if a model is out of tolerance or fails.

With --precision, the reference stays fp32. Networks with random weights magnify roundings: what ONNX Runtime's own
result moves by when nothing but the weights is rounded to that precision is printed beside the errors (`floor`), and
where twice that is more than the tolerance of the precision, it takes its place.
"""

from __future__ import annotations

import argparse
import sys
import time

import ml_dtypes
import numpy as np
import onnx
import onnx.numpy_helper

import fusible
from fusible.benchmarks.zoo.catalog import Obtained, names, obtain
from fusible.benchmarks.zoo.trained_inputs import QUANTISED
from fusible.compiler.accuracy import Bound, compare_outputs, model_bound
from tests import oracle

__all__ = ["main"]

TARGET = "triton-cpu"
_NARROW = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(prog="python -m tests.compiler.triton.zoo", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="models (default: all)")
    parser.add_argument("--precision", default="fp32", help="fp32, fp16 or bf16 (default: fp32)")
    options = parser.parse_args(arguments)
    head = ("model", "max", "rms", "floor", "", "launches", "in NumPy", "share", "build", "run")
    _print("{:22} {:>9} {:>9} {:>9} {:8} {:>8} {:>8} {:>6} {:>7} {:>7}".format(*head))
    good = True
    for name in options.names or names():
        try:
            line, agrees = _line(obtain(name), options.precision)
        except fusible.FusibleError as error:
            line, agrees = f"{name:22} {type(error).__name__}: {str(error)[:300]}", False
        good = good and agrees
        _print(line)
    return 0 if good else 1


def _line(model: Obtained, precision: str) -> tuple[str, bool]:
    began = time.perf_counter()
    executable = fusible.compile(
        model.path, TARGET, shapes={k: v.shape for k, v in model.inputs.items()},
        options=fusible.Options(precision=precision),
    )  # fmt: skip
    built = time.perf_counter()
    got = executable.run(model.inputs)
    again = time.perf_counter()
    executable.run(model.inputs)
    done = time.perf_counter()
    quantised = model.name in QUANTISED
    source = oracle.without_saturation(onnx.load(model.path)) if quantised else model.path
    reference = oracle.run(oracle.session(source), model.inputs)
    bound, floor = model_bound(precision, quantised=quantised), None
    if precision in _NARROW and not quantised:
        moved = compare_outputs(reference, _with_rounded_weights(model, precision), bound)
        floor = max(verdict.rms_error for verdict in moved.values())
        assert isinstance(bound, Bound)
        bound = Bound(max(bound.max, *(2 * v.max_error for v in moved.values())), max(bound.rms, 2 * floor))
    verdicts = compare_outputs(reference, got, bound)
    steps = [row["language"] for row in executable.report.kernels if "language" in row]
    launches = steps.count("triton")
    largest, rms = (max(getattr(v, which) for v in verdicts.values()) for which in ("max_error", "rms_error"))
    agrees = all(verdicts.values())
    line = (
        f"{model.name:22} {largest:9.2e} {rms:9.2e} {'' if floor is None else f'{floor:.2e}':>9} "
        f"{'agrees' if agrees else 'DIFFERS':8} {launches:8d} "
        f"{len(steps) - launches:8d} {launches / max(1, len(steps)):6.1%} {built - began:6.1f}s {done - again:6.2f}s"
    )
    return line, agrees


def _with_rounded_weights(model: Obtained, precision: str) -> dict[str, np.ndarray]:
    """What ONNX Runtime computes in fp32 with weights that the precision can hold."""
    proto = onnx.load(model.path)
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            largest = np.float32(ml_dtypes.finfo(_NARROW[precision]).max)
            rounded = np.clip(array, -largest, largest).astype(_NARROW[precision]).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(rounded, tensor.name))
    return oracle.run(oracle.session(proto), model.inputs)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
