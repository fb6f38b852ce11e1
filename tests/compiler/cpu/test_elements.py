"""Printed nests over every element type against the region interpreter: arithmetic, casts, gathers, folds, strides."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from fusible.compiler.backends.cpu.kernel import PLACEHOLDER, print_region
from fusible.compiler.ir.types import DType
from fusible.compiler.region.evaluate import run_region
from fusible.compiler.region.parse import parse_region
from fusible.compiler.region.region import Region
from tests.compiler.cpu.calls import call
from tests.kernels.cpu.harness import INSTRUCTION_SETS, compile_c
from tests.tolerance import assert_close, poisoned

FLOATS = (DType.F64, DType.F32, DType.F16, DType.BF16)
INTEGERS = (DType.I64, DType.I32, DType.I16, DType.I8, DType.U32, DType.U16, DType.U8)

ARITHMETIC = """
region [i0=5, i1=19]
  in x0: T[5, 19]
  in x1: T[5, 1]
  in x2: T[19]
  out y0: T[5, 19]
  out y1: bool[5, 19]
  v0: T = load x0[i0, i1]
  v1: T = load x1[i0, 0]
  v2: T = load x2[i1]
  v3: T = add(v0, v1)
  v4: T = mul(v3, v2)
  v5: T = sub(v4, 3)
  v6: T = max(v5, v0)
  v7: T = div(v6, v2)
  v8: bool = lt(v7, v1)
  v9: T = select(v8, v7, v6)
  v10: T = abs(v9)
  store y0[i0, i1] = v10
  store y1[i0, i1] = v8
"""
INTEGER_FUNCTIONS = """
region [i0=95]
  in x0: T[95]
  in x1: T[95]
  out y0: T[95]
  v0: T = load x0[i0]
  v1: T = load x1[i0]
  v2: T = mod(v0, v1)
  v3: T = bitwise_xor(v2, v0)
  v4: T = bitwise_and(v3, 107)
  v5: T = bitwise_or(v4, v1)
  v6: T = fmod(v5, 7)
  v7: T = min(v6, v0)
  v8: T = sign(v7)
  v9: T = add(v8, v5)
  store y0[i0] = v9
"""
FLOAT_FUNCTIONS = """
region [i0=95]
  in x0: T[95]
  out y0: T[95]
  v0: T = load x0[i0]
  v1: T = exp(v0)
  v2: T = sqrt(v1)
  v3: T = tanh(v2)
  v4: T = erf(v3)
  v5: T = sigmoid(v4)
  v6: T = floor(v0)
  v7: T = add(v5, v6)
  v8: T = pow(v1, 1.5)
  v9: T = reciprocal(v8)
  v10: T = add(v7, v9)
  store y0[i0] = v10
"""
# Elements that lie apart, a gather lane by lane, a padding, a transposed result.
MOVEMENT = """
region [i0=6, i1=11]
  in x0: T[11, 6]
  in x1: T[17]
  in x2: i64[11]
  in x3: T[6, 9]
  out y0: T[11, 6]
  out y1: T[6, 22]
  v0: T = load x0[i1, i0]
  v1: i64 = load x2[i1]
  v2: T = load x1[v1]
  v3: T = load x3[i0, i1 - 1] where 1 <= i1 < 10 else 2
  v4: T = add(v0, v2)
  v5: T = add(v4, v3)
  store y0[i1, i0] = v5
  store y1[i0, i1 * 2] = v4
"""
FOLDS = """
region [i0=7, i1=23]
  in x0: T[A]
  out y0: T[7]
  out y1: T[7, 23]
  out y2: T[7]
  out y3: T[7]
  v0: T = load x0[B]
  v1: T = reduce sum over i1 of v0
  v2: T = reduce max over i1 of v0
  v3: T = reduce min over i1 of v0
  v4: T = sub(v0, v2)
  store y0[i0] = v1
  store y1[i0, i1] = v4
  store y2[i0] = v2
  store y3[i0] = v3
"""
BEST = """
region [i0=7, i1=23]
  in x0: T[A]
  out y0: i64[7]
  v0: T = load x0[B]
  v1: i64 = index i1
  v2, v3: T, i64 = reduce argmax over i1 of v0, v1
  v4, v5: T, i64 = reduce argmin_last over i1 of v0, v1
  v6: i64 = mul(v3, 100)
  v7: i64 = add(v6, v5)
  store y0[i0] = v7
"""
TRUTH = """
region [i0=7, i1=23]
  in x0: bool[A]
  out y0: bool[7]
  out y1: bool[7]
  v0: bool = load x0[B]
  v1: bool = reduce max over i1 of v0
  v2: bool = reduce min over i1 of v0
  store y0[i0] = v1
  store y1[i0] = v2
"""
CAST = """
region [i0=5, i1=9]
  in x0: T[5, 9]
  in x1: T[5, 1]
  out y0: U[5, 9]
  out y1: U[5, 9]
  v0: T = load x0[i0, i1]
  v1: U = U(v0)
  v2: T = load x1[i0, 0]
  v3: U = U(v2)
  store y0[i0, i1] = v1
  store y1[i0, i1] = v3
