"""A folder that holds a model as a C library: header, shared library, weights, and the sources to build it anew."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fusible.errors import UsageError
from fusible.runtime.native.c_model import CModel, c_model
from fusible.runtime.native.cache import default_cache_dir
from fusible.runtime.native.compiler import Compiler, find_compiler
from fusible.runtime.native.library import KERNEL_HEADERS, build_library

if TYPE_CHECKING:
    from fusible.runtime.executable import Executable

__all__ = ["save_c"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}\Z")
_HEADER = struct.Struct("<8s32sQ16x")  # struct embedded_header, filled up to 64 bytes
_HIDDEN = "-DEXPORT="  # kernels of two models in one program must not take each other's place


def save_c(executable: Executable, folder: Path, name: str = "model", compiler: Compiler | None = None) -> None:
    """Write NAME.h, fusible.h, libNAME.so, NAME.weights and src/ into a folder, which is made if need be.

    Raises LoweringError naming the steps that need Python, DeviceError (no C compiler), KernelBuildError, UsageError.
    """
    if not _NAME.match(name):
        raise UsageError(f"{name!r} cannot begin the names of C functions: use a-z, 0-9 and _, a letter first")
    if (KERNEL_HEADERS / f"{name}.h").exists():
        raise UsageError(f"{name!r} cannot name the model: the library has a header {name}.h of its own")
    model = c_model(executable, name)
    blobs = [_bytes(executable.constants[number]) for number, _ in model.constants]
    digest = _digest(model, blobs)
    source = model.source.replace("@ID@", ", ".join(str(byte) for byte in digest))
    units = {} if executable.program is None else dict(executable.program.code.sources)
    fixed = {n: (KERNEL_HEADERS / n).read_text(encoding="utf-8") for n in ("pool.c", "runner.c")}
    sources = {**fixed, **units, f"{name}.c": source, f"{name}.h": model.header}
    chosen = compiler or find_compiler(os.environ)
    library = build_library(sources, chosen, cache_dir=default_cache_dir(os.environ), flags=(_HIDDEN,))
    try:
        _write(folder, name, sources, library, chosen)
        _write_weights(folder / f"{name}.weights", model, digest, blobs)
    except OSError as error:
        raise UsageError(f"the C library cannot be written to {str(folder)!r}: {error.strerror or error}") from error


def _write(folder: Path, name: str, sources: dict[str, str], library: Path, compiler: Compiler) -> None:
    sub = folder / "src"
    sub.mkdir(parents=True, exist_ok=True)
    for file, text in sources.items():
        (sub / file).write_text(text, encoding="utf-8")
    for header in sorted(KERNEL_HEADERS.glob("*.h")):
        shutil.copyfile(header, sub / header.name)
    shutil.copyfile(sub / f"{name}.h", folder / f"{name}.h")
    shutil.copyfile(sub / "fusible.h", folder / "fusible.h")
    _replace(library, folder / f"lib{name}.so")
    flags = " ".join([*compiler.compile_flags, _HIDDEN, *compiler.link_flags])
    (folder / "build.sh").write_text(_BUILD.format(name=name, flags=flags), encoding="utf-8")
    (folder / "build.sh").chmod(0o755)


def _replace(source: Path, target: Path) -> None:
    """Copy a library by a rename: a process that runs the old one keeps it."""
    temporary = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, temporary)
    temporary.chmod(0o755)
    os.replace(temporary, target)


def _bytes(array: np.ndarray) -> memoryview:
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _digest(model: CModel, blobs: list[memoryview]) -> bytes:
    """What tells these weights, at these places, from all others."""
    digest = hashlib.sha256()
    for (_, offset), blob in zip(model.constants, blobs, strict=True):
        digest.update(struct.pack("<QQ", offset, len(blob)))
        digest.update(blob)
    return digest.digest()


def _write_weights(path: Path, model: CModel, digest: bytes, blobs: list[memoryview]) -> None:
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(_HEADER.pack(b"FUSIBLEW", digest, model.weights_bytes))
        for (_, offset), blob in zip(model.constants, blobs, strict=True):
            assert file.tell() == offset
            file.write(blob)
            file.write(b"\0" * (-len(blob) % 64))
    os.replace(temporary, path)


_BUILD = """\
#!/bin/sh
# Builds lib{name}.so for the processor it is built on; CC names the compiler. For another processor replace the flag
# -march=native (or -mcpu=native): the weights are the same for all.
cd "$(dirname "$0")/src" && exec ${{CC:-cc}} {flags} -o ../lib{name}.so ./*.c -lm
"""
