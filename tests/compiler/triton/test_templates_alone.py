"""Templates used by themselves, as any Triton kernel is."""

from __future__ import annotations

import pytest

from tests.compiler.triton.templates_alone import ALONE


@pytest.mark.parametrize("name", ["attention f32", "top_k f32"])
def test_a_template_is_a_kernel(name: str) -> None:
    ALONE[name]()
