"""The errors of every model against ONNX Runtime, optimisations disabled:  python -m tests.models [NAME ...]

The largest over all input sets and outputs, scaled as the tolerances are; of quantised models in quantisation steps.
Exits 1 if one is out of tolerance.
"""

from __future__ import annotations

import argparse
import sys

import onnx

import fusible
from fusible.benchmarks.zoo.trained_inputs import QUANTISED, input_sets
from fusible.benchmarks.zoo.wheels import MODELS, fetch
from fusible.compiler.accuracy import compare_outputs, model_bound
from tests import oracle
from tests.models.checks import Inputs, Source
from tests.models.light import NAMES, light_model


def _case(name: str) -> tuple[Source, tuple[Inputs, ...]]:
    return (fetch(name), input_sets(name)) if name in MODELS else light_model(name)


def main() -> int:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(prog="python -m tests.models", description="Errors against ONNX Runtime.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="models (default: all)")
    parser.add_argument("--target", default="numpy", help="what to compile for (default: numpy)")
    options = parser.parse_args()
    agree = True
    for name in options.names or [*MODELS, *NAMES]:
        source, sets = _case(name)
        executable = fusible.compile(source, target=options.target)
        quantised = name in QUANTISED
        if quantised:
            source = oracle.without_saturation(onnx.load(source))
        reference, bound = oracle.session(source), model_bound("fp32", quantised=quantised)
        found = [
            verdict
            for inputs in sets
            for verdict in compare_outputs(oracle.run(reference, inputs), executable.run(inputs), bound).values()
        ]
        agree = agree and all(found)
        largest, rms = max(v.max_error for v in found), max(v.rms_error for v in found)
        word = "agrees" if all(found) else "DIFFERS"
        sys.stdout.write(f"{name:24} {len(sets)} input sets  max {largest:8.2e}  rms {rms:8.2e}  {word}\n")
        sys.stdout.flush()
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
