"""Attention printed around the template: some forms in checking mode; tests.compiler.triton.templates has all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fusible.compiler.backends.attention import Window, attention_of, window_of
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.aot import build as built
from fusible.compiler.backends.triton.attention import attention_products
from fusible.compiler.backends.triton.f32_products import IEEE, TF32, TF32X3
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.print_kernel import print_kernel
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.ir.graph import Value
from fusible.compiler.region.build import build_region
from fusible.compiler.region.region import Region
from fusible.errors import ExecutionError
from tests.compiler.triton.attention_forms import cached, check_attention, in_parts, made, with_lengths
from tests.region.fusion_cases import _Maker

H100 = gpu_target("h100")
SAMPLE = ("bool_mask", "masked_by_the_least_float", "unguarded", "guarded_by_nan_with_epilogue", "one_query")


@pytest.mark.parametrize("name", SAMPLE)
def test_attention_computes_what_its_region_does(name: str) -> None:
    one = made(name)
    check_attention(one, print_kernel(one.region, H100))


@pytest.mark.parametrize("name", ["mask_from_places", "masked_by_the_least_float", "additive_mask_of_a_batch"])
def test_products_of_f32_may_be_three_of_tf32(name: str) -> None:
    one = made(name)
    few = name == "additive_mask_of_a_batch"  # 7 columns
    kernel = print_kernel(one.region, H100, precision=TF32X3)
    assert (f'"{IEEE if few else TF32X3}"' in kernel.source) and kernel.serial == few
    check_attention(one, kernel)


def test_one_product_of_tf32_is_not_enough() -> None:
    one = made("masked_by_the_least_float")
    with pytest.raises(AssertionError, match="exceeds"):
        check_attention(one, print_kernel(one.region, H100, precision=TF32))


def _heads(batch: int, queries: int, width: int, dtype: type[np.generic] = np.float32) -> Region:
    m = _Maker(1)
    y = m("attention", m.x(batch, 12, queries, width, dtype=dtype), *(m.x(batch, 12, 128, width, dtype=dtype),) * 2)
    return build_region(list(m.graph), [y], inline_scalars=True).region


def test_few_queries_wide_heads_and_half_precision_are_not_split() -> None:
    found = [attention_products(_heads(1, *sizes), TF32X3) for sizes in ((128, 64), (128, 128), (1, 64), (128, 256))]
    assert found == [TF32X3, TF32X3, IEEE, IEEE]
    assert attention_products(_heads(1, 128, 64, np.float16), TF32X3) == IEEE
    assert attention_products(_heads(1, 128, 64), IEEE) == IEEE and attention_products(_heads(1, 128, 64), TF32) == TF32


def test_a_kernel_of_exact_products_begins_when_its_predecessor_has_ended() -> None:
    """A multiprocessor's vector units would be shared; a single query waits for memory."""
    assert print_kernel(_heads(1, 128, 64), H100).serial and not print_kernel(_heads(1, 1, 64), H100).serial
    assert not print_kernel(_heads(1, 128, 64, np.float16), H100).serial


@pytest.mark.parametrize(
    ("gpu", "batch", "width", "instruction"),
    [("h100", 1, 64, "mma.sync"), ("h100", 8, 64, "wgmma.mma_async"), ("h100", 1, 128, "mma.sync"),
     ("a100", 8, 64, "mma.sync"), ("a100", 1, 128, "mma.sync")],
)  # fmt: skip
def test_three_products_use_matrix_units_and_do_not_spill(gpu: str, batch: int, width: int, instruction: str) -> None:
    target = gpu_target(gpu)
    found = built(print_kernel(_heads(batch, 128, width), target, precision=TF32X3), target)
    assert found.report.spilled == 0 and instruction in found.assembly


def test_lengths_may_be_known_only_when_it_runs() -> None:
    kernels = {print_kernel(with_lengths(*sizes).region, H100).source for sizes in ((3, 5), (20, 70))}
    assert len(kernels) == 1 and "queries" not in kernels.pop().partition("import")[0]
    for sizes in ((70, 33), (1, 64), (4, 0)):
        one = with_lengths(*sizes)
        check_attention(one, print_kernel(one.region, H100))


