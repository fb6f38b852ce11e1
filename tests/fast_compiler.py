"""Many small native libraries in little time: with gcc our headers, most of their text, are parsed once."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fusible.kernels import cpu
from fusible.runtime.native.compiler import CompilerKind, find_compiler, run_command

__all__ = ["fast_compiler"]


@contextmanager
def fast_compiler(folder: Path, *flags: str) -> Iterator[None]:
    """Within it `CC` names a compiler that finds `printed.h` compiled in `folder`, and gets more flags, such as -O1."""
    compiler = find_compiler(os.environ)
    words = [*compiler.command]
    if compiler.kind is CompilerKind.GCC:
        header = str(Path(cpu.__file__).parent / "printed.h")
        output = ("-x", "c-header", header, "-o", str(folder / "printed.h.gch"))
        problem = run_command((*words, *compiler.compile_flags, *flags, *output), folder)
        assert problem is None, problem
        words.append(f"-I{folder}")
    before = os.environ.get("CC")
    script = f'exec {shlex.join(words)} "$@" {shlex.join(flags)}'
    os.environ["CC"] = shlex.join(["/bin/sh", "-c", script, "cc"])
    try:
        yield
    finally:
        if before is None:
            del os.environ["CC"]
        else:
            os.environ["CC"] = before
