"""Kernels around products of tiles: matrices, convolutions, attention; atomics."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
import triton.language as tl

from fusible.compiler.backends.triton.from_triton import ttir_of
from fusible.compiler.backends.triton.kernel import build_kernel
from fusible.compiler.backends.triton.lower import lower_ttir
from fusible.runtime.native.cache import default_cache_dir
from fusible.runtime.native.compiler import find_compiler
from fusible.runtime.native.pool import Pool, load_pool_library
from tests.compiler.triton import kernels
from tests.compiler.triton.harness import F8E4M3, F8E5M2, prepared, run
from tests.compiler.triton.test_elementwise import CHECKED, FLOATS, TYPED, random, wide
from tests.tolerance import assert_close, poisoned

TILES = {"BM": 16, "BN": 32, "BK": 32}


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    library = load_pool_library(find_compiler(os.environ), cache_dir=default_cache_dir(os.environ))
    with Pool(2, library=library) as made:
        yield made


def multiplied(a: np.ndarray, b: np.ndarray, out: np.ndarray, acc: object, precision: str, checked: bool) -> None:
    (m, k), n = a.shape, b.shape[1]
    arguments = {"a": a, "b": b, "out": out, "M": m, "N": n, "K": k}
    constants = {**TILES, "ACC": acc, "PRECISION": precision}
    run(kernels.matmul, (-(-m // 16), -(-n // 32)), arguments, constants, checked=checked)


@pytest.mark.parametrize(
    ("dtype", "checked"),
    [*zip([*FLOATS, np.dtype(np.float64), F8E4M3, F8E5M2], [False, True] * 3, strict=True), (FLOATS[0], True)],
    ids=str,
)
def test_matmul(dtype: np.dtype, checked: bool) -> None:
    a, b = random(33, 71, dtype=dtype), random(71, 45, dtype=dtype, seed=1)
    result = dtype if dtype.itemsize > 1 else FLOATS[0]
    out, acc = poisoned((33, 45), result), tl.float64 if dtype == np.float64 else tl.float32
    multiplied(a, b, out, acc, "ieee", checked)
    assert_close(out, wide(a) @ wide(b), accumulation=71)


@CHECKED
def test_int8_matmul_is_exact(checked: bool) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(-128, 128, (33, 71)).astype(np.int8), rng.integers(-128, 128, (71, 45)).astype(np.int8)
    out = poisoned((33, 45), np.int32)
    multiplied(a, b, out, tl.int32, "ieee", checked)
    np.testing.assert_array_equal(out, a.astype(np.int32) @ b.astype(np.int32))


def test_tf32_rounds_the_operands() -> None:
    a, b = random(16, 32), random(32, 32, seed=1)
    out = poisoned((16, 32), np.float32)
    multiplied(a, b, out, tl.float32, "tf32", False)

    def rounded(x: np.ndarray) -> np.ndarray:
        return ((x.view(np.uint32) + 0x1000) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)

    assert_close(out, rounded(a) @ rounded(b), accumulation=32)
    with pytest.raises(AssertionError):
        assert_close(out, wide(a) @ wide(b), accumulation=32)


def test_three_products_of_tf32_are_as_exact_as_fp32() -> None:
    a, b = random(64, 192), random(192, 64, seed=1)
    found = {}
    for precision in ("ieee", "tf32x3", "tf32"):
        out = poisoned((64, 64), np.float32)
        multiplied(a, b, out, tl.float32, precision, False)
        found[precision] = float(np.abs(out - wide(a) @ wide(b)).max())
    assert found["tf32x3"] <= found["ieee"] < found["tf32"] / 100


def test_three_products_leave_out_what_no_operand_has() -> None:
    """Low parts have eleven bits, and the product of two low parts is no part of it."""
    a, b = np.zeros((16, 32), np.float32), np.zeros((32, 32), np.float32)
    a[0, 0] = b[0, 0] = 1 + 2**-11 - 2**-23  # high: 1, low: twelve bits
    found = {}
    for precision in ("ieee", "tf32x3"):
        out = poisoned((16, 32), np.float32)
        multiplied(a, b, out, tl.float32, precision, False)
        found[precision] = float(out[0, 0])
    assert found == {"ieee": 1 + 2**-10, "tf32x3": 1 + 2 * (2**-11 - 2**-22)}


@CHECKED
def test_infinities_are_what_they_are_in_exact_products(checked: bool) -> None:
    a, b = random(16, 64), random(64, 32, seed=1)
    a[3, 5], a[4, 6], a[5, 7], a[6, 40], a[6, 41] = np.inf, -np.inf, np.nan, np.inf, -np.inf
    b[9, 11], b[33, 12], b[5, 13] = np.inf, np.nan, 0.0
    exact, split = poisoned((16, 32), np.float32), poisoned((16, 32), np.float32)
    multiplied(a, b, exact, tl.float32, "ieee", checked)
    multiplied(a, b, split, tl.float32, "tf32x3", checked)
    assert not np.isfinite(exact).all() and np.isnan(exact[3, 13]) and np.isinf(exact[3, 0])
    assert_close(split, exact, accumulation=64)


def test_fp16_accumulator() -> None:
    a, b = random(16, 32, dtype=FLOATS[1]), random(32, 32, dtype=FLOATS[1], seed=1)
    out = poisoned((16, 32), np.float16)
    multiplied(a, b, out, tl.float16, "ieee", False)
    assert_close(out, wide(a) @ wide(b), accumulation=32)


@CHECKED
def test_descriptors_and_an_epilogue_with_more_pointers(checked: bool) -> None:
    m, n, k = 33, 45, 70
    a, b, residual, out = random(m, k), random(n, k, seed=1), random(m, n, seed=2), poisoned((m, n), np.float32)
    kinds = {"a": "*fp32", "b": "*fp32", "out": "*fp32", "M": "i32", "N": "i32", "K": "i32", "extra": ("*fp32", "fp32")}
    constants = {"BM": 16, "BN": 32, "BK": 16, "EPILOGUE": kernels.gelu_plus}
    text = ttir_of(kernels.matmul_by_descriptors, kinds, constants)
    built = build_kernel(lower_ttir(text, checked=checked))
    built((3, 2), a, b, out, m, n, k, residual, 0.5)
    product = wide(a) @ wide(b).T
    erf = np.vectorize(__import__("math").erf)
    assert_close(out, product * 0.5 * (1 + erf(product / np.sqrt(2))) * 0.5 + wide(residual), accumulation=k)


@TYPED
def test_split_k_adds_atomically(dtype: np.dtype, checked: bool, pool: Pool) -> None:
    a, b, out = random(20, 100), random(100, 17, seed=1), np.zeros((20, 17), dtype)
    arguments = {"a": a, "b": b, "out": out, "M": 20, "N": 17, "K": 100}
    built = prepared(kernels.matmul_split_k, arguments, {"PART": 32, "B": 16}, checked=checked)
    built((2, 2, 4), *arguments.values(), pool=pool)
    assert_close(out, wide(a) @ wide(b), accumulation=100)


@CHECKED
def test_atomics(checked: bool, pool: Pool) -> None:
    n = 1000
    x = np.random.default_rng(0).integers(-(2**20), 2**20, n).astype(np.int32)
    counters, floats = np.array([0, -(2**31), 2**31 - 1, 0, 0], np.int32), np.array([-1.0, 0.0], np.float32)
    arguments = {"x": x, "counters": counters, "floats": floats, "n": n}
    built = prepared(kernels.atomics, arguments, {"BLOCK": 64}, checked=checked)
    built((16,), *arguments.values(), pool=pool)
    np.testing.assert_array_equal(counters, [x.sum(), x.max(), x.min(), np.bitwise_xor.reduce(x), 7])
    np.testing.assert_array_equal(floats, [x.max(), 8.0])


@CHECKED
def test_convolution(checked: bool, pool: Pool) -> None:
    n, h, w, c, f = 2, 7, 9, 19, 21
    x, weights, bias = random(n, h, w, c), random(3, 3, c, f, seed=1), random(f, seed=2)
    out = poisoned((n, h, w, f), np.float32)
    arguments = {"x": x, "w": weights, "bias": bias, "out": out, "H": h, "W": w, "C": c, "F": f}
    built = prepared(kernels.conv3x3, arguments, {"BP": 16, "BF": 32, "BC": 16}, checked=checked)
    built((4, 1, n), *arguments.values(), pool=pool)
    padded = np.pad(wide(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    total = wide(bias) + sum(
        padded[:, i : i + h, j : j + w] @ wide(weights[i, j]) for i in range(3) for j in range(3)
    )  # fmt: skip
    assert_close(out, total / (1 + np.exp(-total)), accumulation=9 * c)


@CHECKED
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise(stride: int, checked: bool) -> None:
    h, w, c = 9, 11, 21
    oh, ow = -(-h // stride), -(-w // stride)
    x, weights, out = random(h, w, c), random(3, 3, c, seed=1), poisoned((oh, ow, c), np.float32)
    arguments = {"x": x, "w": weights, "out": out, "H": h, "W": w, "C": c, "stride": stride, "OH": oh, "OW": ow}
    run(kernels.depthwise, (-(-oh * ow // 16), 2), arguments, {"BP": 16, "BC": 16}, checked=checked)
    padded = np.pad(wide(x), ((1, 1), (1, 1), (0, 0)))
    parts = [padded[i : i + h : stride, j : j + w : stride] * wide(weights[i, j]) for i in range(3) for j in range(3)]
    assert_close(out, np.sum(parts, 0), accumulation=9)


@TYPED
def test_causal_attention(dtype: np.dtype, checked: bool) -> None:
    heads, t, d = 2, 37, 16
    q, k, v = (random(heads, t, d, dtype=dtype, seed=seed) for seed in range(3))
    out = poisoned((heads, t, d), dtype)
    arguments = {"q": q, "k": k, "v": v, "out": out, "T": t, "scale": 0.25}
    run(kernels.flash_attention, (3, heads), arguments, {"D": d, "BM": 16, "BN": 16}, checked=checked)
    scores = np.where(np.tri(t, dtype=bool), wide(q) @ wide(k).transpose(0, 2, 1) * 0.25, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    assert_close(out, weights / weights.sum(-1, keepdims=True) @ wide(v), accumulation=t)


def test_threads_compute_the_same_bits(pool: Pool) -> None:
    a, b = random(70, 50), random(50, 60, seed=1)
    outs = [poisoned((70, 60), np.float32) for _ in range(2)]
    for out, threads in zip(outs, (None, pool), strict=True):
        arguments = {"a": a, "b": b, "out": out, "M": 70, "N": 60, "K": 50}
        built = prepared(kernels.matmul, arguments, {**TILES, "ACC": tl.float32, "PRECISION": "ieee"})
        built((5, 2), *arguments.values(), pool=threads)
    np.testing.assert_array_equal(*outs)