"""
ALONG, ACROSS = ("7, 23", "i0, i1"), ("23, 7", "i1, i0")


def filled(text: str, dtype: DType, other: DType = DType.F32, fold: tuple[str, str] = ALONG) -> str:
    """The region's text for element types, with the folded axis along the vectors' or across them."""
    named = (
        text.replace(" T(", f" {dtype.value}(").replace("U(", f"{other.value}(").replace("x0: T", f"x0: {dtype.value}")
    )
    named = (
        named.replace(": T", f": {dtype.value}")
        .replace(": U", f": {other.value}")
        .replace("T, i64", f"{dtype.value}, i64")
    )
    return named.replace("[A]", f"[{fold[0]}]").replace("x0[B]", f"x0[{fold[1]}]")


def cases() -> dict[str, str]:
    """Every region, by what it is about and its types."""
    found: dict[str, str] = {}
    for dtype in (*FLOATS, *INTEGERS):
        found |= {
            f"{n} {dtype.value}": filled(t, dtype) for n, t in (("arithmetic", ARITHMETIC), ("movement", MOVEMENT))
        }
        for way, fold in (("along", ALONG), ("across", ACROSS)):
            found[f"folds {way} {dtype.value}"] = filled(FOLDS, dtype, fold=fold)
            found[f"best {way} {dtype.value}"] = filled(BEST, dtype, fold=fold)
        for other in (*FLOATS, *INTEGERS, DType.BOOL):
            found[f"cast {dtype.value} {other.value}"] = filled(CAST, dtype, other)
    found |= {f"functions {d.value}": filled(INTEGER_FUNCTIONS, d) for d in INTEGERS}
    found |= {f"functions {d.value}": filled(FLOAT_FUNCTIONS, d) for d in FLOATS}
    for way, fold in (("along", ALONG), ("across", ACROSS)):
        found[f"truth {way}"] = filled(TRUTH, DType.BOOL, fold=fold)
    return found | {f"cast bool {d.value}": filled(CAST, DType.BOOL, d) for d in (*FLOATS, *INTEGERS)}


@functools.cache
def regions() -> dict[str, Region]:
    """They, parsed."""
    return {name: parse_region(text) for name, text in cases().items()}


@functools.cache
def library(instruction_set: str) -> object:
    """All of them in one library."""
    texts = [print_region(r, ()).text.replace(PLACEHOLDER, f"k{n}") for n, r in enumerate(regions().values())]
    return compile_c('#include "printed.h"\n' + "\n".join(texts), instruction_set, ("-O1",))


def operands(region: Region, large: bool) -> list[np.ndarray]:
    """Arrays of small numbers; `large`: integers from all over their type's range. Indices stay in range."""
    random, found = np.random.default_rng(1), []
    for number, buffer in enumerate(region.inputs):
        shape, dtype = tuple(int(d) for d in buffer.shape), buffer.dtype.numpy  # type: ignore[call-overload]
        indices = len(region.inputs) == 4 and number == 2
        if buffer.dtype is DType.BOOL:
            array = random.random(shape) < 0.5
        elif buffer.dtype.is_integer and not indices and large:
            info = np.iinfo(dtype)
            array = random.integers(info.min, info.max, shape, dtype, endpoint=True)
        elif buffer.dtype.is_integer:
            array = random.integers(0, 11, shape)
        else:
            array = random.standard_normal(shape) * 3
        found.append(np.asarray(array).astype(dtype))
    return found


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("name", cases())
def test_every_type_is_computed_as_numpy_does(name: str, instruction_set: str) -> None:
    region = regions()[name]
    function = getattr(library(instruction_set), f"k{list(cases()).index(name)}")
    for large in (False, True):
        arrays = operands(region, large)
        if name.startswith("cast") and large and arrays[0].dtype.kind in "iu" and arrays[0].dtype.itemsize > 2:
            arrays = [a % 100 for a in arrays]  # fp16 holds no more
        if name.startswith("cast") and " u" in name[5:] and arrays[0].dtype.kind not in "iub":
            arrays = [abs(a) for a in arrays]  # what a negative float becomes is not defined
        start = [poisoned(tuple(map(int, b.shape)), b.dtype.numpy) for b in region.outputs]  # type: ignore[arg-type]
        expected, got = run_region(region, arrays, into=[a.copy() for a in start]), [a.copy() for a in start]
        assert call(function, arrays, got) == 0
        for one, other in zip(got, expected, strict=True):
            assert_close(one, other, accumulation=64)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_every_half_and_its_neighbours_convert_as_numpy_does(instruction_set: str) -> None:
    for dtype in (DType.F16, DType.BF16):
        texts = [
            f"region [i0=65536]\n  in x0: {a}[65536]\n  out y0: {b}[65536]\n  v0: {a} = load x0[i0]\n"
            f"  v1: {b} = {b}(v0)\n  store y0[i0] = v1\n"
            for a, b in ((dtype.value, "f32"), ("f32", dtype.value))
        ]
        kernels = [print_region(parse_region(t), ()).text.replace(PLACEHOLDER, f"k{n}") for n, t in enumerate(texts)]
        made = compile_c('#include "printed.h"\n' + "\n".join(kernels), instruction_set)
        halves = np.arange(65536, dtype=np.uint16).view(dtype.numpy)
        floats = poisoned((65536,), np.float32)
        assert call(made.k0, [halves], [floats]) == 0
        assert np.array_equal(floats, halves.astype(np.float32), equal_nan=True)
        with np.errstate(all="ignore"):
            for step in (0, 1, -1, 2**11, 2**12, 2**12 + 1, 2**15, 2**15 + 1):
                near = (floats.view(np.int32) + np.int32(step)).view(np.float32)
                got = poisoned((65536,), dtype.numpy)
                assert call(made.k1, [near], [got]) == 0
                assert np.array_equal(
                    got.astype(np.float32), near.astype(dtype.numpy).astype(np.float32), equal_nan=True
                )
