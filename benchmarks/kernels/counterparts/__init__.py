"""What a kernel is compared with: NumPy as a user would write it, torch, ONNX Runtime on a model of one node."""
