"""What no test can reach without a GPU, run where there is one: `python -m fusible.gpu_selftest`."""
