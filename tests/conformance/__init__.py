"""The conformance cases of the onnx package, run through `fusible.compile`: `python -m tests.conformance --help`."""
