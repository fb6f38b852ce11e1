"""Accesses that go through memory point by point are printed as that, so that the compiler sees neighbours."""

from __future__ import annotations

import numpy as np

from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.print_kernel import print_kernel
from fusible.compiler.ir.types import DType
from fusible.compiler.region.parse import parse_region
from fusible.compiler.region.region import Buffer
from tests.compiler.triton.checked import run_checked

TURNED = """region [i0=3, i1=8, i2=6]
  in x0: f32[1, 3, 8, 6]
  out y0: f16[1, 8, 6, 3]
  v0: f32 = load x0[0, i0, i1, i2]
  v1: f16 = f16(v0)
  store y0[0, i1, i2, i0] = v1
"""


def test_a_store_of_every_point_in_order_is_one_of_neighbours() -> None:
    kernel = print_kernel(parse_region(TURNED), gpu_target("h100"))
    assert "tl.store(y0 + r, v1" in kernel.source
    stores = [fact for fact in kernel.rule.accesses if fact.stores]
    assert [(fact.step, fact.run) for fact in stores] == [(1, 144)]
    given = np.random.default_rng(0).standard_normal((1, 3, 8, 6)).astype(np.float32)
    (found,) = run_checked(kernel, [Buffer(DType.F16, (1, 8, 6, 3))], [given])
    assert np.array_equal(found, given.transpose(0, 2, 3, 1).astype(np.float16))


def test_other_places_stay() -> None:
    text = TURNED.replace("y0[0, i1, i2, i0]", "y0[0, i1, i2, 2*i0]").replace("[1, 8, 6, 3]", "[1, 8, 6, 6]")
    assert "y0 + r" not in print_kernel(parse_region(text), gpu_target("h100")).source
