"""Models with bounded sizes: graphs of buckets give the bits of runs for exact sizes; kernels that read their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

import fusible
from fusible.compiler.backends.triton import backend
from fusible.compiler.backends.triton.sized import sized
from fusible.gpu_selftest.models import CASES, Case
from fusible.runtime.devices.code import DeviceKernel, TensorBlock
from fusible.runtime.devices.session import DeviceSession
from fusible.runtime.executable import Executable

CHECKED = fusible.Options(verify="kernels")

DECODER = """
<ir_version: 10, opset_import: ["" : 21]>
decoder (float[batch, 2, 1, 16] q, float[batch, 2, past, 16] keys, float[batch, 2, past, 16] values,
         float[batch, 2, 1, 16] k, float[batch, 2, 1, 16] v)
     => (float[batch, 2, 1, 16] y, float[batch, 2, total, 16] all_keys, float[batch, 2, total, 16] all_values,
         int64[1] length)
{
  all_keys = Concat <axis = 2> (keys, k)
  all_values = Concat <axis = 2> (values, v)
  transposed = Transpose <perm = [0, 1, 3, 2]> (all_keys)
  scores = MatMul (q, transposed)
  weights = Softmax <axis = -1> (scores)
  sizes = Shape <start = 2, end = 3> (all_keys)
  as_float = Cast <to = 1> (sizes)
  scaled = Div (weights, as_float)
  y = MatMul (scaled, all_values)
  length = Identity (sizes)
}
"""


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Switches buckets off for what is compiled behind it."""
    return monkeypatch


def both(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, int]], exact: pytest.MonkeyPatch
) -> tuple[Executable, Executable]:
    by_buckets = fusible.compile(model, "triton-cpu", shapes=dict(shapes), options=CHECKED)
    exact.setattr(backend, "sized_for", lambda plan, kernels: (dict(kernels), "switched off"))
    return by_buckets, fusible.compile(model, "triton-cpu", shapes=dict(shapes), options=CHECKED)


def session_of(exe: Executable) -> DeviceSession:
    session = exe.session()
    assert isinstance(session, DeviceSession)
    session._poison = True
    return session


@pytest.mark.parametrize("case", (CASES[1], CASES[3]), ids=lambda case: case.name)
def test_buckets_give_the_same_bits(case: Case, exact: pytest.MonkeyPatch) -> None:
    made, plain = both(case.model, {"n": (0, 70)}, exact)
    session, other = session_of(made), session_of(plain)
    generator = np.random.default_rng(3)
    for n in (64, 40, 33, 70, 0, 1, 70, 65, 2, 2):
        x = {
            name: generator.standard_normal((n, *shape[1:])).astype(np.float32) for name, shape in case.runs[0].items()
        }
        found, wanted = session.run(x), other.run(x)
        assert all(np.array_equal(found[name], wanted[name], equal_nan=True) for name in wanted)
    assert session.captures and all(c.bucket is not None for c in session.captures)
    assert any("buckets of sizes" in note and "n 0 to 70" in note for note in made.report.notes)
    assert any("exact sizes: switched off" in note for note in plain.report.notes)


def test_a_growing_cache_is_replayed(exact: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made, plain = both(onnx.parser.parse_model(DECODER), {"batch": (1, 3), "past": (0, 40)}, exact)
    made.save(tmp_path / "decoder.fusible")
    loaded = fusible.load(tmp_path / "decoder.fusible")
    session, other = session_of(loaded), session_of(plain)
    session.bind(state={"all_keys": "keys", "all_values": "values"})
    generator = np.random.default_rng(4)

    def of(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(np.float32)

    cache = {"keys": of(2, 2, 17, 16), "values": of(2, 2, 17, 16)}
    for step in range(14):
        new = {"q": of(2, 2, 1, 16), "k": of(2, 2, 1, 16), "v": of(2, 2, 1, 16)}
        found, wanted = session.run(new if step else {**new, **cache}), other.run({**new, **cache})
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
        cache = {"keys": wanted["all_keys"], "values": wanted["all_values"]}
    assert [dict(c.bucket or {}) for c in session.captures] == [{"batch": (2, 2), "past": (17, 32)}] * 2  # to and fro
    assert len(session.captures[0].used) == 14 and not other.captures


KERNEL = """import triton
import triton.language as tl


@triton.jit
def kernel(x0, y0, workspace, counters, s0, s1, ROWS: tl.constexpr):
    tl.store(y0, s0 + s1)
"""
ARGUMENTS = (
    ("x0", "*fp32"), ("y0", "*i64"), ("workspace", "*fp32"), ("counters", "*i32"), ("s0", "i32"), ("s1", "i64"),
)  # fmt: skip


def test_the_head_of_a_kernel_reads_its_sizes() -> None:
    known = TensorBlock("t0", "x0", 0, (8, 16), (16, 1), (8, 16))
    open_ended = TensorBlock("t1", "x0", 0, (0, 16), (16, 1), (8, 16))
    kernel = DeviceKernel("k", "kernel", KERNEL, ARGUMENTS, {"ROWS": 1}, workspace=4, tensors=(known, open_ended))
    found = sized(kernel)
    assert found.arguments == (*ARGUMENTS[:2], ("sizes", "*i64"), *ARGUMENTS[2:4])
    assert found.numbers == found.sizes == ARGUMENTS[4:] and found.tensors == (known,)
    assert found.source.endswith(
        "def kernel(x0, y0, sizes, workspace, counters, ROWS: tl.constexpr):\n"
        "    if tl.program_id(0) >= tl.load(sizes):\n        return\n"
        "    s0 = tl.load(sizes + 1).to(tl.int32)\n    s1 = tl.load(sizes + 2)\n    tl.store(y0, s0 + s1)\n"
    )


@pytest.mark.parametrize("text", [KERNEL.replace("kernel(", "other("), KERNEL.replace("x0, y0", "y0, x0")])
def test_other_heads_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="kernel"):
        sized(DeviceKernel("k", "kernel", text, ARGUMENTS, {"ROWS": 1}, workspace=4))


def test_built_for_hopper_products_use_its_matrix_units() -> None:
    case = CASES[1]
    options = fusible.Options(precision="fp16")
    exe = fusible.compile(case.model, "cuda:sm_90", shapes={"n": (1, 512)}, options=options)
    assert exe.device is not None
    (kernel,) = [k for k in exe.device.code.kernels if k.sizes]
    assert kernel.arguments[-1] == ("sizes", "*i64") and "return" in kernel.source
    (row,) = exe.report.gpu["kernels"]
    assert row["matrix"].get("wgmma") and row["loads"].get("128") and not row["spilled"]
