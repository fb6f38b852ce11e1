"""Nodes by templates of their own: a sample in checking mode; tests.compiler.triton.templates has all."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.aot import build as built
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.printer import PrintedKernel
from tests.compiler.triton.node_cases import NodeCase, node_case

SAMPLE = (
    "top_k_with_ties_and_nan", "resize_linear_aligned_half", "resize_of_unknown_length", "dynamic_quantisation",
    "dynamic_quantisation_by_rows", "dynamic_quantisation_of_no_rows", "quantised_lstm", "grid_sample_cubic_reflected",
    "grid_sample_cubic_at_no_number", "grid_sample_cubic_border_at_no_number", "grid_sample_linear_at_no_number",
    "grid_sample_nearest_at_no_number", "roi_align_of_all_pixels",
    "roi_align_of_boxes_beyond_images",
)  # fmt: skip


@pytest.mark.parametrize("name", SAMPLE)
def test_a_kernel_computes_what_the_op_means(name: str) -> None:
    node_case(name).check()


def test_wrong_kernels_are_noticed() -> None:
    case = node_case("top_k_with_ties_and_nan")
    kernel = case.printed()
    with pytest.raises(AssertionError):
        case.check(PrintedKernel(kernel.source.replace("True, BLOCK", "False, BLOCK"), kernel.rule))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quantised_lstm", "grid_sample_linear", "roi_align_of_all_pixels"])
def test_kernels_build_without_spills(name: str) -> None:
    assert built(node_case(name).printed(), gpu_target("h100")).report.spilled == 0


def test_quantised_layers_of_several_lengths_are_refused() -> None:
    case = node_case("quantised_lstm")
    arrays = [*case.arrays[:4], np.asarray([1, 2], np.int32), *case.arrays[5:]]
    with pytest.raises(NotPrintable, match="lengths of their own"):
        NodeCase("dynamic_quantize_lstm", arrays, 3, case.meaning, **case.attrs).printed()
