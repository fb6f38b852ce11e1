"""Triton kernels on arrays: the signature is read off the arguments, and what was built is kept for all tests."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import ml_dtypes
import numpy as np

from fusible.compiler.backends.triton.from_triton import ttir_of
from fusible.compiler.backends.triton.kernel import Argument, CpuKernel, build_kernel
from fusible.compiler.backends.triton.lower import lower_ttir

BF16 = np.dtype(ml_dtypes.bfloat16)
F8E4M3, F8E5M2 = np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.float8_e5m2)
TRITON_NAMES = {
    np.dtype(np.float64): "fp64", np.dtype(np.float32): "fp32", np.dtype(np.float16): "fp16", BF16: "bf16",
    F8E4M3: "fp8e4nv", F8E5M2: "fp8e5", np.dtype(np.int64): "i64", np.dtype(np.int32): "i32",
    np.dtype(np.int16): "i16", np.dtype(np.int8): "i8", np.dtype(np.uint8): "u8", np.dtype(np.uint32): "u32",
}  # fmt: skip


def signature_of(arguments: Mapping[str, Argument]) -> dict[str, str]:
    """The Triton types of arguments: int is i32, float is fp32."""
    kinds = {}
    for name, value in arguments.items():
        if isinstance(value, np.ndarray):
            kinds[name] = f"*{TRITON_NAMES[value.dtype]}"
        else:
            kinds[name] = "fp32" if isinstance(value, float) else "i32"
    return kinds


@cache
def _built(
    kernel: object, signature: tuple[tuple[str, str], ...], constants: tuple[tuple[str, object], ...], checked: bool
) -> CpuKernel:
    text = ttir_of(kernel, dict(signature), dict(constants), assertions=checked)
    return build_kernel(lower_ttir(text, checked=checked))


def prepared(
    kernel: object, arguments: Mapping[str, Argument], constants: Mapping[str, object], *, checked: bool = False
) -> CpuKernel:
    """The kernel built for the types of these arguments."""
    return _built(kernel, tuple(signature_of(arguments).items()), tuple(constants.items()), checked)


def run(
    kernel: object,
    grid: tuple[int, ...],
    arguments: Mapping[str, Argument],
    constants: Mapping[str, object] | None = None,
    *,
    checked: bool = False,
) -> None:
    """Run a kernel; what it writes is in the arrays."""
    prepared(kernel, arguments, constants or {}, checked=checked)(grid, *arguments.values())
