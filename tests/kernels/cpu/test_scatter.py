"""scatter.h against the NumPy kernels, to the bit: every reduction and type, duplicates, threads, guard pages."""

from __future__ import annotations

import ctypes
import functools
import math

import numpy as np
import pytest

from fusible.kernels.numpy.indexing import scatter_elements, scatter_nd
from tests.kernels.cpu.layers import guarded
from tests.kernels.cpu.variants import VARIANTS, compile_variant
from tests.tolerance import poisoned

_REDUCTIONS = ("none", "add", "mul", "max", "min")
_TYPES = ("F32", "I32", "I64", "U8", "U16")
_NUMPY = {"F32": np.float32, "I32": np.int32, "I64": np.int64, "U8": np.uint8, "U16": np.uint16}
_MOST_DEPTH = 3

# Items in the opposite order, as by two threads.
_HEAD = """
#include "scatter.h"
static int pool_number(const struct pool *pool) { (void)pool; return 1; }
static void pool_backwards(struct pool *pool, pool_task *task, void *context, long items) {
    (void)pool;
    while (items--) task(context, items);
}
static struct pool two = {2, pool_backwards, pool_number};
int fit(const struct scatter_elements *s) { return scatter_elements_fit(s); }
"""


def _functions(type_: str, reduction: str) -> str:
    """`elements_{wide}` and `rows_{wide}_{depth}`."""
    chosen, text = f"SCATTER_{type_}, SCATTER_{reduction.upper()}", ""
    for wide in (0, 1):
        kinds = {f"elements_{wide}": ("elements", f"{chosen}, {wide}")}
        kinds |= {f"rows_{wide}_{d}": ("rows", f"{chosen}, {wide}, {d}") for d in range(_MOST_DEPTH + 1)}
        for name, (kind, literals) in kinds.items():
            text += (
                f"static void {name}_task(void *s, long item) {{ scatter_{kind}_item({literals}, s, item); }}\n"
                f"void {name}(struct scatter_{kind} *s, int threads) {{\n"
                f"    scatter_{kind}_run(s, threads > 1 ? &two : NULL, {name}_task);\n}}\n"
            )
    return text


@functools.cache
def _library(variant: str, type_: str, reduction: str) -> ctypes.CDLL:
    return compile_variant(_HEAD + _functions(type_, reduction), variant)


_OPERANDS = [(n, ctypes.c_void_p) for n in ("x", "indices", "updates", "y")]


class _Rows(ctypes.Structure):
    _fields_ = (
        [*_OPERANDS, ("sizes", ctypes.c_void_p)]
        + [(n, ctypes.c_long) for n in ("depth", "inner", "count")]
        + [("error", ctypes.c_void_p), ("rows", ctypes.c_long), ("items", ctypes.c_long)]
    )


class _Elements(ctypes.Structure):
    _fields_ = (
        [*_OPERANDS, ("shape", ctypes.c_void_p), ("places", ctypes.c_void_p)]
        + [(n, ctypes.c_long) for n in ("rank", "axis", "element")]
        + [("error", ctypes.c_void_p), ("filled_in", ctypes.c_long * (3 * 16 + 5))]
    )


def _longs(values: tuple[int, ...]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * (len(values) + 1))(*values)


def _held(x: np.ndarray, indices: np.ndarray, updates: np.ndarray, inplace: bool) -> dict[str, np.ndarray]:
    """Operands and result between guard pages."""
    held = {"x": guarded(x), "indices": guarded(indices), "updates": guarded(updates)}
    return held | {"y": held["x"] if inplace else guarded(poisoned(x.shape, x.dtype))}


