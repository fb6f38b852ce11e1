"""How the time from import to executable grows with the size of the graph.

    python -m fusible.benchmarks.compile_time [--csv FILE]

Generates residual networks of N nodes (MatMul, Add, Relu, Transpose pairs, shape arithmetic that must fold) for
N = 1,000 and 10,000, compiles each several times in turn, and prints the least times and their ratio. Exits 1 if the
ratio is above 12: the compiler must stay close to linear.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

import fusible

__all__ = ["generated_model", "main", "measure"]

SIZES = (1_000, 10_000)
TARGET = 12.0
_WIDTH = 16


def generated_model(nodes: int, seed: int = 0) -> ModelProto:
    """A chain of blocks of ten nodes, `nodes` in all; x: f32[batch, 4, 16] -> y of the same shape."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((_WIDTH, _WIDTH)).astype(np.float32) / 4
    constants = {"w": weights, "zero": np.asarray([0], np.int64), "rest": np.asarray([4, _WIDTH], np.int64)}
    made, name = [], "x"
    for block in range(nodes // 10):
        p = f"b{block}_"
        made += [
            helper.make_node("MatMul", [name, "w"], [p + "m"], name=p + "matmul"),
            helper.make_node("Relu", [p + "m"], [p + "r"], name=p + "relu"),
            helper.make_node("Transpose", [p + "r"], [p + "t"], name=p + "turn", perm=[0, 2, 1]),
            helper.make_node("Transpose", [p + "t"], [p + "u"], name=p + "back", perm=[0, 2, 1]),
            helper.make_node("Shape", [p + "u"], [p + "s"], name=p + "shape"),
            helper.make_node("Gather", [p + "s", "zero"], [p + "n"], name=p + "batch"),
            helper.make_node("Concat", [p + "n", "rest"], [p + "c"], name=p + "target", axis=0),
            helper.make_node("Reshape", [p + "u", p + "c"], [p + "v"], name=p + "reshape"),
            helper.make_node("Sigmoid", [p + "v"], [p + "g"], name=p + "gate"),
            helper.make_node("Add", [p + "g", name], [p + "y"], name=p + "residual"),
        ]
        name = p + "y"
    graph = helper.make_graph(
        made,
        f"generated_{nodes}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, _WIDTH])],
        [ValueInfoProto(name=name)],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def measure(rounds: int) -> dict[int, list[float]]:
    """Seconds of each compilation, the sizes interleaved."""
    models = {n: generated_model(n).SerializeToString() for n in SIZES}
    fusible.compile(models[SIZES[0]], target="numpy")  # the first one loads the op families
    times: dict[int, list[float]] = {n: [] for n in SIZES}
    for _ in range(rounds):
        for size, model in models.items():
            started = time.perf_counter()
            fusible.compile(model, target="numpy")
            times[size].append(time.perf_counter() - started)
    return times


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, append a row to a CSV file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(arguments)
    times = measure(options.rounds)
    small, large = (min(times[n]) for n in SIZES)
    ratio = large / small
    for size in SIZES:
        print(f"{size:6d} nodes: {min(times[size]):7.3f} s (of {', '.join(f'{t:.3f}' for t in times[size])})")
    print(f"ratio {ratio:.2f} (at most {TARGET:.0f})")
    if options.csv is not None:
        new = not options.csv.exists()
        with options.csv.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["date", "fusible", "python", "cores", "small_s", "large_s", "ratio"])
            row = [datetime.now(UTC).strftime("%Y-%m-%d"), fusible.__version__, platform.python_version()]
            writer.writerow([*row, os.cpu_count(), f"{small:.3f}", f"{large:.3f}", f"{ratio:.2f}"])
    return 0 if ratio <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
