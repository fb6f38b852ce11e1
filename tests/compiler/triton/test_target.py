"""The target triton-cpu from a model to numbers, against the target numpy; what stays in NumPy, and why; the cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fusible
from fusible.compiler.backends.triton import aot, backend, build_kernels
from fusible.compiler.backends.triton.build_pool import BuildPool
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.backends.triton.regions import kernel_of
from fusible.runtime.devices.code import DeviceKernel
from tests.runtime import models
from tests.tolerance import assert_outputs_close

FLOAT = TensorProto.FLOAT
SOURCE = """
import triton
import triton.language as tl

@triton.jit
def scale(x):
    place = x + tl.arange(0, 16)
    tl.store(place, tl.load(place) * FACTOR)
"""


def perceptron(width: int = 24) -> onnx.ModelProto:
    """Two layers with a norm between them, a residual and a softmax over rows."""
    random = np.random.default_rng(0)
    weights = {n: (random.standard_normal((width, width)) / 5).astype(np.float32) for n in ("w", "v")}
    weights |= {n: random.standard_normal(width).astype(np.float32) for n in ("b", "g")}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="first"),
        helper.make_node("Add", ["m", "b"], ["a"], name="bias"),
        helper.make_node("Gelu", ["a"], ["e"], name="gelu"),
        helper.make_node("LayerNormalization", ["e", "g", "b"], ["n"], name="norm"),
        helper.make_node("MatMul", ["n", "v"], ["p"], name="second"),
        helper.make_node("Add", ["p", "x"], ["r"], name="residual"),
        helper.make_node("Softmax", ["r"], ["y"], name="softmax"),
    ]
    return models.make(nodes, [models.value("x", FLOAT, ["n", width])], ["y"], weights)


def rows(count: int, width: int = 24) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((count, width)).astype(np.float32)}


def agree(model: onnx.ModelProto, feeds: dict[str, np.ndarray], **options: object) -> fusible.Executable:
    """Compile, run in a poisoned session and compare with the target numpy."""
    exe = fusible.compile(model, target="triton-cpu", options=fusible.Options(threads=2, **options))
    session = exe.session()
    session._poison = True
    assert_outputs_close(session.run(feeds), fusible.compile(model, target="numpy").run(feeds))
    return exe


def test_a_model_runs_wholly_in_triton() -> None:
    exe = agree(perceptron(), rows(7), standalone=True)
    assert exe.target == "triton-cpu" and exe.report.host == ()
    assert {row["language"] for row in exe.report.kernels} == {"triton"}
    assert len(exe.report.kernels) < 7
    for count in (1, 40):
        assert_outputs_close(exe.run(rows(count)), fusible.compile(perceptron(), target="numpy").run(rows(count)))
    source = exe.sources[f"{exe.report.kernels[0]['kernel']}.triton.py"]
    assert "@triton.jit" in source


def test_convolutions_store_channels_last_and_find_them_so() -> None:
    random = np.random.default_rng(2)
    weights = {n: random.standard_normal(s).astype(np.float32) for n, s in (("w", (16, 3, 3, 3)), ("v", (8, 16, 3, 3)))}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="first", strides=[2, 2]),
        helper.make_node("Conv", ["c", "v"], ["y"], name="second", pads=[1, 1, 1, 1]),
    ]
    model = models.make(nodes, [models.value("x", FLOAT, [2, 3, 9, "w"])], ["y"], weights)
    exe = agree(model, {"x": random.standard_normal((2, 3, 9, 12)).astype(np.float32)})
    assert exe.report.host == ()
    assert [value.order for value in exe.plan.values if value.kind == "arena"] == [(0, 2, 3, 1)]


def test_branches_and_loops() -> None:
    for flag in (True, False):
        feeds = {"x": np.ones((3, 2), np.float32), "flag": np.asarray(flag), "count": np.asarray(2)}
        exe = agree(models.branches(), feeds)
    assert {row["language"] for row in exe.report.kernels if "language" in row} == {"triton"}


def test_what_stays_in_numpy_has_a_reason() -> None:
    exe = agree(models.nonzero_chain(), {"x": np.asarray([[1, -1, 2], [0, 3, -2]], np.float32)})
    reasons = {row["op"]: row["reason"] for row in exe.report.host}
    assert reasons["non_zero"] == "its results are views, or of sizes known only when it runs"
    assert set(reasons) == {"non_zero"}
    assert {row["language"] for row in exe.report.kernels if "language" in row} == {"triton", "numpy"}
    with pytest.raises(fusible.LoweringError, match=r"runs on triton-cpu alone.*non_zero"):
        fusible.compile(models.nonzero_chain(), target="triton-cpu", options=fusible.Options(standalone=True))


def test_views_that_a_device_has_no_words_for_are_kernels() -> None:
    """Where a kernel or the caller reads them: else a GPU would need the host for a transposition."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("TopK", ["t", "k"], ["y", "i"]),
        helper.make_node("Slice", ["x", "one", "three", "axis"], ["s"]),
        helper.make_node("Expand", ["row", "shape"], ["e"]),
        helper.make_node("Flatten", ["x"], ["f"]),
    ]
    numbers = {"k": [2], "one": [1], "three": [3], "axis": [1], "shape": [3, 2, 5]}
    inputs = [models.value("x", FLOAT, ["n", 4, 5]), models.value("row", FLOAT, [2, 1])]
    model = models.make(nodes, inputs, ["y", "s", "e", "f"], {n: np.asarray(v) for n, v in numbers.items()})
    random = np.random.default_rng(0)
    feeds = {n: random.standard_normal(s).astype(np.float32) for n, s in (("x", (3, 4, 5)), ("row", (2, 1)))}
    exe = agree(model, feeds, standalone=True)
    assert {row["op"] for row in exe.report.host} <= {"flatten", "reshape"}  # the same memory under another shape


