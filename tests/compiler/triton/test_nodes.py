"""Nodes by templates of their own: a sample in checking mode; tests.compiler.triton.templates has all."""

from __future__ import annotations

import pytest

from fusible.compiler.backends.triton.printer import PrintedKernel
from tests.compiler.triton.node_cases import node_case

SAMPLE = (
    "top_k_with_ties_and_nan", "resize_linear_aligned_half", "resize_of_unknown_length", "dynamic_quantisation",
    "dynamic_quantisation_by_rows", "dynamic_quantisation_of_no_rows",
)  # fmt: skip


@pytest.mark.parametrize("name", SAMPLE)
def test_a_kernel_computes_what_the_op_means(name: str) -> None:
    node_case(name).check()


def test_wrong_kernels_are_noticed() -> None:
    case = node_case("top_k_with_ties_and_nan")
    kernel = case.printed()
    with pytest.raises(AssertionError):
        case.check(PrintedKernel(kernel.source.replace("True, BLOCK", "False, BLOCK"), kernel.rule))
