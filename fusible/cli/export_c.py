"""`fusible export-c MODEL|ARTIFACT -o DIR`: a model as a C library that needs no Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusible.cli.console import aligned, bytes_text, print_json, print_line, progress
from fusible.cli.models import open_executable
from fusible.cli.parameters import JsonOption, ProgramArgument, ShapeOption

__all__ = ["export_c"]

FolderOption = Annotated[
    Path, typer.Option("-o", "--output", metavar="DIR", help="The folder; made if need be.", show_default=False)
]
NameOption = Annotated[str, typer.Option("--name", metavar="NAME", help="What files and functions begin with.")]


def export_c(
    program: ProgramArgument,
    output: FolderOption,
    name: NameOption = "model",
    shape: ShapeOption = None,
    json_output: JsonOption = False,
) -> None:
    """Write MODEL or ARTIFACT as a C library: header, shared library, weights, and the sources to build it anew.

    Exit code 1, naming the steps, if some of them call NumPy.
    """
    executable = open_executable(program, "cpu", shape or ())
    with progress(f"exporting {program.name}"):
        executable.save_c(output, name)
    files = {path.name: path.stat().st_size for path in sorted(output.iterdir()) if path.is_file()}
    if json_output:
        print_json({"folder": str(output), "files": files})
        return
    for line in aligned({file: bytes_text(size) for file, size in files.items()}):
        print_line(line)