def _elements(
    variant: str, x: np.ndarray, indices: np.ndarray, updates: np.ndarray, axis: int, reduction: str,
    *, threads: int = 1, inplace: bool = False,
) -> tuple[np.ndarray, int]:  # fmt: skip
    """The result, and the error noted."""
    held, error = _held(x, indices, updates, inplace), ctypes.c_int(0)
    shape, places = _longs(x.shape), _longs(indices.shape)
    call = _Elements(
        **{n: a.ctypes.data for n, a in held.items()}, shape=ctypes.addressof(shape), places=ctypes.addressof(places),
        rank=x.ndim, axis=axis % x.ndim, element=x.itemsize, error=ctypes.addressof(error),
    )  # fmt: skip
    library = _library(variant, _name(x), reduction)
    assert library.fit(ctypes.byref(call))
    getattr(library, f"elements_{int(indices.dtype == np.int64)}")(ctypes.byref(call), ctypes.c_int(threads))
    return held["y"].copy(), error.value


def _rows(
    variant: str, x: np.ndarray, indices: np.ndarray, updates: np.ndarray, reduction: str,
    *, threads: int = 1, inplace: bool = False,
) -> tuple[np.ndarray, int]:  # fmt: skip
    """The result, and the error noted."""
    held, error, depth = _held(x, indices, updates, inplace), ctypes.c_int(0), indices.shape[-1]
    sizes = _longs(x.shape[:depth])
    call = _Rows(
        **{n: a.ctypes.data for n, a in held.items()}, sizes=ctypes.addressof(sizes), depth=depth,
        inner=math.prod(x.shape[depth:]), count=math.prod(indices.shape[:-1]), error=ctypes.addressof(error),
    )  # fmt: skip
    wide = int(indices.dtype == np.int64)
    function = getattr(_library(variant, _name(x), reduction), f"rows_{wide}_{depth}")
    function(ctypes.byref(call), ctypes.c_int(threads))
    return held["y"].copy(), error.value


def _name(x: np.ndarray) -> str:
    return next(name for name, kind in _NUMPY.items() if x.dtype == kind)


def _random(shape: tuple[int, ...], type_: str, seed: int) -> np.ndarray:
    """Numbers of every size; of floats some are equal, infinite or no numbers."""
    random = np.random.default_rng([seed, *shape])
    kind = np.dtype(_NUMPY[type_])
    if kind.kind != "f":
        return random.integers(np.iinfo(kind).min, np.iinfo(kind).max, shape, kind)
    special = np.asarray([np.nan, np.inf, -np.inf, 0, 1], kind)
    return np.where(random.random(shape) < 0.1, random.choice(special, shape), random.standard_normal(shape, kind))


def _indices(shape: tuple[int, ...], size: int, kind: type = np.int64) -> np.ndarray:
    """In -size .. size - 1, many of them twice."""
    return np.random.default_rng([size, *shape]).integers(-size, size, shape).astype(kind) if size else np.empty(shape)


_CASES = [("F32", r) for r in _REDUCTIONS] + [(t, "none") for t in _TYPES[1:]] + [("I32", "add"), ("I64", "mul")]
_CASES += [("I32", "max"), ("I64", "min")]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("type_", "reduction"), _CASES)
def test_elements(type_: str, reduction: str, variant: str) -> None:
    shapes = [((7,), (12,), 0), ((5, 3), (2, 8), 1), ((6, 4, 5), (9, 4, 5), 0), ((3, 4, 5, 6), (2, 7, 4, 6), 1)]
    shapes += [((3, 4, 5, 6), (3, 7, 5, 4), 1), ((3, 4, 5), (2, 3, 7), 2)]
    for shape, places, axis in [*shapes, ((4, 0), (2, 0), 0), ((1, 1), (1, 1), -1), ((3, 5, 2), (3, 4, 1), -2)]:
        x, updates = _random(shape, type_, 1), _random(places, type_, 2)
        for kind in (np.int32, np.int64):
            indices = _indices(places, shape[axis], kind)
            expected = scatter_elements(x, indices, updates, axis=axis, reduction=reduction)
            for threads in (1, 2):
                got = _elements(variant, x, indices, updates, axis, reduction, threads=threads)
                assert got[1] == 0
                np.testing.assert_array_equal(got[0], expected)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("type_", "reduction"), _CASES)
