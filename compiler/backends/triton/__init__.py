"""Triton kernels: their TTIR is read, lowered to C and run on the CPU (docs/decisions/011)."""
