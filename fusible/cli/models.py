"""Opening what a command was given: an ONNX model to compile, or an artifact to load."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fusible.cli.console import progress
from fusible.cli.shapes import parse_shapes
from fusible.errors import UsageError
from fusible.runtime.artifact import MAGIC, load_artifact

if TYPE_CHECKING:
    from fusible.compiler.options import Options
    from fusible.passes.instruments import Instrument
    from fusible.runtime.executable import Executable

__all__ = ["compile_file", "existing", "is_artifact", "open_executable", "options_for"]


def existing(path: Path) -> Path:
    """Return the path of a file. Raises UsageError if there is none."""
    if not path.is_file():
        raise UsageError(f"{path} is {'a folder' if path.is_dir() else 'no file'}")
    return path


def is_artifact(path: Path) -> bool:
    """Tell an artifact from a model by its first bytes."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error


def open_executable(
    path: Path,
    target: str,
    shapes: Iterable[str],
    precision: str = "fp32",
    *,
    allow_host: bool = False,
    tuning: Path | None = None,
) -> Executable:
    """Load an artifact, or compile a model. Raises UsageError if shapes are given for an artifact."""
    if not is_artifact(existing(path)):
        return compile_file(path, target, shapes, options=options_for(precision, allow_host=allow_host, tuning=tuning))
    executable = load_artifact(path, target=None if target == "auto" else target)
    if precision != "fp32":
        raise UsageError("--precision belongs to compiling; the artifact has its precision already")
    if tuning is not None:
        raise UsageError("--tuning belongs to compiling; the artifact's kernels have their configurations already")
    if list(shapes):
        raise UsageError("--shape belongs to compiling; the artifact has its shapes already")
    return executable


def options_for(
    precision: str,
    *,
    verify: bool = False,
    allow_host: bool = False,
    also: Sequence[str] = (),
    tuning: Path | None = None,
) -> Options:
    """The options of the command line. Raises UsageError for a precision that there is not."""
    from fusible.compiler.options import Options

    return Options(
        precision=precision,  # type: ignore[arg-type]  # it checks them
        verify="passes" if verify else "off",
        allow_host=True if allow_host else None,
        also=tuple(also),
        tuning=tuning,
    )


def compile_file(
    path: Path,
    target: str = "auto",
    shapes: Iterable[str] = (),
    *,
    pass_files: Sequence[Path] = (),
    disabled: Sequence[str] = (),
    options: Options | None = None,
    instruments: Sequence[Instrument] = (),
    limit: int | None = None,
) -> Executable:
    """Compile a model file with the options of the command line."""
    from fusible.compiler.api import compile_with
    from fusible.compiler.pass_files import load_pass_file
    from fusible.compiler.pipeline import pipeline
    from fusible.compiler.targets import resolve_target

    concrete, _ = resolve_target(target)
    passes = pipeline(concrete)
    for file in pass_files:
        passes = load_pass_file(existing(file), passes)
    for name in disabled:
        passes = passes.without(name)
    changed = bool(pass_files or disabled)
    with progress(f"compiling {path.name}"):
        return compile_with(
            existing(path),
            target,
            shapes=parse_shapes(shapes),
            passes=passes if changed else None,
            options=options,
            instruments=instruments,
            limit=limit,
        )
