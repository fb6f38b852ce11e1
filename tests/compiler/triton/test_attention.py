"""Attention printed around the template: some forms in checking mode; tests.compiler.triton.templates has all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fusible.compiler.backends.attention import Window, attention_of, window_of
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.aot import build as built
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.print_kernel import print_kernel
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.ir.graph import Value
from fusible.compiler.region.build import build_region
from fusible.errors import ExecutionError
from tests.compiler.triton.attention_forms import check_attention, made, with_lengths
from tests.region.fusion_cases import _Maker

H100 = gpu_target("h100")
SAMPLE = ("bool_mask", "unguarded", "guarded_by_nan_with_epilogue", "one_query")


@pytest.mark.parametrize("name", SAMPLE)
def test_attention_computes_what_its_region_does(name: str) -> None:
    one = made(name)
    check_attention(one, print_kernel(one.region, H100))


def test_lengths_may_be_known_only_when_it_runs() -> None:
    kernels = {print_kernel(with_lengths(*sizes).region, H100).source for sizes in ((3, 5), (20, 70))}
    assert len(kernels) == 1 and "queries" not in kernels.pop().partition("import")[0]
    for sizes in ((70, 33), (1, 64), (4, 0)):
        one = with_lengths(*sizes)
        check_attention(one, print_kernel(one.region, H100))


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


@pytest.mark.parametrize("gpu", ["a100", "h100"])
def test_attention_in_half_precision_uses_matrix_units_and_does_not_spill(gpu: str) -> None:
    m = _Maker(1)
    y = m("attention", *(m.x(8, 12, 128, 64, dtype=np.float16) for _ in range(3)))
    region = build_region(list(m.graph), [y], inline_scalars=True).region
    found = built(print_kernel(region, gpu_target(gpu)), gpu_target(gpu))
    assert found.report.spilled == 0 and set(found.report.loads) == set(found.report.stores) == {128}
    assert ("wgmma.mma_async" if gpu == "h100" else "mma.sync") in found.assembly
