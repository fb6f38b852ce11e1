"""Running executables: shapes, ownership, threads, bindings, state, control flow, late sizes."""

from __future__ import annotations

import threading

import numpy as np
import onnx
import pytest
from onnx import ValueInfoProto, helper, numpy_helper

import fusible
from fusible.compiler.ir.evaluate import evaluate_graph
from fusible.errors import SignatureError
from tests.runtime import models


def _images(n: int, h: int, w: int) -> np.ndarray:
    return np.random.default_rng(n * 100 + h + w).standard_normal((n, 3, h, w)).astype(np.float32)


TARGETS = ["numpy", "triton-cpu"]  # sessions of the host, and of a device, whose kernels check every access


def compiled(model: onnx.ModelProto, target: str) -> fusible.Executable:
    return fusible.compile(model, target=target, options=fusible.Options(verify="kernels"))


@pytest.fixture(scope="module", params=TARGETS)
def convolution(request: pytest.FixtureRequest) -> fusible.Executable:
    return compiled(models.conv_relu_add(), request.param)


def test_signature(convolution: fusible.Executable) -> None:
    assert [(s.name, s.dtype, s.shape) for s in convolution.inputs] == [("x", np.dtype(np.float32), ("n", 3, "h", "w"))]
    assert convolution.outputs[0].shape == ("n", 5, "h", "w")


@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 9, 4), (0, 5, 7), (2, 1, 1)])
def test_one_executable_many_shapes(convolution: fusible.Executable, shape: tuple[int, int, int]) -> None:
    x = _images(*shape)
    (reference,) = evaluate_graph(fusible.import_graph(models.conv_relu_add()), [x])
    (got,) = convolution(x)
    assert got.shape == reference.shape and got.dtype == np.float32
    assert np.allclose(got, reference, rtol=1e-5, atol=1e-5)


def test_poisoned_buffers_do_not_show(convolution: fusible.Executable) -> None:
    session = convolution.session()
    session._poison = True
    assert np.isfinite(session.run({"x": _images(2, 5, 5)})["u"]).all()


def test_outputs_belong_to_the_caller(convolution: fusible.Executable) -> None:
    session, x = convolution.session(), _images(1, 4, 4)
    first = session.run({"x": x})["u"]
    kept = first.copy()
    second = session.run({"x": x + 1})["u"]
    assert np.array_equal(first, kept) and not np.shares_memory(first, second)
    first[...] = 0
    assert np.array_equal(session.run({"x": x})["u"], kept)


@pytest.mark.parametrize("target", TARGETS)
def test_an_output_that_is_an_input_is_copied(target: str) -> None:
    from onnx import helper

    identity = models.make(
        [helper.make_node("Identity", ["x"], ["y"])], [models.value("x", models.FLOAT, [3])], ["y", "x"]
    )
    x = np.arange(3, dtype=np.float32)
    got = compiled(identity, target).run({"x": x})
    assert all(np.array_equal(v, x) and not np.shares_memory(v, x) for v in got.values())
    assert not np.shares_memory(got["x"], got["y"])


def test_threads_share_an_executable(convolution: fusible.Executable) -> None:
    inputs = [_images(1 + k % 3, 6, 6) for k in range(12)]
    wanted = [convolution(x)[0] for x in inputs]
    got: list[np.ndarray | None] = [None] * len(inputs)

    def work(k: int) -> None:
        for _ in range(5):
            got[k] = convolution.run({"x": inputs[k]})["u"]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(wanted, got, strict=True):
        assert other is not None and np.array_equal(one, other)


def test_bound_inputs_and_outputs(convolution: fusible.Executable) -> None:
    session, x = convolution.session(), _images(2, 4, 5)
    out = np.empty((2, 5, 4, 5), np.float32)
    session.bind(inputs={"x": x}, outputs={"u": out})
    assert session.run()["u"] is out
    assert np.array_equal(out, convolution(x)[0])
    x[...] = 0  # a bound input is read at each run
    assert not session.run()["u"].any()
    with pytest.raises(fusible.SignatureError, match="unknown name"):
        session.bind(inputs={"nope": x})
    with pytest.raises(fusible.SignatureError, match="writeable"):
        session.bind(outputs={"u": np.empty(3, np.int32)})


def test_an_output_over_an_input_is_refused(convolution: fusible.Executable) -> None:
    session, x = convolution.session(), _images(2, 4, 5)
    memory = np.empty(x.size + 200, np.float32)
    memory[: x.size] = x.reshape(-1)
    over, beside = (memory[n : n + 200].reshape(2, 5, 4, 5) for n in (x.size - 1, x.size))
    given = memory[: x.size].reshape(x.shape)
    session.bind(inputs={"x": given}, outputs={"u": over})
    if convolution.target == "triton-cpu":  # the host's arrays are written when nothing reads them any more
        assert np.array_equal(session.run()["u"], convolution(x)[0])
        given[...] = x
    else:
        with pytest.raises(fusible.SignatureError, match=r"output 'u': .*memory of its own.*overlaps the input 'x'"):
            session.run()
    session.bind(outputs={"u": beside})
    assert np.array_equal(session.run()["u"], convolution(x)[0])


