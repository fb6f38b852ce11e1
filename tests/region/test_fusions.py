"""Fusions as regions: built from graphs, valid, the same after text, and right; their texts are kept as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusible.compiler.ir.evaluate import evaluate_node
from fusible.compiler.ir.graph import Value
from fusible.compiler.region.evaluate import run_group
from fusible.compiler.region.group import BuiltGroup, build_group
from fusible.compiler.region.parse import parse_group
from fusible.compiler.region.text import group_text
from fusible.compiler.region.verify import verify_group
from tests.region.fusion_cases import CASES, Case
from tests.tolerance import assert_close

TEXTS = Path(__file__).with_name("fusions")


def built(case: Case) -> BuiltGroup:
    return build_group(case.partition, case.outputs, joins=case.joins, inline_scalars=True)


def arrays_of(group: BuiltGroup, case: Case) -> list[np.ndarray]:
    return [v.constant.array if v.constant is not None else case.arrays[v] for v in group.inputs]


def by_kernels(case: Case) -> list[np.ndarray]:
    """What the NumPy kernels of the nodes give."""
    values: dict[Value, Any] = dict(case.arrays)
    for node in case.graph:
        given = [None if v is None else v.constant.array if v.constant else values[v] for v in node.inputs]
        values.update(zip(node.outputs, evaluate_node(node, given, {}), strict=True))
    return [values[v] for v in case.outputs]


@pytest.mark.parametrize("name", CASES)
def test_the_group_computes_what_the_kernels_do(name):
    case = CASES[name]()
    group = built(case)
    verify_group(group.group)
    for got, expected in zip(run_group(group.group, arrays_of(group, case)), by_kernels(case), strict=True):
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        assert_close(got, expected, accumulation=64)


@pytest.mark.parametrize("name", CASES)
def test_the_text_is_the_one_on_file(name):
    """To write the files anew: python -m tests.region.write_fusions."""
    text = group_text(built(CASES[name]()).group)
    assert text + "\n" == (TEXTS / f"{name}.txt").read_text()
    assert parse_group(text) == built(CASES[name]()).group


def test_no_file_is_left_over():
    assert sorted(path.stem for path in TEXTS.iterdir()) == sorted(CASES)


@pytest.mark.parametrize("name", ["conv_bias_silu_residual", "residual_layer_norm", "rope", "lstm_cell"])
def test_a_text_with_an_error_is_noticed(name):
    """The comparison above can fail."""
    case = CASES[name]()
    group = built(case)
    text = group_text(group.group)
    other = text.replace("add(", "sub(", 1)
    assert other != text
    got = run_group(parse_group(other), arrays_of(group, case))[0]
    with pytest.raises(AssertionError, match="exceeds"):
        assert_close(got, by_kernels(case)[0], accumulation=64)
