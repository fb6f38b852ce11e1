"""The instruction sets that tests run on, and the width of AVX-512 by the compiler's own lowering."""

from __future__ import annotations

import ctypes

from tests.kernels.cpu.emulated import BF16_INSTRUCTIONS
from tests.kernels.cpu.harness import INSTRUCTION_SETS, compile_c

__all__ = ["BF16_VARIANTS", "EMULATED", "VARIANTS", "compile_variant"]

_WIDE = "16 lanes"
EMULATED = "bf16 instructions, emulated"
VARIANTS = (*INSTRUCTION_SETS, _WIDE)
BF16_VARIANTS = (*VARIANTS, EMULATED)


def compile_variant(source: str, variant: str) -> ctypes.CDLL:
    """The loaded library of `source` for an instruction set, or with 16 lanes on whatever machine this is."""
    if variant == _WIDE:
        return compile_c(source, "plain", ("-DVL=16", "-O1"))
    if variant == EMULATED:
        return compile_c(BF16_INSTRUCTIONS + source, "plain", ("-DVL=16", "-O1"))
    return compile_c(source, variant)
