"""Kernels: what every op means in NumPy, and the fast versions for each target."""
