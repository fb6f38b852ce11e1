"""Regions as Triton kernels, and what is known of GPUs without one at hand."""
