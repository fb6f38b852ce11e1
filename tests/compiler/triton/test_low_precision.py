"""4 and 8 bits in Triton kernels: a sample of models in checking mode, of builds, and conversions of 8-bit floats.

`python -m tests.compiler.triton.low_precision` has all.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fusible
from fusible.compiler.backends.triton.aot import build
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.print_kernel import print_kernel
from fusible.compiler.ir.types import DType
from fusible.compiler.region.evaluate import run_region
from fusible.compiler.region.region import Region
from fusible.compiler.tune import tune
from tests.compiler.triton.contractions import ran
from tests.compiler.triton.low_precision import BUILDS, check, compiled, wrong_with
from tests.compiler.triton.test_casts import F8E4M3, F8E5M2, assert_same, near_ties
from tests.region.quantised import arrays_for, product
from tests.tolerance import assert_close

SAMPLE = (
    "uint4_in_blocks", "int4_by_a_vector", "float8_operands", "uint8_operands", "dynamically_quantised_by_rows",
    "int4_for_brain_floats", "int4_by_halves_of_a_window", "n_bits_by_many_rows",
)  # fmt: skip


@pytest.mark.parametrize("name", SAMPLE)
def test_a_model_is_few_kernels_and_right(name: str) -> None:
    check(name)


def test_weights_stay_packed_and_the_ledger_says_so() -> None:
    exe, _, _ = compiled("uint4_in_blocks")
    (entry,) = (r for r in exe.report.refusals if r["rule"] == "packed-weights")
    assert entry["reason"] == "kernels read 5328 bytes of packed weights in place of 18432 dequantised ones"
    assert entry["saved"]["bytes"] == 18432 - 5328
    assert max(c.nbytes for c in exe.constants) == 128 * 72 // 2


def test_a_weight_that_many_rows_read_is_dequantised_once() -> None:
    exe, _, _ = compiled("uint4_in_blocks_by_many_rows", fusible.Options(precision="fp16"))
    names = [row["kernel"].partition("_")[2] for row in exe.report.kernels]
    assert names == ["dequantize_linear", "cast_matmul_cast"] and max(c.nbytes for c in exe.constants) == 512 * 512 // 2
    reasons = [row["reason"] for row in exe.report.refusals if row["pass"] == "fuse-regions"]
    assert reasons[:1] == [
        "dequantised by each tile of its products it takes 7.5 us, by a kernel of its own before them 4.4 us"
    ]


def test_weights_stay_packed_in_fp16() -> None:
    exe, _, _ = compiled("int4_gemm_with_a_bias", fusible.Options(precision="fp16"))
    assert len(exe.report.kernels) == 1 and max(c.nbytes for c in exe.constants) == 40 * 128 // 2


def test_a_weight_that_no_kernel_unpacks_is_folded() -> None:
    """Where nothing may be fused, the product reads a constant as before."""
    exe, _, _ = compiled("uint4_in_blocks", options=fusible.Options(exactness=fusible.passes.Exactness.EXACT))
    assert len(exe.report.kernels) == 1
    assert max(c.nbytes for c in exe.constants) == 128 * 72 * 2


def test_what_another_target_cannot_multiply_is_converted(tmp_path: Path) -> None:
    alone, _, _ = compiled("quantised_product_of_float8")
    options = fusible.Options(also=("cuda:sm_80",))
    both, made, model = compiled("quantised_product_of_float8", options)
    assert ["float8e4nv" in "".join(exe.sources.values()) for exe in (alone, both)] == [True, False]
    (first,), (second,) = (exe.run(made.inputs).values() for exe in (alone, both))
    np.testing.assert_array_equal(first, second)
    # Tuning finds what compilation looks up, and neither takes the kernels of the one for those of the other.
    keys = [{row["key"] for row in exe.report.kernels} for exe in (alone, both)]
    for chosen, wanted in ((fusible.Options(), keys[0]), (options, keys[1])):
        report = tune(model, "triton-cpu", tmp_path / "lock.json", options=chosen, budget=1e-9)
        assert {outcome.task.chosen.key for outcome in report.outcomes} == wanted
    assert keys[0] != keys[1]


@pytest.mark.parametrize("sizes", [(24, 4096, 64), (3000, 512, 700)])
def test_programs_share_sums_of_halves(sizes: tuple[int, int, int]) -> None:
    """Long sums of few tiles; and what a tail that is shared would be for, which this template has not."""
    m, k, n = sizes
    region = product(DType.F16, DType.I4, (m, k, n), real=DType.F16, zeros=(False, True)).region
    kernel = print_kernel(region, gpu_target("h100"), [1, 2, 3])
    assert kernel.packed == {1: 0} and (kernel.rule.constants["SPLIT"] > 1) is (m == 24)
    assert not kernel.rule.alone
    if m == 24:
        inputs = arrays_for(region)
        (wanted,), (got,) = run_region(region, inputs), ran(kernel, region, inputs, {})
        assert_close(got, wanted, accumulation=k)


_VECTORS = [
    (DType.F16, DType.I4, 32, 192, 13),  # blocks that are no power of two in number: the last ones are masked
    (DType.BF16, DType.U4, 128, 512, 9),
    (DType.F32, DType.U8, 32, 96, 33),  # bytes: no halves
    (DType.F16, DType.I4, 128, 40960, 3),  # several steps through a row
]


def _by_a_vector(real: DType, stored: DType, block: int, terms: int, columns: int) -> Region:
    return product(real, stored, (1, terms, columns), real=real, block=block, zeros=(False, True)).region


@pytest.mark.parametrize("case", _VECTORS)
def test_a_vector_meets_the_scales_of_its_blocks(case: tuple[DType, DType, int, int, int]) -> None:
    region = _by_a_vector(*case)
    kernel = print_kernel(region, gpu_target("h100"), [1, 2, 3])
    assert "by_blocks(" in kernel.source
    inputs = arrays_for(region)
    (wanted,), (got,) = run_region(region, inputs), ran(kernel, region, inputs, {})
    assert_close(got, wanted, accumulation=case[3])
    wrong = replace(kernel, source=kernel.source.replace("(b + (r", "(b // 2 + (r"))
    (other,) = ran(wrong, region, inputs, {})
    assert np.abs(other.astype(np.float64) - wanted.astype(np.float64)).max() > 0.5


@pytest.mark.parametrize("target", ["cuda:sm_80", "cuda:sm_90"])
def test_a_thread_loads_the_scales_of_its_blocks_alone(target: str) -> None:
    """16 bytes of weights in each access, and with them two scales and two zero points: of either half."""
    gpu = gpu_target(target)
    report = build(print_kernel(_by_a_vector(DType.F16, DType.I4, 128, 4096, 4096), gpu, [1, 2, 3]), gpu).report
    assert not report.spilled and report.loads[128] == 8
    assert sum(count for bits, count in report.loads.items() if bits < 128) <= 4 * 4  # of four rows


def test_a_wrong_half_is_noticed() -> None:
    region = product(DType.F16, DType.I4, (9, 64, 40), real=DType.F16, zeros=(False, True)).region
    kernel = print_kernel(region, gpu_target("h100"), [1, 2, 3])
    assert kernel.packed == {1: 0}
    inputs = arrays_for(region)
    stored = [kernel.stored(n, x) if n in kernel.packed else x for n, x in enumerate(inputs)]
    assert stored[1].nbytes * 2 == inputs[1].nbytes
    right = ran(kernel, region, inputs, {})[0].astype(np.float64)
    wrong = ran(replace(kernel, source=kernel.source.replace(">> ", "<< ")), region, inputs, {})
    assert np.abs(wrong[0].astype(np.float64) - right).max() > 1


@pytest.mark.parametrize(("name", "target"), [("e4m3", "cuda:sm_89"), ("int4_by_channel", "cuda:sm_80")])
def test_matrix_units_multiply(name: str, target: str) -> None:
    assert wrong_with(replace(BUILDS[name], sizes=(BUILDS[name].sizes[0] // 4, 256, 64)), target) == ""


@pytest.mark.parametrize("saturate", [True, False])
@pytest.mark.parametrize(("dtype", "number"), [(F8E4M3, TensorProto.FLOAT8E4M3FN), (F8E5M2, TensorProto.FLOAT8E5M2)])
def test_casts_round_as_ml_dtypes_rounds(dtype: np.dtype, number: int, saturate: bool) -> None:
    x = near_ties(dtype)
    nodes = [
        helper.make_node("Cast", ["x"], ["q"], to=number, saturate=int(saturate)),
        helper.make_node("Cast", ["q"], ["y"], to=TensorProto.FLOAT),
    ]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])]
    results = [helper.make_tensor_value_info(n, t, ["n"]) for n, t in (("q", number), ("y", TensorProto.FLOAT))]
    graph = helper.make_graph(nodes, "casts", given, results)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    exe = fusible.compile(model, target="triton-cpu", options=fusible.Options(verify="kernels"))
    assert not exe.report.host
    found = exe.run({"x": x})
    limit = np.float32(448 if dtype == F8E4M3 else 57344)
    expected = np.clip(x, -limit, limit) if saturate else x
    with np.errstate(all="ignore"):
        assert_same(found["q"], expected.astype(dtype))
    np.testing.assert_array_equal(found["y"], found["q"].astype(np.float32))
