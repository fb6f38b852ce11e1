"""Tests of regions: text, invariants, interpretation, building from graphs."""
