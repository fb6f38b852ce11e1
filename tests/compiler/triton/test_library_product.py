"""Products that torch computes in the place of a kernel, or before one for the rest: the same numbers, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fusible
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.designs import LIBRARY
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.print_kernel import design_of
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.region.parse import parse_region
from fusible.compiler.tune import tune
from fusible.compiler.tuning import Choice, Source, TuningLock
from fusible.errors import UsageError
from fusible.runtime.devices.product import Matrix
from tests.runtime import models
from tests.tolerance import assert_outputs_close

torch = pytest.importorskip("torch")

H100 = gpu_target("h100")
PRODUCT = """region [i0=40, i1=48, i2=32]
  in x0: {kind}[40, 32]
  in x1: {kind}[{right}]
  out y0: {kind}[40, 48]
  v0: {kind} = load x0[i0, i2]{bound}
  v1: {kind} = load x1[{place}]
  v2: f32 = contract over i2 of v0, v1
  {rounded}store y0[i0, i1] = {value}"""


def printed(**changes: str) -> PrintedKernel:
    texts = {"kind": "f32", "right": "32, 48", "place": "i2, i1", "bound": "", "rounded": "", "value": "v2"} | changes
    return design_of(parse_region(PRODUCT.format(**texts)), H100).by_config(LIBRARY)


def model() -> onnx.ModelProto:
    """Three products: one with an activation behind it, one with a residual, one with nothing."""
    random = np.random.default_rng(0)
    weights = {n: (random.standard_normal((96, 96)) / 10).astype(np.float32) for n in ("u", "v", "w")}
    weights["b"] = random.standard_normal(96).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "u"], ["p"], name="first"),
        helper.make_node("Gelu", ["p"], ["g"], name="gelu"),
        helper.make_node("MatMul", ["g", "v"], ["q"], name="second"),
        helper.make_node("Add", ["q", "b"], ["r"], name="bias"),
        helper.make_node("Add", ["r", "g"], ["s"], name="residual"),
        helper.make_node("MatMul", ["s", "w"], ["y"], name="third"),
    ]
    return models.make(nodes, [models.value("x", TensorProto.FLOAT, [2, 50, 96])], ["y"], weights)


def by_torch(path: Path, exe: fusible.Executable, all_but: int = 0) -> Path:
    """A lockfile that has torch multiply in the kernels of an executable, but for the first ones."""
    keys = [row["key"] for row in exe.report.kernels if " product " in row.get("key", "")]
    TuningLock({key: Choice(LIBRARY, Source.MEASURED, 2e-6, 9, "a test") for key in keys[all_but:]}).write(path)
    return path


def test_models_are_the_same(tmp_path: Path) -> None:
    static = fusible.compile(model(), "triton-cpu")
    options = fusible.Options(tuning=by_torch(tmp_path / "lock", static))
    exe = fusible.compile(model(), "triton-cpu", options=options)
    assert [row["language"] for row in exe.report.kernels] == ["torch"] * 3
    entries = [row for row in exe.report.fusions if row["pass"] == "tuning"]
    assert len(entries) == 3
    assert entries[-1]["reason"] == (
        "the fastest of 9 that were measured on a test is torch's, 2.00 us with all that follows"
    )
    assert any("torch must be installed where it runs" in note for note in exe.report.notes)
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 50, 96)).astype(np.float32)}
    wanted = static.run(feeds)
    session = exe.session()
    session._poison = True
    for _ in range(3):  # launched, recorded, replayed
        assert_outputs_close(session.run(feeds), wanted)
    exe.save(tmp_path / "artifact")
    assert np.array_equal(fusible.load(tmp_path / "artifact").run(feeds)["y"], exe.run(feeds)["y"])


def test_where_operands_and_result_lie() -> None:
    found = printed()
    assert found.source == "" and found.product is not None and not found.product.scratch
    assert found.product.left == Matrix(0, 0, 0, 32, 1) and found.product.right == Matrix(1, 0, 0, 48, 1)
    assert found.product.result == Matrix(2, 0, 0, 48, 1)
    turned = printed(right="48, 32", place="i1, i2").product
    assert turned is not None and turned.right == Matrix(1, 0, 0, 1, 32)
    rest = printed(rounded="v3: f32 = max(v2, 0.0)\n  ", value="v3")
    assert rest.product is not None and rest.product.result == Matrix(2, 0, 40 * 48, 48, 1)
    assert rest.product.scratch == 40 * 48 * 4 and "x0, x1, x2, y0" in rest.source and "x2 +" in rest.source


def test_products_are_rounded_once() -> None:
    rounded = printed(kind="f16", rounded="v3: f16 = f16(v2)\n  ", value="v3").product
    assert rounded is not None and rounded.dtype == "float16"
    twice = "v3: f16 = f16(v2)\n  v4: f16 = f16(mul(v2, 2.0))\n  v5: f16 = add(v3, v4)\n  "
    with pytest.raises(NotPrintable, match="is rounded to f16, and this one is not"):
        printed(kind="f16", rounded=twice, value="v5")


def test_a_bias_is_added_before_rounding() -> None:
    bias = "v3: f16 = load x2[i1]\n  v4: f32 = f32(v3)\n  v5: f32 = add(v2, v4)\n  v6: f16 = f16(v5)\n  "
    text = PRODUCT.replace("  out y0", "  in x2: f16[48]\n  out y0")
    found = design_of(
        parse_region(text.format(kind="f16", right="32, 48", place="i2, i1", bound="", rounded=bias, value="v6")),
        H100,
    ).by_config(LIBRARY)
    assert found.source == "" and found.product is not None
    assert found.product.added == Matrix(2, 0, 0, 0, 1) and found.product.result.argument == 3


def test_convolutions_that_are_products(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = {n: (random.standard_normal((32, 32, 1, 1)) / 5).astype(np.float32) for n in "uvw"}
    weights |= {n: random.standard_normal(32).astype(np.float32) for n in "bc"}
    nodes = [
        helper.make_node("Conv", ["x", "u"], ["p"], name="first"),
        helper.make_node("Conv", ["p", "v", "b"], ["q"], name="bias"),
        helper.make_node("Relu", ["q"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "w", "c"], ["s"], name="residual"),
        helper.make_node("Add", ["s", "p"], ["y"], name="add"),
    ]
    small = models.make(nodes, [models.value("x", TensorProto.FLOAT, [2, 32, 9, 7])], ["y"], weights)
    options = fusible.Options(precision="fp16")
    static = fusible.compile(small, "triton-cpu", options=options)
    lock = by_torch(tmp_path / "lock", static, 1)
    exe = fusible.compile(
        small,
        "triton-cpu",
        options=fusible.Options(precision="fp16", tuning=lock),
    )
    products = [kernel.product for kernel in exe.device.code.kernels if kernel.product] if exe.device else []
    assert len(products) == 2 and all(product.added is not None for product in products)
    feeds = {"x": random.standard_normal((2, 32, 9, 7)).astype(np.float32)}
    assert_outputs_close(exe.run(feeds), static.run(feeds), precision="fp16")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"bound": " where 1 <= i0 < 40 else 0.0"}, "an operand is not loaded as it is"),
        ({"right": "79", "place": "i1 + i2"}, ""),
        ({"right": "32, 96", "place": "i2, floordiv(i1, 2)"}, "no matrix"),
    ],
)
def test_what_torch_does_not_take(changes: dict[str, str], told: str) -> None:
    if not told:  # a matrix whose rows overlap is one
        assert printed(**changes).product is not None
        return
    with pytest.raises(NotPrintable, match=told):
        printed(**changes)


def test_other_libraries_are_refused(tmp_path: Path) -> None:
    static = fusible.compile(model(), "triton-cpu")
    lock = by_torch(tmp_path / "lock", static)
    lock.write_text(lock.read_text().replace('"torch"', '"mkl"'))
    with pytest.raises(UsageError, match=r"for 'first', 'gelu' that cannot be: the only library there is"):
        fusible.compile(model(), "triton-cpu", options=fusible.Options(tuning=lock))


def test_torch_competes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fusible.compiler.backends.triton import library_product, tune_kernels

    monkeypatch.setattr(tune_kernels, "_BUILT", 2)
    monkeypatch.setattr(library_product, "_LEAST_WORK", 1)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"], name="p"), helper.make_node("Relu", ["p"], ["y"], name="r")]
    weights = {"w": np.ones((48, 64), np.float32)}
    small = models.make(nodes, [models.value("x", TensorProto.FLOAT, [32, 48])], ["y"], weights)
    report = tune(small, "triton-cpu", tmp_path / "lock")
    (outcome,) = report.outcomes
    assert outcome.choice is not None and outcome.choice.tried == 2 and not outcome.rejected
    entries = json.loads((tmp_path / "lock").read_text())["entries"]
    assert [entry["config"] for entry in entries.values()] == [dict(outcome.choice.config)]
