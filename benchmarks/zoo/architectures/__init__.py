"""Definitions of the zoo's architectures in torch, one family a file; only `table` can be imported without torch."""
