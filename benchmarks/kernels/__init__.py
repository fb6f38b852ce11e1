"""The kernel benchmark: single ops on the shapes of real models, against NumPy, torch and ONNX Runtime."""
