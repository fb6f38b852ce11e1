"""Contractions that are no kernel are refused with a reason; others that are no tiles are printed as sums."""

from __future__ import annotations

import pytest

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.print_kernel import print_kernel
from fusible.compiler.region.parse import parse_region

HEAD = """
region [i0=64, i1=64, i2=64]
  in x0: f32[64, 64]
  in x1: f32[64, 64]
  out y0: f32[64, 64]
  v0: f32 = load x0[i0, i2]
  v1: f32 = load x1[i2, i1]
  v2: f32 = contract over i2 of v0, v1
"""
REFUSED = {
    "it folds something beside its contraction": HEAD + "  v3: f32 = reduce max over i1 of v2\n"
    "  v4: f32 = sub(v2, v3)\n  store y0[i0, i1] = v4",
    "what follows its contraction reads an operand of it": HEAD.replace(
        "out y0: f32[64, 64]", "out y0: f32[64, 64, 64]"
    )
    + "  v3: f32 = add(v2, v0)\n  store y0[i0, i1, i2] = v3",
    "it stores something that is the same for several elements of its contraction": HEAD.replace(
        "out y0: f32[64, 64]", "out y0: f32[64, 64]\n  out y1: f32[64]"
    )
    + "  v3: f32 = load x0[0, i1]\n  store y0[i0, i1] = v2\n  store y1[i1] = v3",
}
BOTH = """
region [i0=256, i1=256, i2=256]
  in x0: f32[256, 256]
  in x1: f32[256]
  out y0: f32[256, 256]
  v0: f32 = load x0[i0, mod(i1 + i2, 256)]
  v1: f32 = load x1[mod(i0 + i1 + i2, 256)]
  v2: f32 = contract over i2 of v0, v1
  store y0[i0, i1] = v2
"""


@pytest.mark.parametrize("reason", REFUSED)
def test_a_region_is_refused_with_its_reason(reason: str) -> None:
    with pytest.raises(NotPrintable) as refused:
        print_kernel(parse_region(REFUSED[reason]), gpu_target("h100"))
    assert str(refused.value) == reason


def test_a_sum_that_would_read_all_again_and_again_is_refused() -> None:
    """Both operands vary over all axes of the result, and there are few elements of them."""
    with pytest.raises(
        NotPrintable, match="its product has 1 rows and 1 columns, and as a sum it would read each element"
    ):
        print_kernel(parse_region(BOTH), gpu_target("h100"))


def test_double_precision_is_summed() -> None:
    kernel = print_kernel(parse_region((HEAD + "  store y0[i0, i1] = v2").replace("f32", "f64")), gpu_target("h100"))
    assert "tl.dot" not in kernel.source and "contraction" not in kernel.source
