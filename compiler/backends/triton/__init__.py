"""Regions as Triton kernels, built with no GPU at hand, and Triton kernels run on the CPU (docs/decisions/011, 012)."""
