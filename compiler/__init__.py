"""The compiler: ONNX frontend, graph IR, regions, backends and the pipeline that joins them."""
