"""The C compiler: which one is used, and with what flags.

The order is `$CC`, cc, gcc, clang on the search path, then the `ziglang` wheel. A candidate must build a small library
with the flags that kernels are built with. `-ffast-math` is never among them, and a compiler that brings it along is
refused: it breaks NaN and infinity, and loading what gcc before 13 links with it switches off denormals.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path

from fusible.errors import DeviceError

__all__ = ["Compiler", "CompilerKind", "find_compiler", "run_command"]

_COMPILE = (
    "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-std=gnu11", "-fPIC", "-fvisibility=hidden",
    "-pthread",
)  # fmt: skip
_LINK = ("-O3", "-shared", "-pthread")  # Zig builds its own runtime for the optimisation stated
# Zig's defaults are for debugging C: traps on undefined behaviour, protected stacks, frame pointers, symbols.
_ZIG = ("-fno-sanitize=all", "-fno-stack-protector", "-fomit-frame-pointer", "-g0")
_ON_PATH = ("cc", "gcc", "clang")
_SECONDS = 600

_TRIAL = """\
#include <math.h>
#include <pthread.h>
#if defined(__FAST_MATH__)
#error "this compiler is set to -ffast-math, which breaks NaN and infinity"
#endif
typedef float vector __attribute__((vector_size(16)));
__attribute__((visibility("default"))) float fusible_trial(float x) {
    vector roots = (vector){0} + sqrtf(x);
    return roots[0] + roots[3];
}
"""


class CompilerKind(Enum):
    """Whose command line a compiler understands."""

    GCC = "gcc"
    CLANG = "clang"
    ZIG = "zig"


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C compiler that works.

    command: the program's path and the arguments that belong to it; version: the first line of `--version`;
    origin: where it came from, for people.
    """

    command: tuple[str, ...]
    version: str
    kind: CompilerKind
    origin: str

    @property
    def compile_flags(self) -> tuple[str, ...]:
        """The flags that turn a source into an object for this very processor."""
        zig = self.kind is CompilerKind.ZIG
        native = "-mcpu=native" if zig or platform.machine() == "aarch64" else "-march=native"
        return (*_COMPILE, native, *(_ZIG if zig else ()))

    @property
    def link_flags(self) -> tuple[str, ...]:
        """The flags that turn objects into a shared library; libraries (`-lm`) go behind the objects."""
        return (*_LINK, *(_ZIG if self.kind is CompilerKind.ZIG else ()))


def find_compiler(environment: Mapping[str, str]) -> Compiler:
    """Return the C compiler to use, by `CC` and `PATH` of an environment.

    Raises DeviceError if `CC` names one that does not work, and if none is found.
    """
    stated = environment.get("CC", "").strip()
    search = environment.get("PATH", os.defpath)
    if stated:
        found = _examine_words(stated, search)
        if isinstance(found, str):
            raise DeviceError(f"the C compiler that CC names, {stated!r}, does not work: {found}; correct or unset CC")
        return found
    refused = []
    for name in _ON_PATH:
        found = _examine(_located([name], search), "PATH")
        if not isinstance(found, str):
            return found
        refused.append(f"{name} ({found})")
    found = _examine_ziglang()
    if not isinstance(found, str):
        return found
    raise DeviceError(
        f"no C compiler: looked for CC (not set), {', '.join(refused)} and the ziglang wheel ({found}); install a C "
        "compiler (Debian: apt-get install gcc libc6-dev) or `pip install 'fusible[cc]'`"
    )


def run_command(command: tuple[str, ...], folder: Path) -> str | None:
    """Run a compiler in a folder; returns None if it succeeds, else what it said."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if done.returncode == 0:
        return None
    return (done.stderr + done.stdout).strip() or f"it ended with status {done.returncode} and said nothing"


def _examine_words(stated: str, search: str) -> Compiler | str:
    try:
        words = shlex.split(stated)
    except ValueError as error:
        return str(error)  # a quotation mark without its partner
    return _examine(_located(words, search), "CC")


def _located(words: list[str], search: str) -> tuple[str, ...]:
    """The command with the path of its program, or nothing if there is none on the search path."""
    path = shutil.which(words[0], path=search)
    return (os.path.abspath(path), *words[1:]) if path is not None else ()


def _examine_ziglang() -> Compiler | str:
    if importlib.util.find_spec("ziglang") is None:
        return "not installed"
    return _examine((sys.executable, "-m", "ziglang", "cc"), "the ziglang wheel")


def _examine(command: tuple[str, ...], origin: str) -> Compiler | str:
    """The compiler that a command is, or why it is none."""
    if not command:
        return "not found"
    try:
        return _examined(command, origin, os.stat(command[0]).st_mtime_ns)
    except _DoesNotWork as refusal:
        return str(refusal)


class _DoesNotWork(Exception):
    """Raised with the reason, which unlike a result is not remembered: the user may install what is missing."""


@lru_cache(maxsize=16)
def _examined(command: tuple[str, ...], origin: str, changed: int) -> Compiler:
    """As `_examine`, once for each state of the program: a trial takes 0.1 s, and 5 s with a fresh Zig."""
    try:
        answer = subprocess.run(
            [*command, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise _DoesNotWork(str(error)) from error
    lines = answer.stdout.strip().splitlines()
    if answer.returncode != 0 or not lines:
        raise _DoesNotWork("it does not tell its version")
    compiler = Compiler(command, lines[0].strip(), _kind(command, answer.stdout), origin)
    _try(compiler)
    return compiler


def _kind(command: tuple[str, ...], version: str) -> CompilerKind:
    """Zig answers as the clang it contains. What is neither understands gcc's flags, or fails the trial."""
    if command[-1] == "cc" and any(Path(word).name in ("zig", "ziglang") for word in command):
        return CompilerKind.ZIG
    return CompilerKind.CLANG if "clang" in version.lower() else CompilerKind.GCC


def _try(compiler: Compiler) -> None:
    """Build a library, with all the flags. Raises _DoesNotWork."""
    with tempfile.TemporaryDirectory(prefix="fusible-cc-") as name:
        folder = Path(name)
        (folder / "trial.c").write_text(_TRIAL, encoding="utf-8")
        output = ("-o", "trial.so", "trial.c", "-lm")
        problem = run_command((*compiler.command, *compiler.compile_flags, *compiler.link_flags, *output), folder)
        if problem is not None:
            raise _DoesNotWork(f"it cannot build a library: {_first_error(problem)}")
        if not (folder / "trial.so").is_file():
            raise _DoesNotWork("it cannot build a library: it wrote none")


def _first_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0])
