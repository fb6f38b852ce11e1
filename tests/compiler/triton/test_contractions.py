"""Kernels of regions around one contraction, in checking mode, against the region interpreter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fusible.compiler.backends.triton.printer import PrintedKernel
from tests.compiler.triton.contractions import Case, Model, check
from tests.compiler.triton.harness import BF16

CASES: dict[str, tuple[int, Callable[[], Case]]] = {}


def case(terms: int) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    """Register a case by its name. terms: of one of its sums."""

    def register(make: Callable[[], Case]) -> Callable[[], Case]:
        CASES[make.__name__] = terms, make
        return make

    return register


@case(83)
def linear_with_bias_gelu_and_residual() -> Case:
    m = Model()
    y = m("add", m("matmul", m.x(37, 83), m.w(83, 45)), m.w(45))
    return m.case(m("add", m("gelu", y), m.x(37, 45)))


@case(70)
def transposed_weight_in_half() -> Case:
    m = Model(np.float16)
    return m.case(m("relu", m("gemm", m.x(18, 70), m.w(40, 70), m.w(40), transB=True)))


@case(19)
def batch_of_both_operands() -> Case:
    m = Model(BF16)
    return m.case(m("matmul", m.x(2, 3, 20, 19), m.x(2, 3, 19, 33)))


@case(24)
def batch_that_the_right_operand_repeats() -> Case:
    m = Model()
    return m.case(m("mul", m("matmul", m.x(2, 5, 9, 24), m.x(2, 1, 24, 17)), m.c(0.25)))


@case(5 * 9)
def padded_convolution_silu_residual() -> Case:
    m = Model()
    y = m.conv(m.x(2, 5, 7, 9), m.w(12, 5, 3, 3), m.w(12), pads=1)
    return m.case(m("add", m("mul", y, m("sigmoid", y)), m.x(2, 12, 7, 9)), last=True)


@case(24 * 9)
def strided_convolution_channels_last() -> Case:
    m = Model(np.float16)
    return m.case(m("relu", m.conv(m.x(1, 24, 9, 11), m.w(20, 24, 3, 3), m.w(20), strides=2, pads=1)), last=True)


@pytest.mark.parametrize("name", CASES)
def test_a_contraction_is_what_its_region_says(name: str) -> None:
    terms, make = CASES[name]
    made = make()
    kernel: PrintedKernel = check(made.region, terms=terms, constants=made.constants, inputs=made.inputs)
    assert "contraction(" in kernel.source
