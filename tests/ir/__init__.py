"""Tests of the graph IR and of the canonical ops."""
