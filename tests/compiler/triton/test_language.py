"""Corners of the language, one a kernel, each in both modes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.compiler.triton import language
from tests.compiler.triton.harness import run
from tests.compiler.triton.test_elementwise import CHECKED, random, wide
from tests.tolerance import assert_close, poisoned


@CHECKED
def test_hints(checked: bool) -> None:
    x, out = random(100), poisoned((100,), np.float32)
    run(language.hints, (4,), {"x": x, "out": out, "n": 100}, {"BLOCK": 32}, checked=checked)
    np.testing.assert_array_equal(out, x + 4)


@pytest.mark.filterwarnings("ignore:tl.make_block_ptr is deprecated")
@CHECKED
def test_block_pointers(checked: bool) -> None:
    x, out = random(13, 37), poisoned((37, 13), np.float32)
    arguments = {"x": x, "out": out, "rows": 13, "columns": 37}
    run(language.block_pointers, (1,), arguments, {"R": 16, "C": 8}, checked=checked)
    np.testing.assert_array_equal(out, x.T)


@CHECKED
def test_batched_dot(checked: bool) -> None:
    a, b, out = random(4, 16, 16), random(4, 16, 16, seed=1), poisoned((4, 16, 16), np.float32)
    run(language.batched_dot, (1,), {"a": a, "b": b, "out": out}, {"B": 4, "N": 16}, checked=checked)
    assert_close(out, wide(a) @ wide(b), accumulation=16)


@CHECKED
def test_random_numbers(checked: bool) -> None:
    out = poisoned((2, 4096), np.float32)
    run(language.random_numbers, (1,), {"out": out, "seed": 17}, {"BLOCK": 4096}, checked=checked)
    assert 0 <= out[0].min() < 0.01 and 0.99 < out[0].max() < 1 and abs(out[0].mean() - 0.5) < 0.02
    assert abs(out[1].mean()) < 0.06 and abs(out[1].std() - 1) < 0.04 and len(np.unique(out)) > 8000


@CHECKED
def test_order(checked: bool) -> None:
    x, out = random(16), poisoned((3 * 16 + 5,), np.float32)
    run(language.order, (1,), {"x": x, "out": out}, {"BLOCK": 16}, checked=checked)
    expected = [x[::-1], np.stack([x, -x], 1).ravel(), np.sort(x)[::-1][:4], x.min(keepdims=True)]
    np.testing.assert_array_equal(out, np.concatenate(expected))


@CHECKED
def test_masks_in_memory(checked: bool) -> None:
    x = np.array([0, 1, 2, 3, 8, 1000, -4], np.int32)
    flags, out = np.zeros(7, np.int8), poisoned((7,), np.int32)
    run(language.masks_in_memory, (1,), {"x": x, "flags": flags, "out": out, "n": 7}, {"BLOCK": 8}, checked=checked)
    np.testing.assert_array_equal(flags, x > 0)
    np.testing.assert_array_equal(out, [-1, 1, 2, 2, 4, 10, -1])


@CHECKED
def test_early_returns(checked: bool) -> None:
    x, out = np.array([1, 15, 25, 10, 3], np.int32), np.full(5, -9, np.int32)
    run(language.returns_early, (5,), {"x": x, "out": out, "n": 4, "limit": 10}, checked=checked)
    np.testing.assert_array_equal(out, [7, 1, 2, 16, -9])


@CHECKED
def test_grouped_order(checked: bool) -> None:
    out = poisoned((5, 7), np.int32)
    run(language.grouped_order, (4,), {"out": out, "M": 5, "N": 7}, {"GROUP": 2}, checked=checked)
    np.testing.assert_array_equal(np.sort(out.ravel()), np.arange(35))
    np.testing.assert_array_equal(out[:2, :2], [[0, 2], [1, 3]])


@CHECKED
def test_narrow_integers_wrap(checked: bool) -> None:
    for dtype in (np.int8, np.uint8, np.int16, np.int64):
        x = np.array([0, 1, 100, 127, 90, 5, 77], dtype)
        out = poisoned((7,), dtype)
        run(language.narrow_integers, (1,), {"x": x, "out": out, "n": 7}, {"BLOCK": 8}, checked=checked)
        double = (x.astype(np.int64) * 2).astype(dtype).astype(np.int64)
        third = np.abs(double) // 3 * np.sign(double)
        np.testing.assert_array_equal(out, (third - (x.astype(np.int64) >> 1)).astype(dtype))


@CHECKED
def test_doubles(checked: bool) -> None:
    x, out = random(61, dtype=np.dtype(np.float64)), poisoned((61,), np.float64)
    run(language.doubles, (1,), {"x": x, "out": out, "n": 61}, {"BLOCK": 64}, checked=checked)
    assert_close(out, np.exp(x) / (1 + np.exp(x)) + np.sqrt(np.abs(x)) * np.log(np.abs(x) + 1), accumulation=4)


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value", "ignore:overflow")
@pytest.mark.parametrize("block", [2, 64])
def test_exponentials(block: int) -> None:
    """By vectors, and where a tile is smaller than a vector: within 2 ulp, subnormal results and special values too."""
    special = np.float32([np.inf, -np.inf, np.nan, 0, -0.0, 1e-40, 127.99999, 128, -126.5, -149, -149.5, -150.5, 88.7])
    x = np.concatenate([special, np.float32(40) * random(500), np.linspace(-160, 130, 301, dtype=np.float32)])
    out = poisoned((3, len(x)), np.float32)
    run(language.exponentials, (-(-len(x) // block),), {"x": x, "out": out, "n": len(x)}, {"BLOCK": block})
    for got, exact in zip(out, (np.exp2(wide(x)), np.exp(wide(x)), np.log(wide(x))), strict=True):
        expected = exact.astype(np.float32)
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(got[~finite], expected[~finite])
        assert (np.abs(got - exact) <= 2 * np.spacing(np.abs(expected)))[finite].all()


@CHECKED
def test_pointers_out_of_memory(checked: bool) -> None:
    """In checking mode such a pointer may point into any argument; here into the result itself."""
    out = np.zeros((3, 13), np.float32)
    first = random(13)
    out[0] = first
    rows = np.array([out.ctypes.data] * 3, np.int64)
    run(language.pointer_table, (3,), {"rows": rows, "out": out, "n": 13}, {"BLOCK": 16}, checked=checked)
    np.testing.assert_array_equal(out, np.stack([first] * 3))


@CHECKED
def test_a_pointer_that_may_be_either_argument(checked: bool) -> None:
    x, y, out = random(13), random(13, seed=1), poisoned((3, 13), np.float32)
    run(language.chosen_pointer, (3,), {"x": x, "y": y, "out": out, "n": 13}, {"BLOCK": 16}, checked=checked)
    np.testing.assert_array_equal(out, np.stack([x, y, x]))


@CHECKED
def test_a_loop_that_transposes_what_it_carries(checked: bool) -> None:
    x, out = random(16, 16), poisoned((16, 16), np.float32)
    run(language.transposed_in_a_loop, (1,), {"x": x, "out": out, "turns": 3}, {"N": 16}, checked=checked)
    np.testing.assert_array_equal(out, x.T + np.float32(1) + np.float32(1) + np.float32(1))


@CHECKED
def test_pointers_whose_steps_grow(checked: bool) -> None:
    x, out = random(64), poisoned((16,), np.float32)
    run(language.steps_grow, (1,), {"x": x, "out": out, "turns": 3}, {"N": 16}, checked=checked)
    assert_close(out, wide(x)[:16] + wide(x)[:32:2] + wide(x)[:48:3], accumulation=3)


@CHECKED
def test_what_sums_start_from_is_kept(checked: bool) -> None:
    x, out = random(16, 16), poisoned((2, 16, 16), np.float32)
    run(language.squares_reused, (1,), {"x": x, "out": out}, {"N": 16}, checked=checked)
    assert_close(out[0], 2 * (wide(x) @ wide(x)) + 4 * wide(x), accumulation=17)
    np.testing.assert_array_equal(out[1], 2 * x)
