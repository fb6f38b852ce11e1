"""Functions of libdevice (`tl.extra.libdevice`), by the functions of the C library that compute them."""

from __future__ import annotations

__all__ = ["library_call"]

_PREFIX = "__nv_"
_SAME = {
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "copysign", "cos", "cosh",
    "erf", "erfc", "exp", "exp10", "exp2", "expm1", "fabs", "fdim", "floor", "fma", "fmax", "fmin", "fmod",
    "hypot", "ilogb", "j0", "j1", "ldexp", "lgamma", "log", "log10", "log1p", "log2", "logb", "nearbyint",
    "nextafter", "pow", "remainder", "rint", "round", "sin", "sinh", "sqrt", "tan", "tanh", "tgamma", "trunc",
    "y0", "y1",
}  # fmt: skip
_ARITY = {
    "atan2": 2, "copysign": 2, "fdim": 2, "fmax": 2, "fmin": 2, "fmod": 2, "hypot": 2, "ldexp": 2, "nextafter": 2,
    "pow": 2, "remainder": 2, "fma": 3,
}  # fmt: skip
_OWN = {
    "abs": "({0} < 0 ? -{0} : {0})", "llabs": "({0} < 0 ? -{0} : {0})",
    "rsqrtf": "rsqrt_f32({0})", "rsqrt": "rsqrt_f64({0})", "powif": "powf({0}, (float){1})", "powi": "pow({0}, {1})",
    "isnanf": "{0} != {0}", "isnand": "{0} != {0}", "isinff": "isinf({0}) != 0", "isinfd": "isinf({0}) != 0",
    "finitef": "isfinite({0}) != 0", "isfinited": "isfinite({0}) != 0", "signbitf": "signbit({0}) != 0",
    "signbitd": "signbit({0}) != 0", "saturatef": "minnum_f32(maxnum_f32({0}, 0), 1)",
    "normcdff": "0.5f * erfcf(-0.70710678118654752f * {0})", "normcdf": "0.5 * erfc(-0.70710678118654752 * {0})",
    "fast_expf": "expf({0})", "fast_exp10f": "exp10f({0})", "fast_logf": "logf({0})", "fast_log2f": "log2f({0})",
    "fast_log10f": "log10f({0})", "fast_sinf": "sinf({0})", "fast_cosf": "cosf({0})", "fast_tanf": "tanf({0})",
    "fast_tanhf": "tanhf({0})", "fast_powf": "powf({0}, {1})", "fast_dividef": "{0} / {1}",
    "fmaf_rn": "fmaf({0}, {1}, {2})", "fma_rn": "fma({0}, {1}, {2})", "fsqrt_rn": "sqrtf({0})", "dsqrt_rn": "sqrt({0})",
    "frcp_rn": "1 / {0}", "drcp_rn": "1 / {0}", "float2int_rn": "(int32_t)rintf({0})", "float2int_rz": "(int32_t){0}",
    "float2int_rd": "(int32_t)floorf({0})", "float2int_ru": "(int32_t)ceilf({0})",
}  # fmt: skip


def library_call(symbol: str) -> str | None:
    """Return a template of the C expression, its arguments as `{0}`, `{1}`..., or None."""
    if not symbol.startswith(_PREFIX):
        return None
    name = symbol.removeprefix(_PREFIX)
    if name in _OWN:
        return f"({_OWN[name]})"
    base = name[:-1] if name.endswith("f") and name[:-1] in _SAME else name
    if base not in _SAME:
        return None
    arguments = ", ".join(f"{{{k}}}" for k in range(_ARITY.get(base, 1)))
    return f"{name}({arguments})"
