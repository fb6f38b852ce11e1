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


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(fusible.FusibleError, match=r"fusible\[cc\]"):
        fusible.compile(block(), target="cpu")


def test_what_has_no_native_form_calls_numpy_and_says_so() -> None:
    exe = fusible.compile(models.cache_step(), target="cpu")
    assert all(row["reason"] for row in exe.report.host)