@pytest.mark.parametrize("target", TARGETS)
def test_state_goes_from_output_to_input(target: str) -> None:
    session = compiled(models.cache_step(), target).session()
    session.bind(inputs={"past": np.zeros(4, np.float32)}, state={"present": "past"})
    x = np.asarray([1, 2, 3, 4], np.float32)
    sums = [float(session.run({"x": x})["y"]) for _ in range(4)]
    assert sums == [10.0, 20.0, 30.0, 40.0]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_if_and_loop(flag: bool, count: int, target: str) -> None:
    exe = compiled(models.branches(), target)
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    got = exe.run({"x": x, "flag": np.asarray(flag), "count": np.asarray(count)})
    start = x + 1 if flag else x * 2
    values = [start * 2.0 ** (k + 1) for k in range(count)]
    assert np.array_equal(got["y"], values[-1] if values else start)
    assert np.array_equal(got["scans"], np.asarray([v + x for v in values], np.float32).reshape(count, 3, 2))


@pytest.mark.parametrize("target", [*TARGETS, "cpu"])
def test_sizes_known_only_when_they_happen(target: str) -> None:
    exe = compiled(models.nonzero_chain(), target)
    for seed, (n, m) in enumerate([(3, 5), (1, 1), (4, 2), (3, 5), (3, 5)]):
        x = np.random.default_rng(seed).standard_normal((n, m)).astype(np.float32)
        got = exe.run({"x": x})
        assert np.array_equal(got["d"], 2 * x[x > 0]) and got["k"].tolist() == [int((x > 0).sum())]


def test_the_arena_is_smaller_than_the_sum_and_its_peak_is_stated() -> None:
    memory = compiled(models.conv_relu_add(), "numpy").report.memory
    assert memory["arena_bytes"] > 0 and memory["buffers"] >= 1


def test_profile_names_every_step(convolution: fusible.Executable) -> None:
    rows = convolution.profile({"x": _images(1, 4, 4)})
    assert {o for row in rows for o in row["origin"]} == {"conv", "relu", "add"}
    assert all(row["seconds"] > 0 for row in rows)


def test_a_kernel_that_refuses_names_the_node() -> None:
    from onnx import helper

    gather = models.make(
        [helper.make_node("Gather", ["x", "i"], ["y"], name="lookup")],
        [models.value("x", models.FLOAT, [3]), models.value("i", models.INT64, [1])],
        ["y"],
    )
    exe = fusible.compile(gather, target="numpy")
    with pytest.raises(fusible.ExecutionError, match="lookup"):
        exe(np.zeros(3, np.float32), np.asarray([7]))


def test_shapes_that_were_checked_do_not_hide_wrong_ones(convolution: fusible.Executable) -> None:
    session = convolution.session()
    (spec,) = convolution.inputs
    right = np.ones((1, 3, 6, 5), np.float32)
    expected = session.run({spec.name: right})
    for wrong in (np.ones((1, 2, 6, 5), np.float32), np.ones((3, 6, 5), np.float32), right.astype(np.float64)):
        with pytest.raises(SignatureError):
            session.run({spec.name: wrong})
    again = session.run({spec.name: right})
    assert all(np.array_equal(again[name], expected[name]) for name in expected)


@pytest.mark.parametrize("target", ["numpy", "cpu", "triton-cpu"])
@pytest.mark.parametrize("wanted", ["values", "places"])
def test_a_result_of_unknown_size_that_nobody_reads_is_there_to_be_written(target: str, wanted: str) -> None:
    nodes = [
        helper.make_node("Compress", ["x", "keep"], ["rows"], axis=0),
        helper.make_node("TopK", ["rows", "two"], ["values", "places"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("x", 1, [6, 5]), helper.make_tensor_value_info("keep", 9, [6])]
    two = numpy_helper.from_array(np.asarray([2]), "two")
    graph = helper.make_graph(nodes, "g", inputs, [ValueInfoProto(name=wanted)], [two])
    exe = fusible.compile(helper.make_model(graph, ir_version=10), target=target)
    x, keep = np.arange(30, dtype=np.float32).reshape(6, 5), np.asarray([1, 0, 1, 0, 1, 1], bool)
    places = np.tile([4, 3], (4, 1))
    expected = places if wanted == "places" else np.take_along_axis(x[keep], places, 1)
    np.testing.assert_array_equal(exe.run({"x": x, "keep": keep})[wanted], expected)
