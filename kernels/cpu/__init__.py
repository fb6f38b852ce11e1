"""Kernels in C for CPUs: headers that generated translation units include, and the packing of their weights."""
