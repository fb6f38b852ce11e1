"""Convolutions that torch computes in the place of a kernel, or before one for the rest: the same numbers, refusals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import fusible
from fusible.compiler import lower
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton import library_product, tune_kernels
from fusible.compiler.backends.triton.designs import LIBRARY
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.print_kernel import design_of
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.region.parse import parse_region
from fusible.compiler.tune import tune
from fusible.runtime.devices.convolution import Placed, TorchConvolution
from fusible.runtime.devices.torch_convolution import TorchConvolutionLaunch
from fusible.runtime.plan import Launch, Plan, PlanValue
from tests import oracle
from tests.compiler.triton.test_library_product import by_torch
from tests.fast_compiler import fast_compiler
from tests.runtime import models
from tests.runtime.damaged import changed, header_of, numbers_in, with_header
from tests.tolerance import assert_outputs_close

torch = pytest.importorskip("torch")

FORMS: dict[str, dict[str, Any]] = {
    "strided": {"strides": [2, 1], "pads": [1, 1, 1, 1], "shape": [2, 16, 15, 13]},
    "groups": {"dilations": [2, 1], "pads": [2, 1, 2, 1], "group": 2},
    "line": {"shape": [2, 16, 40], "kernel": [5], "pads": [2, 2]},
    "volume": {"shape": [1, 16, 6, 7, 5], "kernel": [3, 2, 3], "pads": [1, 0, 1, 1, 0, 1], "strides": [1, 1, 2]},
    "sampled": {"kernel": [1, 1], "strides": [2, 2], "shape": [2, 16, 15, 13]},
    "transposed": {"kernel": [4, 4], "strides": [2, 2], "shape": [1, 16, 5, 6]},
}
IMAGE = """region [i0=2, i1=32, i2={points}, i3=13, i4=16, i5=3, i6=3]
  in x0: {kind}[2, 14, 13, 16]
  in x1: {kind}[32, 16, 3, 3]
  out y0: {kind}[2, {points}, 13, 32]
  v0: {kind} = load x0[i0, {row}, i3 + i6 - 1, i4] where 0 <= {row} < {high} and 0 <= i3 + i6 - 1 < 13 else {fill}
  v1: {kind} = load x1[i1, i4, {tap}, i6]
  v2: f32 = contract over i4, i5, i6 of v0, v1
  {rounded}store y0[i0, i2, i3, i1] = {value}"""


@pytest.fixture(scope="module", autouse=True)
def _fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with fast_compiler(tmp_path_factory.mktemp("cc"), "-O1", lowered=True):
        yield


def model(forms: Mapping[str, dict[str, Any]], kind: Any = np.float32) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A convolution with a bias and an activation behind it for each form, and inputs."""
    random = np.random.default_rng(0)
    nodes, inputs, weights, feeds = [], [], {}, {}
    for name, form in forms.items():
        attrs = dict(form)
        shape, kernel = attrs.pop("shape", [2, 16, 14, 13]), attrs.pop("kernel", [3, 3])
        channels = (32, shape[1] // attrs.get("group", 1))
        is_transposed = name == "transposed"
        deep = float(channels[1] * np.prod(kernel))
        weights[f"{name}_w"] = random.standard_normal((*channels[:: -1 if is_transposed else 1], *kernel)) / deep**0.5
        weights[f"{name}_b"] = random.standard_normal(32)
        op, operands = "ConvTranspose" if is_transposed else "Conv", [f"{name}_x", f"{name}_w", f"{name}_b"]
        nodes += [
            helper.make_node(op, operands, [f"{name}_c"], name=name, **attrs),
            helper.make_node("Relu", [f"{name}_c"], [f"{name}_y"], name=f"{name}_relu"),
        ]
        inputs.append(models.value(f"{name}_x", helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape))
        feeds[f"{name}_x"] = random.standard_normal(shape).astype(kind)
    stored = {name: array.astype(kind) for name, array in weights.items()}
    return models.make(nodes, inputs, [f"{name}_y" for name in forms], stored), feeds


def with_torch(
    made: onnx.ModelProto, folder: Path, monkeypatch: pytest.MonkeyPatch, target: str = "triton-cpu", **options: Any
) -> fusible.Executable:
    """A model compiled with all of its products and convolutions by torch."""
    with monkeypatch.context() as patched:  # the keys are wanted, not the kernels
        patched.setattr(lower, "_device", lambda backend, options: None)
        static = fusible.compile(made, "triton-cpu", options=fusible.Options(**options))
    lock = by_torch(folder / "lock", static)
    if target != "triton-cpu":
        lock.write_text(lock.read_text().replace("triton-cpu ", f"{target} "))
    return fusible.compile(made, target, options=fusible.Options(tuning=lock, **options))


def calls(exe: fusible.Executable) -> list[TorchConvolution]:
    assert exe.device is not None
    return [k.product for k in exe.device.code.kernels if isinstance(k.product, TorchConvolution)]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_forms(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forms = FORMS if precision == "fp32" else {"groups": FORMS["groups"]}
    made, feeds = model(forms, np.float32 if precision == "fp32" else np.float16)
    exe = with_torch(made, tmp_path, monkeypatch)
    assert len(calls(exe)) == len(feeds)
    entries = [row for row in exe.report.fusions if row["rule"] == "library-convolution"]
    assert len(entries) == len(feeds) and all("is torch's" in row["reason"] for row in entries)
    assert all(("rounded to float16 before" in row["reason"]) == (precision == "fp16") for row in entries)
    assert any("torch must be installed where it runs" in note for note in exe.report.notes)
    wanted = oracle.run(oracle.session(model(forms)[0]), {n: a.astype(np.float32) for n, a in feeds.items()})
    session = exe.session()
    session._poison = True
    for _ in range(3):  # launched, recorded, replayed
        got = session.run(feeds)
        assert_outputs_close({n: a.astype(np.float32) for n, a in got.items()}, wanted, precision=precision)
    exe.save(tmp_path / "artifact")
    again = fusible.load(tmp_path / "artifact").run(feeds)
    assert all(np.array_equal(again[name], got[name]) for name in got)


def printed(**changes: str) -> PrintedKernel:
    texts = {"kind": "f32", "points": "14", "row": "i2 + i5 - 1", "high": "14", "fill": "0.0", "tap": "i5"}
    texts |= {"rounded": "", "value": "v2"} | changes
    return design_of(parse_region(IMAGE.format(**texts)), gpu_target("h100"), (1,)).by_config(LIBRARY)


def test_results_are_written_in_place() -> None:
    found = printed()
    call = found.product
    assert isinstance(call, TorchConvolution) and found.source == "" and not call.scratch
    assert call.image.sizes == (2, 16, 14, 13) and call.image.steps == (14 * 13 * 16, 1, 13 * 16, 16)
    assert call.weight.sizes == (32, 16, 3, 3) and call.weight.steps == (144, 1, 48, 16)
    assert found.repacked == {1: (0, 2, 3, 1)}
    assert call.result.argument == 2 and call.result.steps == (14 * 13 * 32, 1, 13 * 32, 32)
    assert (call.strides, call.dilations, call.pads, call.groups) == ((1, 1), (1, 1), (1, 1), 1)


def test_borders_of_one_side_only() -> None:
    strided = printed(points="7", row="2*i2 + i5 - 1").product  # the last row is never read
    assert isinstance(strided, TorchConvolution) and strided.strides == (2, 1) and strided.pads == (1, 1)
    with pytest.raises(NotPrintable, match="its border is not the same on both sides"):
        printed(points="7", row="2*i2 + i5")
    with pytest.raises(NotPrintable, match="its border is not the same on both sides"):
        printed(points="13")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fill": "1.0"}, "what stands around its image is not 0"),
        ({"tap": "2 - i5"}, "its window is read backwards"),
        ({"high": "12"}, "a part of what is there, with a border"),
        ({"row": "floordiv(i2, 2) + i5 - 1"}, "no sums of indices"),
    ],
)
def test_what_torch_does_not_take(changes: dict[str, str], told: str) -> None:
    with pytest.raises(NotPrintable, match=f"as a convolution: .*{told}"):
        printed(**changes)


