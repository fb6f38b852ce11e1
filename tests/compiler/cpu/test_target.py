"""The target cpu from a model to numbers, against the target numpy: fused, saved, in threads, with symbols, refused."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fusible
from tests.runtime import models
from tests.tolerance import assert_outputs_close


def block(batch: int | str = 2) -> onnx.ModelProto:
    """x @ w + b -> gelu -> residual -> layer norm -> softmax over rows, and a gather by an input."""
    random = np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((24, 24)) / 5,
        "b": random.standard_normal(24),
        "g": random.standard_normal(24),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="product"),
        helper.make_node("Add", ["m", "b"], ["a"], name="bias"),
        helper.make_node("Gelu", ["a"], ["e"], name="gelu"),
        helper.make_node("Add", ["e", "x"], ["r"], name="residual"),
        helper.make_node("LayerNormalization", ["r", "g", "b"], ["n"], name="norm"),
        helper.make_node("Transpose", ["n"], ["t"], name="turn", perm=[0, 2, 1]),
        helper.make_node("Softmax", ["t"], ["y"], name="softmax"),
        helper.make_node("Gather", ["w", "ids"], ["z"], name="rows"),
    ]
    graph = helper.make_graph(
        nodes,
        "block",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 7, 24]),
            helper.make_tensor_value_info("ids", TensorProto.INT64, [3]),
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", "z")],
        [onnx.numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def inputs(batch: int = 2) -> dict[str, np.ndarray]:
    x = np.random.default_rng(1).standard_normal((batch, 7, 24)).astype(np.float32)
    return {"x": x, "ids": np.asarray([5, -1, 0])}


def heads() -> onnx.ModelProto:
    """Self-attention as torch exports it: heads cut out of projections, a mask, a softmax that is safe from NaN."""
    random = np.random.default_rng(2)
    weights = {f"w{n}": (random.standard_normal((24, 24)) / 5).astype(np.float32) for n in "qkvo"}
    weights |= {"minus": np.asarray(-np.inf, np.float32), "zero": np.asarray(0, np.float32)}
    weights |= {"shape": np.asarray([2, 7, 3, 8]), "back": np.asarray([2, 7, 24])}
    weights["scale"] = np.asarray(8**-0.5, np.float32)
    nodes = []
    for n in "qkv":
        nodes.append(helper.make_node("MatMul", ["x", f"w{n}"], [f"p{n}"]))
        nodes.append(helper.make_node("Reshape", [f"p{n}", "shape"], [f"r{n}"]))
        nodes.append(helper.make_node("Transpose", [f"r{n}"], [n], perm=[0, 2, 3, 1] if n == "k" else [0, 2, 1, 3]))
    nodes += [
        helper.make_node("Mul", ["q", "scale"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "k"], ["scores"]),
        helper.make_node("Where", ["mask", "scores", "minus"], ["hidden"]),
        helper.make_node("Softmax", ["hidden"], ["soft"]),
        helper.make_node("IsNaN", ["soft"], ["lost"]),
        helper.make_node("Where", ["lost", "zero", "soft"], ["safe"]),
        helper.make_node("MatMul", ["safe", "v"], ["seen"]),
        helper.make_node("Transpose", ["seen"], ["turned"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["turned", "back"], ["joined"]),
        helper.make_node("MatMul", ["joined", "wo"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "heads",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 7, 24]),
            helper.make_tensor_value_info("mask", TensorProto.BOOL, [2, 1, 1, 7]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def test_attention_is_one_kernel() -> None:
    exe = fusible.compile(heads(), target="cpu", options=fusible.Options(threads=2))
    kernels = [row["kernel"] for row in exe.report.kernels]
    assert len(kernels) == 3  # queries, keys and values are one product
    assert exe.report.host == ()
    mask = np.ones((2, 1, 1, 7), bool)
    mask[0, ..., 4:], mask[1] = False, False  # the second sequence sees nothing at all
    given = {"x": inputs()["x"], "mask": mask}
    expected = fusible.compile(heads(), target="numpy").run(given)
    assert not np.isnan(expected["y"]).any()
    assert_outputs_close(exe.run(given), expected)


def image_model() -> onnx.ModelProto:
    """A convolution of the input, a depthwise and a grouped one, pooling, a shuffle of channels, a classifier."""
    random = np.random.default_rng(3)

    def weight(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    weights = {"a": weight(16, 3, 3, 3), "b": weight(16, 1, 5, 5), "c": weight(24, 8, 3, 3), "d": weight(10, 24)}
    weights |= {"cut": np.asarray([1, 2, 12, 10, 8]), "join": np.asarray([1, 24, 10, 8])}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["a1"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("HardSwish", ["a1"], ["a2"]),
        helper.make_node("Conv", ["a2", "b"], ["b1"], group=16, pads=[2, 2, 2, 2]),
        helper.make_node("Add", ["b1", "a2"], ["b2"]),
        helper.make_node("Conv", ["b2", "c"], ["c1"], group=2, pads=[1, 1, 1, 1]),
        helper.make_node("Reshape", ["c1", "cut"], ["c2"]),
        helper.make_node("Transpose", ["c2"], ["c3"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["c3", "join"], ["c4"]),
        helper.make_node("MaxPool", ["c4"], ["p"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["p"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "d"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "image",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 20, 16])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", "p")],
        [onnx.numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


@pytest.mark.parametrize("exactness", [fusible.Exactness.EXACT, fusible.Exactness.REASSOCIATING])
def test_images(exactness: fusible.Exactness) -> None:
    x = {"x": np.random.default_rng(4).standard_normal((1, 3, 20, 16)).astype(np.float32)}
    exe = fusible.compile(image_model(), target="cpu", options=fusible.Options(exactness=exactness, threads=2))
    ops = {row["op"] for row in exe.report.host}
    assert ops == (set() if exactness is fusible.Exactness.REASSOCIATING else {"reshape", "transpose"})
    orders = {v.order for v in exe.plan.values if v.kind == "arena" and v.shape is not None and len(v.shape) == 4}
    assert (0, 2, 3, 1) in orders
    expected = fusible.compile(image_model(), target="numpy").run(x)
    assert_outputs_close(exe.run(x), expected)
    session = exe.session()
    session._observer = lambda *_: None  # step by step, as the profile does
    assert_outputs_close(session.run(x), expected)


def moved_image() -> onnx.ModelProto:
    """Convolutions whose results are turned before they are stored, and the sum with a constant that was turned."""
    random = np.random.default_rng(6)
    weights = {
        "deep": (random.standard_normal((16, 1, 7, 7)) / 7).astype(np.float32),
        "wide": (random.standard_normal((16, 16, 3, 3)) / 12).astype(np.float32),
        "table": random.standard_normal((16, 9, 12)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "deep"], ["a"], group=16, pads=[3, 3, 3, 3]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 3, 1]),
        helper.make_node("LayerNormalization", ["b", "gain"], ["c"]),
        helper.make_node("Transpose", ["c"], ["d"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["d", "wide"], ["e"], pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["e"], ["f"], perm=[0, 3, 2, 1]),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[2, 1, 0]),
        helper.make_node("Add", ["f", "turned"], ["y"]),
    ]
    weights["gain"] = np.linspace(0.5, 1.5, 16).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "moved",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 9, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


@pytest.mark.parametrize("exactness", [fusible.Exactness.EXACT, fusible.Exactness.REASSOCIATING])
def test_images_and_constants_that_are_turned(exactness: fusible.Exactness) -> None:
    x = {"x": np.random.default_rng(7).standard_normal((1, 16, 9, 12)).astype(np.float32)}
    exe = fusible.compile(moved_image(), target="cpu", options=fusible.Options(exactness=exactness))
    assert all(c.flags.c_contiguous for c in exe.constants)
    assert_outputs_close(exe.run(x), fusible.compile(moved_image(), target="numpy").run(x))


def sliced_images() -> onnx.ModelProto:
    """Convolutions of some channels, of some rows, and of shuffled ones: what they read begins inside a buffer."""
    rng = np.random.default_rng(3)

    def weights(*shape: int) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array((rng.standard_normal(shape) / 4).astype(np.float32), f"w{len(constants)}")

    constants: list[onnx.TensorProto] = []
    for shape in [(16, 6, 1, 1), (8, 6, 3, 3), (10, 1, 3, 3), (4, 16, 3, 3)]:
        constants.append(weights(*shape))
    for name, value in {"c6": [6], "c16": [16], "c2": [2], "c7": [7], "one": [1], "two": [2]}.items():
        constants.append(onnx.numpy_helper.from_array(np.array(value, np.int64), name))
    constants.append(onnx.numpy_helper.from_array(np.array([1, 2, 8, 9, 9], np.int64), "apart"))
    constants.append(onnx.numpy_helper.from_array(np.array([1, 16, 9, 9], np.int64), "together"))
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w0"], ["a"]),
        node("Slice", ["a", "c6", "c16", "one"], ["upper"]),
        node("Slice", ["a", "c2", "c7", "two"], ["rows"]),
        node("Slice", ["a", "c6", "c16", "one"], ["part"]),
        node("Slice", ["part", "two", "c7", "two"], ["middle"]),
        node("Conv", ["upper", "w2"], ["deep"], group=10, pads=[1, 1, 1, 1]),
        node("Conv", ["rows", "w3"], ["cropped"], pads=[1, 1, 1, 1]),
        node("Reshape", ["a", "apart"], ["digits"]),
        node("Transpose", ["digits"], ["turned"], perm=[0, 2, 1, 3, 4]),
        node("Reshape", ["turned", "together"], ["shuffled"]),
        node("Concat", ["shuffled", "deep"], ["joined"], axis=1),
        node("Relu", ["joined"], ["result"]),
        node("Split", ["shuffled"], ["left", "right"], axis=1, num_outputs=2),
        node("Neg", ["right"], ["negative"]),
        node("Identity", ["middle"], ["crop"]),
    ]
    value = helper.make_tensor_value_info
    outputs = [value(n, TensorProto.FLOAT, None) for n in ("deep", "cropped", "result", "negative", "crop")]
    constants = [c for c in constants if any(c.name in n.input for n in nodes)]
    inputs = [value("x", TensorProto.FLOAT, [1, 6, 9, 9])]
    graph = helper.make_graph(nodes, "sliced", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def test_images_read_in_part() -> None:
    model = sliced_images()
    feed = {"x": np.random.default_rng(4).standard_normal((1, 6, 9, 9)).astype(np.float32)}
    expected = fusible.compile(model, target="numpy").run(feed)
    assert_outputs_close(fusible.compile(model, target="cpu").run(feed), expected)


def test_the_numbers_and_the_fusions() -> None:
    exe = fusible.compile(block(), target="cpu")
    assert_outputs_close(exe.run(inputs()), fusible.compile(block(), target="numpy").run(inputs()))
    kernels = [row["kernel"] for row in exe.report.kernels]
    assert kernels == [
        "k000_matmul_add_gelu_add",
        "k001_layer_normalization_transpose",
        "k002_softmax",
        "k003_gather",
    ]
    assert exe.report.host == ()
    assert any(row["pass"] == "fuse-regions" and "gelu" in row["reason"] for row in exe.report.fusions)
    assert "its reductions run over different axes" in str(exe.report.refusals)


def test_every_refusal_has_a_reason_and_a_cost() -> None:
    exe = fusible.compile(block(), target="cpu")
    refused = [row for row in exe.report.refusals if row["pass"] == "fuse-regions"]
    assert refused and all(row["reason"] and row["nodes"] and row["cost"]["bytes"] > 0 for row in refused)


def test_symbols_need_one_library() -> None:
    exe = fusible.compile(block("batch"), target="cpu")
    reference = fusible.compile(block("batch"), target="numpy")
    for batch in (1, 3, 0, 2):
        assert_outputs_close(exe.run(inputs(batch)), reference.run(inputs(batch)))


def test_an_artifact_gives_the_same_bits_without_a_compiler(tmp_path: Path) -> None:
    exe = fusible.compile(block(), target="cpu")
    exe.save(tmp_path / "block.fusible")
    expected = exe.run(inputs())
    np.savez(tmp_path / "inputs.npz", **inputs())
    script = (
        "import fusible, numpy as np, sys; from pathlib import Path; p = Path(sys.argv[1])\n"
        "y = fusible.load(p / 'block.fusible').run(dict(np.load(p / 'inputs.npz'))); np.savez(p / 'y.npz', **y)"
    )
    environment = {"PATH": "", "FUSIBLE_CACHE_DIR": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=False)
    assert done.returncode == 0
    found = np.load(tmp_path / "y.npz")
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_the_same_artifact_twice_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fusible.compile(block(), target="cpu").save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_threads_share_an_executable() -> None:
    exe = fusible.compile(block(), target="cpu", options=fusible.Options(threads=2))
    expected = exe.run(inputs())
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: exe.run(inputs()), range(200)):
            assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_the_number_of_threads_changes_no_bit() -> None:
    one, two = (fusible.compile(block(), target="cpu", options=fusible.Options(threads=n)) for n in (1, 2))
    a, b = one.run(inputs()), two.run(inputs())
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_bound_output_that_is_strided_is_written() -> None:
    exe = fusible.compile(block(), target="cpu")
    session = exe.session()
    target = np.full((2, 24, 14), np.nan, np.float32)[:, :, ::2]
    session.bind(outputs={"y": target})
    strided = np.repeat(inputs()["x"], 2, axis=2)[:, :, ::2]
    session.run({"x": strided, "ids": inputs()["ids"]})
    assert np.array_equal(target, exe.run(inputs())["y"])


def test_an_index_out_of_range_names_the_node() -> None:
    exe = fusible.compile(block(), target="cpu")
    with pytest.raises(fusible.FusibleError, match=r"gather at 'rows'.*out of range"):
        exe.run({**inputs(), "ids": np.asarray([0, 24, 1])})


def test_profile_goes_step_by_step() -> None:
    exe = fusible.compile(block(), target="cpu")
    rows = exe.profile(inputs())
    assert [row["kernel"] for row in rows] == [row["kernel"] for row in exe.report.kernels]


def test_what_has_no_native_form_calls_numpy_and_says_so() -> None:
    exe = fusible.compile(models.cache_step(), target="cpu")
    assert all(row["reason"] for row in exe.report.host)


def test_numpy_kernels_get_memory_in_order_to_compute_into() -> None:
    # In float64 NumPy computes all of it; the norm's kernel reshapes its result, which is stored channels last.
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((4, 4, 1, 1)), "g": random.standard_normal((4, 5, 6))}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("LayerNormalization", ["a", "g", "g"], ["n"], axis=1),
        helper.make_node("Conv", ["n", "w"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "wide",
        [value("x", TensorProto.DOUBLE, [2, 4, 5, 6])],
        [value("y", TensorProto.DOUBLE, None)],
        [onnx.numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    given = {"x": random.standard_normal((2, 4, 5, 6))}
    expected = fusible.compile(model, target="numpy").run(given)
    assert_outputs_close(fusible.compile(model, target="cpu").run(given), expected)
