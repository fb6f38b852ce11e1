"""Blocks of decoder language models in each exporter's form: they agree with ONNX Runtime, in few launches.

Every access of every kernel is checked. A block has a norm, one product for queries, keys and values, one launch that
turns keys and joins both caches, attention that turns its queries, the product behind it with the residual, a norm,
gate and gated in one launch where there is one row of floats (else two), and the last product.
"""

from __future__ import annotations

import pytest

from tests.compiler.triton.decoders import launches

CASES = [("llama", 1, 20, 8), ("llama", 6, 0, 9), ("partial", 1, 20, 7), ("contrib", 1, 20, 9), ("standard", 1, 20, 8)]


@pytest.mark.parametrize(("form", "new", "past", "most"), CASES)
def test_block(form: str, new: int, past: int, most: int) -> None:
    assert launches(form, new, past) <= most