@pytest.mark.parametrize("name", ["window_of_nine_keys", "masked_by_the_least_float", "bool_mask", "one_query"])
def test_programs_share_keys(name: str) -> None:
    """More parts than there are steps, too; of a query that attends nothing, no part has anything."""
    one = made(name)
    check_attention(one, in_parts(one.region, H100, 5))


def test_shared_keys_may_be_counted_only_when_it_runs() -> None:
    one = with_lengths(3, 70)
    kernel = in_parts(one.region, H100, 3)
    check_attention(one, kernel)
    check_attention(with_lengths(17, 5), kernel)


def test_few_queries_of_many_keys_are_shared_out() -> None:
    one = cached(1, 1500)
    kernel = print_kernel(one.region, H100)
    constants = kernel.rule.constants
    assert constants["SPLIT"] >= 8 and kernel.rule.programs({}) == 2 * constants["SPLIT"]  # two heads of keys
    assert 1500 // constants["SPLIT"] >= 128
    check_attention(one, kernel)
    assert print_kernel(cached(4, 4096, 8, 1).region, H100).rule.constants["SPLIT"] > 4


def test_keys_are_not_shared_out_where_that_gains_nothing() -> None:
    for one in (cached(1, 100), cached(1, 1500, 2 * H100.multiprocessors, 1), cached(1500, 1500, 16, 1)):
        assert print_kernel(one.region, H100).rule.constants["SPLIT"] == 1
    assert print_kernel(with_lengths(1, 1000).region, H100).rule.constants["SPLIT"] == 1  # there may be many queries


def test_parts_in_one_place_are_noticed() -> None:
    one = made("one_query")
    kernel = in_parts(one.region, H100, 2)
    wrong = kernel.source.replace("    part, workspace", "    part * 0, workspace")
    assert wrong != kernel.source
    with pytest.raises(ExecutionError, match="stores an element of 'workspace' that program"):
        check_attention(one, PrintedKernel(wrong, kernel.rule))


def test_few_programs_have_fewer_rows_and_longer_steps() -> None:
    """12 heads of 128 queries: 48 programs of 32 rows and one step, in place of 24 of 64 rows and two."""
    one = cached(128, 128, 12, 12)
    kernel = print_kernel(one.region, H100)
    few, many = kernel.rule, print_kernel(cached(128, 128, 96, 96).region, H100).rule
    assert (few.constants["ROWS"], few.constants["KEYS"], few.programs({})) == (32, 128, 48)
    assert (many.constants["ROWS"], many.constants["KEYS"], many.programs({})) == (64, 128, 192)
    check_attention(one, kernel)


