"""The comparison finds planted errors, and allows what two right answers may differ by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusible.benchmarks.kernels.agreement import accumulation, agree
from fusible.benchmarks.kernels.cases import parse_case
from fusible.benchmarks.kernels.values import operand_values
from fusible.compiler.ir.graph import Node


def _node(text: str) -> Node:
    case = parse_case(text)
    return case.node(operand_values(case, 0))


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("relu(f32[8, 8])", 1),
        ("gelu(f32[8, 8])", 1),
        ("transpose(f32[8, 8])", 1),
        ("matmul(f32[8, 100], f32[100, 8])", 100),
        ("conv(f32[1, 3, 9, 9], f32[4, 3, 5, 5])", 75),
        ("reduce_sum(f32[8, 40]) {axes=(1,)}", 40),
        ("cum_sum(f32[8, 40]) {axis=1}", 40),
        ("cum_sum_dynamic(f32[8, 40], i64[])", 40),
    ],
)
def test_accumulation(text: str, terms: int) -> None:
    assert accumulation(_node(text)) == terms


def test_accumulation_of_composites_grows_with_what_they_add_up() -> None:
    assert accumulation(_node("softmax(f32[8, 1000])")) > 1000
    assert accumulation(_node("lstm(f32[9, 1, 8], f32[1, 32, 8], f32[1, 32, 8])")) > 9 * 8


def _product(**change: Any) -> tuple[Node, np.ndarray, np.ndarray]:
    node = _node("matmul(f32[16, 64], f32[64, 16])")
    chance = np.random.default_rng(0)
    a, b = chance.standard_normal((16, 64), np.float32), chance.standard_normal((64, 16), np.float32)
    return node, a @ b, (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)


def test_roundings_agree() -> None:
    node, got, reference = _product()
    verdict = agree(node, [reference], [got])
    assert verdict
    assert verdict.max_error < 1e-5


@pytest.mark.parametrize("plant", ["scaled", "shifted", "last", "dtype", "shape", "fewer"])
def test_planted_errors_are_found(plant: str) -> None:
    node, got, reference = _product()
    match plant:
        case "scaled":
            got = got * np.float32(1.001)
        case "shifted":
            got = np.roll(got, 1, axis=0)
        case "last":
            got[-1, -1] = 0
        case "dtype":
            got = got.astype(np.float64)
        case "shape":
            got = got[None]
    verdict = agree(node, [reference], [] if plant == "fewer" else [got])
    assert not verdict
    assert verdict.reason


def test_quantised_results_may_stand_a_step_apart_here_and_there() -> None:
    node = _node("quantize_linear(f32[1000], f32[], u8[]) {output_dtype=u8}")
    reference = np.arange(1000).astype(np.uint8)
    near, far = reference.copy(), reference.copy()
    near[3] += 1
    far[:100] += 2
    assert agree(node, [reference], [near])
    assert not agree(node, [reference], [far])


def test_of_drawn_results_only_types_and_shapes_are_compared() -> None:
    node = _node("random_normal() {shape=(4,), dtype=f32}")
    assert agree(node, [np.zeros(4, np.float32)], [np.ones(4, np.float32)])
    assert not agree(node, [np.zeros(4, np.float32)], [np.ones(5, np.float32)])


def test_sequences_are_compared_element_by_element() -> None:
    node = _node("split_to_sequence(f32[4, 2]) {axis=0, split=2}")
    parts = [np.ones((2, 2), np.float32), np.zeros((2, 2), np.float32)]
    assert agree(node, [parts], [[p.copy() for p in parts]])
    assert not agree(node, [parts], [parts[::-1]])
    assert not agree(node, [parts], [parts[:1]])
    assert not agree(node, [parts], [parts[0]])
