"""Backends: from nodes and regions to kernels."""
