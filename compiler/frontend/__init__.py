"""From an ONNX model to the graph IR and back."""
