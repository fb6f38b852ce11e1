"""NumPy kernels: the meaning of every canonical op, one family a file."""