def test_rows(type_: str, reduction: str, variant: str) -> None:
    shapes = [((7,), (12, 1)), ((9, 35), (20, 1)), ((4, 3, 17), (2, 5, 2)), ((2, 3, 4), (30, 3)), ((5, 3), (0, 1))]
    for shape, places in [*shapes, ((3, 2), (2, 0)), ((4, 0), (3, 1)), ((1, 1), (1, 2))]:
        depth = places[-1]
        x, updates = _random(shape, type_, 1), _random((*places[:-1], *shape[depth:]), type_, 2)
        for kind in (np.int32, np.int64):
            columns = [_indices(places[:-1], n, kind) for n in shape[:depth]]
            indices = np.stack(columns, -1) if columns else np.empty(places, kind)
            expected = scatter_nd(x, indices, updates, reduction=reduction)
            got = _rows(variant, x, indices, updates, reduction)
            assert got[1] == 0
            np.testing.assert_array_equal(got[0], expected)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("reduction", ["none", "add"])
def test_large_ones_are_cut_for_threads_and_give_the_same_bits(reduction: str, variant: str) -> None:
    shapes = [((300, 500), (200, 500), 0), ((300, 500), (300, 400), 1), ((99999,), (70000,), 0)]
    for shape, places, axis in [*shapes, ((4, 600, 60), (3, 600, 50), 0)]:
        x, updates, indices = _random(shape, "F32", 1), _random(places, "F32", 2), _indices(places, shape[axis])
        expected = scatter_elements(x, indices, updates, axis=axis, reduction=reduction)
        for inplace in (False, True):
            got = _elements(variant, x, indices, updates, axis, reduction, threads=2, inplace=inplace)[0]
            np.testing.assert_array_equal(got, expected)
    x, updates, indices = _random((501, 70), "F32", 1), _random((2000, 70), "F32", 2), _indices((2000, 1), 501)
    expected = scatter_nd(x, indices, updates, reduction=reduction)
    for inplace in (False, True):
        got = _rows(variant, x, indices, updates, reduction, threads=2, inplace=inplace)[0]
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("wrong", [5, -6, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63)])
def test_an_index_out_of_range_writes_nowhere_and_is_noted(wrong: int, variant: str) -> None:
    x, updates = _random((5, 3), "F32", 1), _random((2, 3), "F32", 2)
    kind = np.int32 if abs(wrong) <= 2**31 and wrong != 2**31 else np.int64
    indices = np.asarray([[1], [wrong]], kind)
    got, error = _rows(variant, x, indices, updates, "none")
    assert error == 1
    np.testing.assert_array_equal(got, scatter_nd(x, indices[:1], updates[:1]))
    pairs = np.asarray([[wrong, 0], [1, wrong]], kind)
    got, error = _rows(variant, x, pairs, updates[:, 0].copy(), "add")
    assert error == 1
    np.testing.assert_array_equal(got, x)
    along = np.asarray([[1, wrong, 1], [0, 0, 0]], kind)
    got, error = _elements(variant, x, along, updates, 0, "none")
    kept = scatter_elements(x, np.where(along == wrong, 0, along), updates)
    assert error == 1
    np.testing.assert_array_equal(got, kept)


def test_indices_that_are_larger_than_the_data_do_not_fit() -> None:
    shape, places = _longs((4, 3)), _longs((9, 4))
    call = _Elements(shape=ctypes.addressof(shape), places=ctypes.addressof(places), rank=2, axis=0)
    library = _library("native", "F32", "none")
    assert not library.fit(ctypes.byref(call))
    call.axis = 1
    assert not library.fit(ctypes.byref(call))
    places[0] = 4
    assert library.fit(ctypes.byref(call))
