"""The command `fusible`: a thin layer over the Python interface, one command a file."""

from __future__ import annotations

from fusible.cli.program import app, main

__all__ = ["app", "main"]