def test_equal_kernels_are_one() -> None:
    nodes = [helper.make_node("Gather", [x, y], [f"{x}{y}"]) for x, y in (("v", "i"), ("vi", "i"), ("vii", "j"))]
    inputs = [models.value("v", FLOAT, [5]), *(models.value(n, TensorProto.INT64, [5]) for n in "ij")]
    places = np.asarray([4, -1, 0, 2, 3])
    exe = agree(models.make(nodes, inputs, ["viij"]), {"v": rows(1, 5)["x"][0], "i": places, "j": places[::-1]})
    assert len(exe.report.kernels) > len({row["kernel"] for row in exe.report.kernels}) == 1


def test_every_access_is_checked_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.make([helper.make_node("Abs", ["x"], ["y"], name="size")], [models.value("x", FLOAT, ["n"])], ["y"])
    feeds = {"x": np.arange(-3, 4, dtype=np.float32)}
    agree(model, feeds, verify="kernels")

    def without_masks(*arguments: object, **more: object) -> object:
        built, kernel = kernel_of(*arguments, **more)  # type: ignore[arg-type]
        return built, PrintedKernel(kernel.source.replace("r < s0", "r < s0 + 1"), kernel.rule)

    monkeypatch.setattr(backend, "kernel_of", without_masks)
    exe = fusible.compile(model, target="triton-cpu", options=fusible.Options(verify="kernels"))
    with pytest.raises(fusible.ExecutionError, match=r"'size'.*element 7 of 'x0', which has 7"):
        exe.run(feeds)


def test_what_was_made_once_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = agree(models.cache_step(), {"past": np.ones(4, np.float32), "x": np.ones(4, np.float32)})

    def unexpected(*arguments: object) -> object:
        raise AssertionError("Triton was asked again")

    monkeypatch.setattr(aot, "ttir_text", unexpected)
    again = fusible.compile(models.cache_step(), target="triton-cpu")
    assert again.sources == first.sources


def test_many_kernels_are_built_by_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = []
    for number in range(2 * build_kernels._FEW):
        source = SOURCE.replace("FACTOR", str(number + 2))
        kernels.append(DeviceKernel(f"k{number}", "scale", source, (("x", "*fp32"),), {}))
    monkeypatch.setattr(build_kernels, "usable_threads", lambda: 2)
    monkeypatch.setattr(build_kernels, "_make", None)  # this process makes nothing
    gpu = replace(gpu_target("cuda:sm_89"), target="cuda:sm_86")  # of those that `build_for` alone can name
    made = build_kernels.build_kernels(kernels, gpu, build_kernels.Form.C, tmp_path)
    for number, (_, entry) in enumerate(made):
        assert f"INT32_C({number + 2})" in entry["source"] or str(number + 2) in entry["source"]


def test_a_pool_builds_for_a_gpu_that_has_no_name(tmp_path: Path) -> None:
    kernel = DeviceKernel("k0", "scale", SOURCE.replace("FACTOR", "7"), (("x", "*fp32"),), {})
    pool = BuildPool(replace(gpu_target("cuda:sm_89"), target="cuda:sm_86"), build_kernels.Form.C, tmp_path, 1)
    try:
        assert pool.submit(kernel, lambda built: built).result() == kernel
    finally:
        pool.close()


def test_a_kernel_that_triton_refuses_is_named_whoever_builds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = DeviceKernel("k0", "scale", SOURCE.replace("FACTOR", "nothing"), (("x", "*fp32"),), {})
    monkeypatch.setattr(build_kernels, "usable_threads", lambda: 2)
    monkeypatch.setattr(build_kernels, "_FEW", 1)
    twice = [broken, replace(broken, source=f"{broken.source}\n")]
    with pytest.raises(fusible.KernelBuildError, match="nothing is not defined"):
        build_kernels.build_kernels(twice, gpu_target("h100"), build_kernels.Form.C, tmp_path)


@pytest.mark.parametrize("precision", ["tf32", "fp16", "bf16"])
def test_precisions(precision: str) -> None:
    model, feeds = perceptron(), rows(16)
    wide = fusible.compile(model, target="triton-cpu").run(feeds)
    exe = fusible.compile(model, target="triton-cpu", options=fusible.Options(precision=precision))
    got = exe.run(feeds)
    assert_outputs_close(got, wide, precision="fp16" if precision == "tf32" else precision)
    assert got["y"].dtype == np.float32 and not np.array_equal(got["y"], wide["y"])
    narrow = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
    if precision in narrow:
        assert np.dtype(narrow[precision]) in {c.dtype for c in exe.constants} and exe.report.host == ()