def test_torch_competes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_kernels, "_BUILT", 2)
    monkeypatch.setattr(library_product, "_LEAST_WORK", 1)
    made, _ = model({"line": FORMS["line"]})
    outcomes = tune(made, "triton-cpu", tmp_path / "lock").outcomes
    (outcome,) = (found for found in outcomes if " product " in found.task.chosen.key)
    assert outcome.choice is not None and outcome.choice.tried == 2 and not outcome.rejected


def test_built_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = model({"strided": FORMS["strided"]}, np.float16)
    exe = with_torch(made, tmp_path, monkeypatch, "cuda:sm_90")
    (call,) = calls(exe)
    assert call.dtype == "float16" and [row["language"] for row in exe.report.kernels].count("torch") == 1
    exe.save(tmp_path / "artifact")
    loaded = fusible.load(tmp_path / "artifact")
    assert loaded.device is not None and loaded.device.code.kernels == exe.device.code.kernels  # type: ignore[union-attr]


def test_damaged_numbers_never_reach_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number of a call is refused at load, or what torch is told of lies within bounds."""
    made, feeds = model({"groups": FORMS["groups"]})
    with_torch(made, tmp_path, monkeypatch).save(tmp_path / "artifact")
    header, refused, run = header_of(tmp_path / "artifact"), 0, 0
    (kernel,) = (n for n, kernel in enumerate(header["device"]["kernels"]) if kernel["product"])
    at: tuple[str | int, ...] = ("device", "kernels", kernel, "product")
    for place in numbers_in(header["device"]["kernels"][kernel]["product"], at):
        for change in (lambda v: v + 1, lambda v: v - 1, lambda v: 2 * v + 3, lambda v: 2**40):
            path = with_header(tmp_path / "artifact", changed(header, place, change), tmp_path / "damaged")
            try:
                loaded = fusible.load(path)
            except fusible.ArtifactError:
                refused += 1
                continue
            loaded.run(feeds)
            run += 1
    assert refused > 5 * run > 0


@pytest.mark.parametrize(
    ("field", "wrong", "told"),
    [
        ("shape", [1, 2, 1, 1], r"its image reaches \d+ bytes into a buffer of 8"),
        ("dtype", "f16", "its image is in float32, and its buffer in f16"),
    ],
)
def test_buffers_that_do_not_hold_a_call(
    field: str, wrong: Any, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = model({"groups": FORMS["groups"]})
    with_torch(made, tmp_path, monkeypatch).save(tmp_path / "artifact")
    header = header_of(tmp_path / "artifact")
    (kernel,) = (kernel for kernel in header["device"]["kernels"] if kernel["product"])
    (step,) = (s for s in Plan.from_json(header["plan"]).steps if isinstance(s, Launch) and s.kernel == kernel["name"])
    value = step.inputs[kernel["product"]["image"]["argument"]]
    damaged = changed(header, ("plan", "values", value, PlanValue._fields.index(field)), lambda _: wrong)
    with pytest.raises(fusible.ArtifactError, match=f"the convolution of the kernel .* at 'groups'.*{told}"):
        fusible.load(with_header(tmp_path / "artifact", damaged, tmp_path / "damaged"))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_cudnn_is_told(rank: int) -> None:
    """The call that only a GPU runs, with torch's convolution on the CPU in the place of cuDNN's."""
    told: dict[str, Any] = {}

    def stand_in(image: Any, weight: Any, pads: Any, strides: Any, dilations: Any, groups: int, **how: Any) -> None:
        told.update(how)
        found = torch.convolution(image, weight, None, strides, pads, dilations, False, [0] * len(pads), groups)
        how["out"].copy_(found)

    sizes, taps = (7, 6, 5)[:rank], (3, 2, 3)[:rank]
    window = (2, 1, 1)[:rank], (1, 2, 1)[:rank], (1, 1, 0)[:rank]
    random = np.random.default_rng(rank)
    image, weight = (torch.from_numpy(random.standard_normal(s)) for s in ((2, 8, *sizes), (4, 4, *taps)))
    wanted = torch.convolution(image, weight, None, window[0], window[2], window[1], False, [0] * rank, 2)
    found = torch.full_like(wanted, torch.nan)
    places = [Placed(n, 0, tuple(t.shape), t.stride()) for n, t in enumerate((image, weight, found))]
    call = TorchConvolution("float64", *places, *window, 2, tf32=True)
    buffers = [t.reshape(-1).view(torch.uint8) for t in (image, weight, found)]
    launch = TorchConvolutionLaunch(torch, call, buffers, nullcontext, "a step")
    out = SimpleNamespace(out=stand_in)
    launch._torch = SimpleNamespace(ops=SimpleNamespace(aten=SimpleNamespace(cudnn_convolution=out)))
    launch._by_cudnn()
    assert torch.allclose(found, wanted)
    assert (told["benchmark"], told["deterministic"], told["allow_tf32"]) == (False, True, True)
