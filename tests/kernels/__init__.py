"""Tests of the kernels against ONNX Runtime and float64 NumPy."""
