"""Compile a piece of C against the kernel headers, for several instruction sets, and call it by ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

import fusible.kernels.cpu

__all__ = ["INSTRUCTION_SETS", "compile_c", "pointer"]

HEADERS = Path(fusible.kernels.cpu.__file__).resolve().parent
_FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-std=gnu11", "-fPIC", "-shared")
_WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-unused-function")
_X86 = {"native": ("-march=native",), "avx2": ("-mavx2", "-mfma"), "plain": ()}
INSTRUCTION_SETS = _X86 if platform.machine() == "x86_64" else {"native": (), "plain": ()}
# What `sanitized` and `aarch64` set: another compiler, and flags besides.
_COMPILER = shlex.split(os.environ.get("FUSIBLE_TEST_CC", ""))
_ADDED = tuple(shlex.split(os.environ.get("FUSIBLE_TEST_CFLAGS", "")))
_built = Path(tempfile.mkdtemp(prefix="fusible-kernel-tests-"))


def compile_c(source: str, instruction_set: str = "native", extra: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The loaded library of `source`, compiled with -I kernels/cpu; the same text is compiled once a process."""
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    compiler = _COMPILER or ([found] if found else pytest.fail("the tests of C kernels need a C compiler"))
    command = [*compiler, *_FLAGS, *_WARNINGS, *INSTRUCTION_SETS[instruction_set], *extra, *_ADDED, f"-I{HEADERS}"]
    key = hashlib.sha256(repr((command, source)).encode()).hexdigest()[:16]
    library = _built / f"{key}.so"
    if not library.exists():
        text = _built / f"{key}.c"
        text.write_text(source)
        command += ["-o", str(library), str(text), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


def pointer(array: object) -> ctypes.c_void_p:
    """The address of a NumPy array's data."""
    return ctypes.c_void_p(array.ctypes.data)  # type: ignore[attr-defined]
