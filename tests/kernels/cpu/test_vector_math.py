"""Elementary functions: the largest error in ulp against the C library's double precision, over all of the range."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest

from tests.kernels.cpu.harness import HEADERS, pointer
from tests.kernels.cpu.variants import VARIANTS, compile_variant

# function: (exact result in double, what the unit in the last place is of, bound as the header states it)
FUNCTIONS = {
    "exp": ("exp(x)", "result", 1.05),
    "exp_negative": ("flushed_exp(x)", "result", 1.05),
    "expm1": ("expm1(x)", "result", 1.75),
    "log": ("log(x)", "result", 0.9),
    "log1p": ("log1p(x)", "result", 1.5),
    "tanh": ("tanh(x)", "result", 2.65),
    "erf": ("erf(x)", "result", 1.25),
    "sigmoid": ("sigmoid(x)", "result", 2.5),
    "softplus": ("fmax(x, 0) + log1p(exp(-fabs(x)))", "result", 2.0),
    "silu": ("x * sigmoid(x)", "argument", 2.9),
    "gelu": ("x * erfc(-x * 0.70710678118654752440) / 2", "argument", 3.4),
    "gelu_tanh": ("gelu_tanh(x)", "argument", 2.9),
}

_SOURCE = """
#include <float.h>
#include <math.h>
#include "vector_math.h"
typedef double real;
static real sigmoid(real x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }
static real flushed_exp(real x) { return x <= -87.33654 ? 0 : exp(x); }
static real gelu_tanh(real x) { return x * sigmoid(1.59576912160573071176 * (x + 0.044715 * x * x * x)); }
static real unit(real size) {
    int exponent;
    frexp(size, &exponent);
    return ldexp(1, (exponent - 1 < -126 ? -126 : exponent - 1) - 23);
}
static real error(float got, real exact, real scale) {
    if (isnan(exact)) return isnan(got) ? 0 : INFINITY;
    if (fabs(exact) >= 0x1.ffffffp127) return isinf(got) && (got < 0) == (exact < 0) ? 0 : INFINITY;
    return isfinite(got) ? fabs(got - exact) / unit(scale) : INFINITY;
}
"""

_SCAN = """
real scan_{name}(uint64_t first, uint64_t step, uint64_t last, float *at) {{
    real worst = 0;
    for (uint64_t bits = first; bits < last; bits += VL * step) {{
        float arguments[VL], results[VL];
        for (int lane = 0; lane < VL; lane++) {{
            uint32_t one = (uint32_t)(bits + lane * step);
            memcpy(arguments + lane, &one, sizeof one);
        }}
        vf_store(results, vf_{name}(vf_load(arguments)));
        for (int lane = 0; lane < VL; lane++) {{
            real x = arguments[lane], exact = {exact};
            if ({skip}) continue;
            real found = error(results[lane], exact, {scale});
            if (found > worst) {{ worst = found; *at = arguments[lane]; }}
        }}
    }}
    return worst;
}}
void apply_{name}(const float *x, float *y, long n) {{
    for (long i = 0; i < n; i += VL)
        vf_store_first(y + i, vf_{name}(vf_load_first(x + i, n - i < VL ? n - i : VL)), n - i < VL ? n - i : VL);
}}
"""


def _library(variant: str) -> ctypes.CDLL:
    scans = [
        _SCAN.format(
            name=name,
            exact=exact,
            scale="exact" if unit == "result" else "x",
            skip="x > 0" if name == "exp_negative" else "0",
        )
        for name, (exact, unit, _) in FUNCTIONS.items()
    ]
    library = compile_variant(_SOURCE + "".join(scans), variant)
    for name in FUNCTIONS:
        scan = getattr(library, f"scan_{name}")
        scan.restype = ctypes.c_double
        scan.argtypes = [ctypes.c_uint64] * 3 + [ctypes.c_void_p]
    return library


def _largest_error(library: ctypes.CDLL, name: str, step: int) -> tuple[float, float]:
    at = np.zeros(1, dtype=np.float32)
    return getattr(library, f"scan_{name}")(0, step, 1 << 32, pointer(at)), float(at[0])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_over_a_sample_of_all_bit_patterns(name: str, variant: str) -> None:
    worst, at = _largest_error(_library(variant), name, 4099)
    assert worst <= FUNCTIONS[name][2], f"{worst:.3f} ulp at {at!r}"


def test_the_header_states_these_bounds() -> None:
    text = (HEADERS / "vector_math.h").read_text()
    for name, (_, _, bound) in FUNCTIONS.items():
        comment = text[: text.index(f"INLINE vf vf_{name}(")].rpartition("/*")[2]
        assert f": {bound:g} ulp" in comment, name


@pytest.mark.scan
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_over_all_bit_patterns(name: str, variant: str) -> None:
    worst, at = _largest_error(_library(variant), name, 1)
    assert worst <= FUNCTIONS[name][2], f"{worst:.3f} ulp at {at!r}"


SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 1e-38, 3.4e38, -3.4e38, 1.0, -1.0]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["exp", "expm1", "log", "log1p", "tanh"])
def test_special_arguments_agree_with_numpy_to_the_sign_of_zero(name: str, variant: str) -> None:
    x = np.array(SPECIAL, dtype=np.float32)
    got = np.full(x.size, 7, dtype=np.float32)
    getattr(_library(variant), f"apply_{name}")(pointer(x), pointer(got), ctypes.c_long(x.size))
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=3e-45)
    zeros = (x == 0) & (expected == 0)
    np.testing.assert_array_equal(np.signbit(got[zeros]), np.signbit(expected[zeros]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_softplus_sigmoid_and_erf_at_infinity(variant: str) -> None:
    x = np.array([math.inf, -math.inf, math.nan, -0.0], dtype=np.float32)
    expected = {
        "softplus": [math.inf, 0, math.nan, math.log(2)],
        "sigmoid": [1, 0, math.nan, 0.5],
        "erf": [1, -1, math.nan, 0],
    }
    for name, values in expected.items():
        got = np.full(4, 7, dtype=np.float32)
        getattr(_library(variant), f"apply_{name}")(pointer(x), pointer(got), ctypes.c_long(4))
        np.testing.assert_allclose(got, np.array(values, dtype=np.float32), rtol=1e-6)
