"""Seeded byte mutations of small models: a FusibleError, or agreement with ONNX Runtime where that runs.

ONNX Runtime runs in a process of its own, because a mutated model may crash it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import numpy as np
import pytest
from onnx import helper

import fusible
from fusible.compiler.accuracy import compare, model_bound
from tests.robustness.bounds import FLOAT, bounded, model

MUTATIONS = 200


def seeds() -> list[bytes]:
    rng = np.random.default_rng(7)
    conv = model(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
            helper.make_node("Relu", ["c"], ["r"], name="relu"),
            helper.make_node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("Flatten", ["p"], ["f"], name="flat"),
            helper.make_node("Gemm", ["f", "g"], ["y"], name="gemm", transB=1),
        ],
        {"x": (FLOAT, [1, 2, 6, 6])},
        ["y"],
        {
            "w": rng.standard_normal((3, 2, 3, 3)).astype(np.float32),
            "b": rng.standard_normal(3).astype(np.float32),
            "g": rng.standard_normal((4, 27)).astype(np.float32),
        },
        opset=17,
    )
    shapes = model(
        [
            helper.make_node("Shape", ["x"], ["s"], name="shape"),
            helper.make_node("Gather", ["s", "zero"], ["n"], name="gather", axis=0),
            helper.make_node("Concat", ["n", "minus"], ["t"], name="concat", axis=0),
            helper.make_node("Reshape", ["x", "t"], ["r"], name="reshape"),
            helper.make_node("Softmax", ["r"], ["q"], name="softmax", axis=-1),
            helper.make_node("Transpose", ["q"], ["y"], name="transpose", perm=[1, 0]),
        ],
        {"x": (FLOAT, [1, 2, 6, 6])},
        ["y"],
        {"zero": np.asarray([0], np.int64), "minus": np.asarray([-1], np.int64)},
        opset=17,
    )
    return [conv.SerializeToString(), shapes.SerializeToString()]


def mutants(count: int) -> Iterator[bytes]:
    rng, originals = random.Random(20), seeds()
    for number in range(count):
        data = bytearray(originals[number % len(originals)])
        for _ in range(rng.choice((1, 1, 2, 4))):
            position = rng.randrange(len(data))
            match rng.randrange(3):
                case 0:
                    data[position] ^= 1 << rng.randrange(8)
                case 1:
                    data[position] = rng.randrange(256)
                case 2:
                    del data[position]
        yield bytes(data)


def _reference(data: bytes, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """ONNX Runtime's results, None where it refuses the model (runs in a worker process)."""
    import onnxruntime as ort

    ort.set_default_logger_severity(4)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        return dict(zip(names, session.run(names, {i.name: inputs[i.name] for i in session.get_inputs()}), strict=True))
    except Exception:  # noqa: BLE001 - whatever the other system raises means: it does not run this model
        return None


@pytest.fixture
def pool() -> Iterator[list[ProcessPoolExecutor]]:
    holder = [ProcessPoolExecutor(1, mp_context=get_context("spawn"))]
    yield holder
    holder[0].shutdown(cancel_futures=True)


def _ask(pool: list[ProcessPoolExecutor], data: bytes, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    try:
        return pool[0].submit(_reference, data, inputs).result(timeout=60)
    except BrokenProcessPool:
        pool[0] = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        return None


def test_mutated_models(pool: list[ProcessPoolExecutor]) -> None:
    ran = agreed = 0
    for number, data in enumerate(mutants(MUTATIONS)):
        with bounded():
            try:
                exe = fusible.compile(data, target="numpy")
                rng = np.random.default_rng(number)
                inputs = {
                    s.name: rng.standard_normal([d if isinstance(d, int) else 2 for d in s.shape or (1,)]).astype(
                        s.dtype
                    )
                    for s in exe.inputs
                }
                got = exe.run(inputs)
            except fusible.FusibleError:
                continue
        ran += 1
        wanted = _ask(pool, data, inputs)
        if wanted is None:
            continue
        agreed += 1
        for name, reference in wanted.items():
            if np.isfinite(reference).all():
                verdict = compare(reference, got[name], model_bound("fp32"))
                assert verdict, f"mutation {number}: {name}: {verdict.reason}"
    assert ran > 10 and agreed > 5, (ran, agreed)


def test_the_originals_agree(pool: list[ProcessPoolExecutor]) -> None:
    for data in seeds():
        x = np.random.default_rng(0).standard_normal((1, 2, 6, 6)).astype(np.float32)
        wanted = _ask(pool, data, {"x": x})
        assert wanted is not None
        assert compare(wanted["y"], fusible.compile(data, target="numpy").run({"x": x})["y"], model_bound("fp32"))
