"""Many small native libraries in little time: with gcc our headers, most of their text, are parsed once."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fusible.compiler.backends.triton.kernel import TILE_HEADER
from fusible.kernels import cpu
from fusible.runtime.devices.triton_cpu import CPU_FLAGS
from fusible.runtime.native.compiler import CompilerKind, find_compiler, run_command

__all__ = ["fast_compiler"]


@contextmanager
def fast_compiler(folder: Path, *flags: str, lowered: bool = False) -> Iterator[None]:
    """Within it `CC` names a compiler that finds our header compiled in `folder`, and gets more flags, such as -O1.

    lowered: the header is tile.h, for the C of Triton kernels, instead of printed.h.
    """
    compiler = find_compiler(os.environ)
    words = [*compiler.command]
    if compiler.kind is CompilerKind.GCC:
        headers = Path(cpu.__file__).parent
        header = headers / "printed.h"
        more = CPU_FLAGS if lowered else ()
        if lowered:  # it lies beside the sources, where it would be found before the compiled one: so it comes first
            header = folder / "first.h"
            header.write_text(f'#define _GNU_SOURCE\n#include "{TILE_HEADER}"\n', encoding="utf-8")
        output = (f"-I{headers}", "-x", "c-header", str(header), "-o", str(folder / f"{header.name}.gch"))
        problem = run_command((*words, *compiler.compile_flags, *more, *flags, *output), folder)
        assert problem is None, problem
        words += ["-include", str(header)] if lowered else [f"-I{folder}"]
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
