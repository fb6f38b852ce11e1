"""Tests of the kernel benchmark. Nothing here judges a time."""
