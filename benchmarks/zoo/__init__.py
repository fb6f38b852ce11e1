"""The models that tests and benchmarks run on."""