@pytest.mark.parametrize(
    ("queries", "heads", "rows", "keys"),
    [
        (1500, 6, 64, 128),  # 72 blocks of 128 would leave every other multiprocessor idle
        (1500, 12, 64, 64),  # 144 blocks: some have two, 256 rows, where of 64 they have at most three, 192 rows
        (197, 384, 128, 64),  # many programs hide each other's waiting
        (128, 384, 128, 64),
    ],
)
def test_rows_are_chosen_by_how_programs_fill_the_multiprocessors(
    queries: int, heads: int, rows: int, keys: int
) -> None:
    rule = print_kernel(cached(queries, queries, heads, 1).region, H100).rule
    assert (rule.constants["ROWS"], rule.constants["KEYS"], rule.warps) == (rows, keys, rows // 16)
    assert rule.stages == 3  # of two, a step would wait for a copy that began when the step before had ended


def test_copies_of_the_next_keys_are_under_way_while_a_step_computes() -> None:
    """Before the loop there are two steps' groups of keys and values, and what a step waits for leaves one out."""
    found = built(print_kernel(cached(1500, 1500, 6, 6).region, H100), H100)
    before = found.assembly.partition("wgmma.mma_async")[0]
    assert before.count("cp.async.commit_group") == 4 and "cp.async.wait_group \t2" in before.replace(" 2", " \t2")
    assert found.report.spilled == 0 and set(found.report.loads) == {128}


def test_what_scores_need_is_loaded_before_their_product() -> None:
    one = made("bool_mask")
    ahead, _, score = print_kernel(one.region, H100).source.partition("def ahead")[2].partition("def score")
    assert "tl.load(" in ahead and "tl.load(" not in score.partition("def finish")[0]
    report = built(print_kernel(one.region, H100), H100).report
    assert report.spilled == 0


def test_masks_stand_only_where_blocks_do_not_divide() -> None:
    m = _Maker(1)
    y = m("attention", *(m.x(1, 2, n, 32) for n in (64, 96, 96)))
    region = build_region(list(m.graph), [y], inline_scalars=True).region
    source = print_kernel(region, H100).source
    assert "True, True, ZERO_IF_EMPTY" in source and "mask" not in source
    assert "False, False, ZERO_IF_EMPTY" in print_kernel(made("causal_gqa_softcap").region, H100).source


def test_conditions_on_places_bound_the_loop_over_keys() -> None:
    def window(name: str) -> Window:
        return window_of(attention_of(made(name).region))

    assert window("causal_gqa_softcap") == Window(None, 0)
    assert window("window_of_nine_keys") == Window(-8, 0)
    assert window("mask_from_places") == window("one_query") == Window()


PLANTED = (
    ("(v0 <= v1)", "(v0 < v1)"),
    ("first + ROWS + 0", "first + 0"),
    ("i1 // 3", "i1 // 4"),
)


@pytest.mark.parametrize(("old", "new"), PLANTED)
def test_wrong_kernels_are_noticed(old: str, new: str) -> None:
    one = made("causal_gqa_softcap")
    kernel = print_kernel(one.region, H100)
    assert old in kernel.source
    with pytest.raises(AssertionError, match=r"exceeds|NaN out of place"):
        check_attention(one, PrintedKernel(kernel.source.replace(old, new), kernel.rule))


def test_reads_behind_the_keys_are_noticed() -> None:
    one = made("causal_gqa_softcap")
    kernel = print_kernel(one.region, H100)
    wrong = kernel.source.replace("False, False, ZERO", "True, True, ZERO")
    with pytest.raises(ExecutionError, match=r"reads element .* of 'x1'"):
        check_attention(one, PrintedKernel(wrong, kernel.rule))


REFUSED: dict[str, Callable[[_Maker], Value]] = {
    "between them is no softmax": lambda m: m(
        "add", m("matmul", m.x(3, 4), m.x(4, 5)), m("matmul", m.x(3, 4), m.x(4, 5))
    ),
    "size of its heads is not known, or above 256": lambda m: m("attention", *(m.x(1, 1, 4, 257) for _ in range(3))),
    "which are no attention in f32": lambda m: m("attention", *(m.x(1, 1, 4, 8, dtype=np.float64) for _ in "qkv")),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_no_attention_is_refused_with_a_reason(reason: str) -> None:
    m = _Maker(1)
    y = REFUSED[reason](m)
    with pytest.raises(NotPrintable, match=reason):
        print_kernel(build_region(list(m.graph), [y], inline_scalars=True).region, H100)


def test_shared_keys_in_half_precision_use_matrix_units_and_do_not_spill() -> None:
    found = built(print_kernel(cached(1, 2048).region, H100), H100)
    assert found.report.spilled == 0 and "mma.sync" in found.assembly and found.report.atomics == 1


@pytest.mark.parametrize("gpu", ["a100", "h100"])
def test_attention_in_half_precision_uses_matrix_units_and_does_not_spill(gpu: str) -> None:
    m = _Maker(1)
    y = m("attention", *(m.x(8, 12, 128, 64, dtype=np.float16) for _ in range(3)))
    region = build_region(list(m.graph), [y], inline_scalars=True).region
    found = built(print_kernel(region, gpu_target(gpu)), gpu_target(gpu))
    assert found.report.spilled == 0 and set(found.report.loads) == set(found.report.stores) == {128}
    assert ("wgmma.mma_async" if gpu == "h100" else "mma.sync") in found.assembly
