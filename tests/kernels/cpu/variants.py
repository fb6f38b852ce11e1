"""The instruction sets that tests run on, and the width of AVX-512 by the compiler's own lowering."""

from __future__ import annotations

import ctypes
import platform

from tests.kernels.cpu.emulated import BF16_INSTRUCTIONS
from tests.kernels.cpu.harness import INSTRUCTION_SETS, compile_c

__all__ = ["BF16_VARIANTS", "VARIANTS", "bf16_variant", "compile_variant"]

_WIDE = "16 lanes"
# 16 lanes are lowered without AVX's intrinsics, whatever the compiler's default is.
_NO_VECTORS = ("-mno-avx",) if platform.machine() == "x86_64" else ()
EMULATED = "bf16 instructions, emulated"
VARIANTS = (*INSTRUCTION_SETS, _WIDE)
BF16_VARIANTS = ("native", "plain", EMULATED)


def bf16_variant(source: str, variant: str) -> tuple[str, str, tuple[str, ...]]:
    """The source, instruction set and flags of one of BF16_VARIANTS; all but one are built fast, not to be fast."""
    if variant == EMULATED:
        return BF16_INSTRUCTIONS + source, "plain", ("-DVL=16", "-O0", *_NO_VECTORS)
    return source, variant, () if variant == "native" else ("-O0",)


def compile_variant(source: str, variant: str) -> ctypes.CDLL:
    """The loaded library of `source` for an instruction set, or with 16 lanes on whatever machine this is."""
    if variant == _WIDE:
        return compile_c(source, "plain", ("-DVL=16", "-O1"))
    return compile_c(source, variant)
