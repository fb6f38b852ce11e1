"""MatMul, Gemm and Einsum against float64 NumPy, exact integers and ONNX Runtime."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusible.kernels.numpy.contraction import for_blas, gemm, matmul
from fusible.kernels.numpy.einsum import einsum, parse_equation
from tests.kernels.single_node import run_node
from tests.tolerance import assert_close, poisoned

FLOATS = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]


def normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape)).astype(dtype)


def wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64)


SHAPES = [
    ((3, 5), (5, 7)),
    ((5,), (5,)),
    ((5,), (5, 7)),
    ((3, 5), (5,)),
    ((2, 3, 5), (5, 7)),
    ((3, 5), (2, 5, 7)),
    ((2, 1, 3, 5), (4, 5, 1)),
    ((2, 1, 3, 5), (1, 4, 5, 7)),
    ((5,), (2, 5, 7)),
    ((2, 3, 5), (5,)),
    ((0, 5), (5, 7)),
    ((3, 0), (0, 7)),
    ((2, 3, 5), (5, 0)),
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_matmul(a: tuple[int, ...], b: tuple[int, ...], dtype: Any) -> None:
    A, B = normal(*a, dtype=dtype), normal(*b, dtype=dtype, seed=1)
    expected = np.asarray(wide(A) @ wide(B))
    got = matmul(A, B)
    assert isinstance(got, np.ndarray)
    assert got.dtype == dtype
    assert_close(got, expected, accumulation=5)
    out = poisoned(expected.shape, dtype)
    assert matmul(A, B, out=out) is out
    assert_close(out, expected, accumulation=5)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.uint64])
def test_integers_wrap(dtype: Any) -> None:
    info = np.iinfo(dtype)
    A = np.random.default_rng(0).integers(info.min, info.max, (3, 5), dtype)
    B = np.random.default_rng(1).integers(info.min, info.max, (5, 4), dtype)
    exact = A.astype(object) @ B.astype(object)
    expected = np.vectorize(lambda v: int(v) % 2**info.bits, otypes=[object])(exact)
    got = matmul(A, B).astype(object) % 2**info.bits
    assert np.array_equal(got, expected)


def test_large_values_overflow_to_infinity_without_warning() -> None:
    x = np.full((2, 2), 300, np.float16)
    assert np.all(np.isposinf(matmul(x, x)))


def test_every_layout_multiplies_alike() -> None:
    whole = normal(6, 8, 10)
    for A in (whole[:, ::2, 1:6], whole.transpose(0, 2, 1)[:, 2:5, :5], whole[::-1, :4, 4::-1], whole[:, :, ::2]):
        B = normal(A.shape[-1], 3, seed=2)[::-1]
        assert_close(matmul(A, B), wide(A) @ wide(B), accumulation=5)
        assert for_blas(A).strides[-1] in (4, for_blas(A).strides[-1])


@pytest.mark.parametrize(("a", "b"), [((3, 4), (5, 7)), ((), (5,)), ((2, 3, 5), (3, 5, 7))])
def test_matmul_refuses_shapes_that_do_not_fit(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"MatMul|broadcast"):
        matmul(normal(*a), normal(*b))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("trans", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("c", [None, (), (7,), (3, 1), (1, 7), (3, 7)])
def test_gemm(c: tuple[int, ...] | None, trans: tuple[bool, bool], dtype: Any) -> None:
    A = normal(*((5, 3) if trans[0] else (3, 5)), dtype=dtype)
    B = normal(*((7, 5) if trans[1] else (5, 7)), dtype=dtype, seed=1)
    C = None if c is None else normal(*c, dtype=dtype, seed=2)
    left, right = (wide(A).T if trans[0] else wide(A)), (wide(B).T if trans[1] else wide(B))
    for alpha, beta in ((1.0, 1.0), (0.5, -1.5), (2.0, 0.0)):
        expected = alpha * (left @ right) + (0 if C is None else beta * wide(C))
        attributes = {"alpha": alpha, "beta": beta, "transA": trans[0], "transB": trans[1]}
        assert_close(gemm(A, B, C, **attributes), expected, accumulation=5)
        out = poisoned((3, 7), dtype)
        assert_close(gemm(A, B, C, out=out, **attributes), expected, accumulation=5)
        assert np.array_equal(gemm(A, B, C, **attributes), out)


def test_gemm_of_integers() -> None:
    A, B, C = (np.arange(k, k + 4, dtype=np.int32).reshape(2, 2) for k in (1, 5, 9))
    assert np.array_equal(gemm(A, B, C, alpha=2.0, beta=3.0), 2 * (A @ B) + 3 * C)
    assert gemm(A, B, C, alpha=0.5).dtype == np.int32


EQUATIONS = [
    ("ij->ji", [(3, 4)]),
    ("ij->", [(3, 4)]),
    ("ii->i", [(3, 3)]),
    ("ii", [(3, 3)]),
    ("iij->ij", [(3, 3, 2)]),
    ("ij,jk->ik", [(3, 4), (4, 5)]),
    ("ij,jk", [(3, 4), (4, 5)]),
    ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
    ("...ij,...jk->...ik", [(2, 6, 3, 4), (6, 4, 5)]),
    ("...ij,jk->...ki", [(2, 6, 3, 4), (4, 5)]),
    ("i,j->ij", [(3,), (4,)]),
    ("i,i->", [(3,), (3,)]),
    ("bhid, bhjd -> bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]),
    ("ijk,ilm,njm,nlk,abc->", [(2, 3, 4), (2, 5, 6), (7, 3, 6), (7, 5, 4), (1, 2, 3)]),
    ("abc,cd,de->aeb", [(2, 3, 4), (4, 5), (5, 6)]),
    ("ab,b->a", [(3, 1), (4,)]),
    ("a...b->b...", [(2, 3, 4, 5)]),
    ("...", [(2, 3)]),
    (",->", [(), ()]),
    ("ij,jk->ik", [(0, 4), (4, 5)]),
    ("ij,jk->ik", [(3, 0), (0, 5)]),
]


@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64])
def test_einsum(equation: str, shapes: list[tuple[int, ...]], dtype: Any) -> None:
    operands = [(normal(*s, seed=k) * 4).astype(dtype) for k, s in enumerate(shapes)]
    expected = np.einsum(equation, *(x.astype(np.int64 if dtype == np.int64 else np.float64) for x in operands))
    got = einsum(*operands, equation=equation)
    assert isinstance(got, np.ndarray)
    assert got.dtype == dtype
    assert_close(got, np.asarray(expected), accumulation=5000)


@settings(max_examples=60)
@given(st.data())
def test_einsum_of_random_equations(data: st.DataObject) -> None:
    sizes = dict(zip("abcde", (2, 3, 1, 4, 2), strict=True))
    terms = data.draw(st.lists(st.lists(st.sampled_from("abcde"), max_size=3), min_size=1, max_size=3))
    used = sorted({label for term in terms for label in term})
    output = data.draw(st.permutations(used).map(lambda p: p[: len(p) // 2 + 1]))
    equation = ",".join("".join(t) for t in terms) + "->" + "".join(output)
    operands = [normal(*(sizes[label] for label in term), dtype=np.float64, seed=k) for k, term in enumerate(terms)]
    assert_close(einsum(*operands, equation=equation), np.asarray(np.einsum(equation, *operands)), accumulation=500)


def test_einsum_agrees_with_onnx_runtime_on_broadcasts() -> None:
    operands = [normal(1, 3, 4), normal(2, 4, 1, seed=1)]
    (expected,) = run_node("Einsum", operands, equation="bij,bjk->bik")
    assert_close(einsum(*operands, equation="bij,bjk->bik"), expected, accumulation=4)


@pytest.mark.parametrize(
    ("equation", "ranks"),
    [
        ("ij,jk->ik", [2]),
        ("ij->ijk", [2]),
        ("ij->ii", [2]),
        ("i1->i", [2]),
        ("ij", [3]),
        ("...ij", [1]),
        ("ij->j->", [2]),
    ],
)
def test_malformed_equations(equation: str, ranks: list[int]) -> None:
    with pytest.raises(ValueError, match="equation"):
        parse_equation(equation, ranks)
    with pytest.raises(ValueError, match="sizes"):
        einsum(normal(2, 3), normal(4, 5), equation="ij,jk->ik")
