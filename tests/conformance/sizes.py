"""Conformance models with their dimensions made symbols, fed with sizes that do not fit: what numpy refuses is refused.

`python -m tests.conformance.sizes --seed 1 --part 0/16`. Each model is compiled with all, half and a third of its
inputs' dimensions as symbols of their own, and run with one dimension at a time made 1, smaller and larger. The oracle
is the target numpy without the pass `note-requirements`: its kernels look at the arrays they get. A finding is

- unchecked: numpy refuses what the target computes (out of memory that is not its own, as likely as not), or the other
  way round for reasons other than a kernel of NumPy that does not look (`LAX`);
- another shape of a result.
"""

from __future__ import annotations

import argparse
import random
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx

import fusible
from fusible.errors import FusibleError
from tests.conformance.cases import Case, load_cases

SHARES = (1.0, 0.5, 0.3)  # of the dimensions that become symbols
# Kernels of NumPy that accept more than the standard says: what does not fit is cut off or repeated.
LAX: frozenset[str] = frozenset({"LinearAttention", "SwiGLU"})

Feeds = Mapping[str, np.ndarray]


def with_symbols(model: onnx.ModelProto, rng: random.Random, share: float) -> onnx.ModelProto:
    """The model with some dimensions of its inputs as symbols, and nothing said about other values."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    stored, count = {tensor.name for tensor in made.graph.initializer}, 0
    for value in made.graph.input:
        if value.name in stored or not value.type.HasField("tensor_type"):
            continue
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and rng.random() < share:
                dim.dim_param = f"D{count}"
                count += 1
    for value in made.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    del made.graph.value_info[:]
    return made


def other_sizes(model: onnx.ModelProto, feeds: Feeds) -> Iterator[tuple[str, Feeds]]:
    """What differs, and the inputs with one symbolic dimension of another size."""
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim if value.name in feeds else ()
        for axis, dim in enumerate(dims):
            if dim.dim_param and axis < feeds[value.name].ndim:
                extent = feeds[value.name].shape[axis]
                for size in sorted({extent - 1, extent + 1, 1} - {extent, -1}):
                    changed = _resized(feeds[value.name], axis, size)
                    yield f"{value.name} {axis}: {extent} -> {size}", {**feeds, value.name: changed}


def _resized(array: np.ndarray, axis: int, size: int) -> np.ndarray:
    if array.shape[axis]:
        return np.take(array, np.arange(size) % array.shape[axis], axis=axis)
    fill = "" if array.dtype == object else 0
    return np.full([size if d == axis else n for d, n in enumerate(array.shape)], fill, array.dtype)


def _run(exe: fusible.Executable, feeds: Feeds) -> list[tuple[int, ...] | None] | str:
    """The shapes of the results, or the error."""
    try:
        return [getattr(value, "shape", None) for value in exe.run(feeds).values()]
    except FusibleError as error:
        return f"{type(error).__name__}: {error}"


def findings(
    case: Case, seed: int, target: str = "cpu", shares: Sequence[float] = SHARES
) -> tuple[int, list[str]]:
    """How many runs were tried, and what was found wrong."""
    tried, found = 0, []
    plain = fusible.pipeline("numpy").without("note-requirements")
    for share in shares:
        rng = random.Random(f"{seed} {case.name} {share}")
        model = with_symbols(case.model, rng, share)
        feeds = case.feeds(case.data_sets[0][0])
        if not all(isinstance(value, np.ndarray) for value in feeds.values()):
            return tried, found
        try:
            oracle, exe = fusible.compile(model, target="numpy", passes=plain), fusible.compile(model, target=target)
        except FusibleError:
            continue  # needs literal sizes
        for what, changed in other_sizes(model, feeds):
            tried += 1
            expected, got = _run(oracle, changed), _run(exe, changed)
            wrong = expected != got and not (isinstance(expected, str) and isinstance(got, str))
            if wrong and not (case.op in LAX and isinstance(got, str)):
                found.append(f"{case.name} {share} {what}: numpy {expected}, {target} {got}")
    return tried, found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print findings; 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of the names of cases (default: all cases)")
    parser.add_argument("--seed", type=int, default=0, help="chooses which dimensions are symbols")
    parser.add_argument("--part", default="0/1", help="every which case: 3/16 is the fourth of each sixteen")
    parser.add_argument("--target", default="cpu")
    given = parser.parse_args(arguments)
    part, parts = map(int, given.part.split("/"))
    tried, found = 0, 0
    for case in _chosen(given.names)[part::parts]:
        count, wrong = findings(case, given.seed, given.target)
        tried, found = tried + count, found + len(wrong)
        for line in wrong:
            print(line, flush=True)
    print(f"{tried} runs, {found} findings")
    return 1 if found else 0


def _chosen(names: Iterable[str]) -> list[Case]:
    parts = list(names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [c for kind in ("node", "pytorch-operator", "pytorch-converted") for c in load_cases(kind)]
    return [c for c in cases if c.data_sets and not c.random and (not parts or any(p in c.name for p in parts))]


if __name__ == "__main__":
    sys.exit(main())
