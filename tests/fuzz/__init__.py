"""Structured mutations of conformance models: every outcome is a result or a FusibleError."""
