"""The program: its commands, and how it ends.

Exit codes: 0 done, 1 the model or the numbers are bad, 2 wrong usage. A FusibleError becomes one message on standard
error, and with `--json` also `{"error": {"kind", "message"}}` on standard output; no traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from fusible.cli.bench import bench
from fusible.cli.bench_kernels import bench_kernels
from fusible.cli.check import check
from fusible.cli.compile import compile_model
from fusible.cli.console import escape_controls, print_json, print_line
from fusible.cli.doctor import doctor
from fusible.cli.explain import explain
from fusible.cli.export_c import export_c
from fusible.cli.ops import ops
from fusible.cli.run import run
from fusible.cli.tune import tune_model
from fusible.cli.verify import verify
from fusible.errors import FusibleError, UsageError
from fusible.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    name="fusible",
    help="Compile ONNX models to executables that can be read, checked and changed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("compile")(compile_model)
app.command("tune")(tune_model)
app.command("run")(run)
app.command("export-c")(export_c)
app.command("explain")(explain)
app.command("check")(check)
app.command("verify")(verify)
app.command("bench")(bench)
app.command("bench-kernels")(bench_kernels)
app.command("ops")(ops)
app.command("doctor")(doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        print_line(__version__)
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program (default: with the arguments of the process) and leave it with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=words, prog_name="fusible")
    except FusibleError as error:
        _report(error, as_json="--json" in words)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except BrokenPipeError:
        # The reader has gone; what is left in the buffer must not raise again when the interpreter flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _report(error: FusibleError, *, as_json: bool) -> None:
    message = "\n".join(escape_controls(line) for line in str(error).split("\n"))
    kind = type(error).__name__
    if as_json:
        print_json({"error": {"kind": kind, "message": str(error)}})
    sys.stderr.write(f"fusible: {message}\n" if kind == "UsageError" else f"fusible: {kind}: {message}\n")
