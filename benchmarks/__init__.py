"""Benchmarks of kernels and models against baselines."""
