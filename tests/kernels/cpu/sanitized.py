"""Run the tests of kernels under AddressSanitizer and UndefinedBehaviourSanitizer.

    python -m tests.kernels.cpu.sanitized [PYTEST_ARGUMENTS...]

Everything C is compiled with the sanitizers: the kernels for every instruction set (tests/kernels/cpu), and the printed
kernels of small models (tests/compiler/cpu). AddressSanitizer must be loaded before Python, hence a process of its own.
The first finding ends it with the sanitizer's report. Exit code 2 if the compiler has no sanitizers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["FLAGS", "SUITES", "environment", "main", "preloaded", "with_suites"]

ROOT = Path(__file__).parents[3]
FLAGS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")
SUITES = ("tests/kernels/cpu", "tests/compiler/cpu")
_PROGRAM = "int main(void) { return 0; }\n"


def preloaded(compiler: str) -> Path | None:
    """The library of AddressSanitizer, None if programs built with the sanitizers do not run here."""
    with tempfile.TemporaryDirectory(prefix="fusible-sanitized-") as name:
        source, program = Path(name) / "empty.c", Path(name) / "empty"
        source.write_text(_PROGRAM)
        built = subprocess.run([compiler, *FLAGS, str(source), "-o", str(program)], capture_output=True, check=False)
        if built.returncode != 0 or subprocess.run([str(program)], capture_output=True, check=False).returncode != 0:
            return None
    for library in ("libasan.so", "libclang_rt.asan-x86_64.so", "libclang_rt.asan-aarch64.so"):
        found = subprocess.run([compiler, f"-print-file-name={library}"], capture_output=True, text=True, check=False)
        path = Path(found.stdout.strip())
        if path.is_absolute() and path.exists():
            return path.resolve()
    return None


def environment(compiler: str, library: Path, cache: Path) -> dict[str, str]:
    """What the tests need around them to compile with the sanitizers and to be watched."""
    inherited: Mapping[str, str] = os.environ
    added = {
        "LD_PRELOAD": str(library),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",  # Python never frees all that it has
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "FUSIBLE_TEST_CC": compiler,
        "FUSIBLE_TEST_CFLAGS": " ".join(FLAGS),
        "CC": f"{compiler} {' '.join(FLAGS)}",
        "FUSIBLE_CACHE_DIR": str(cache),
    }
    return {**inherited, **added}


def with_suites(arguments: Sequence[str], suites: Sequence[str]) -> list[str]:
    """Pytest's arguments; the suites where they name no file."""
    named = any((ROOT / word.split("::")[0]).exists() for word in arguments if not word.startswith("-"))
    return [*(arguments or ["-q"]), *(() if named else suites)]


def main(arguments: Sequence[str]) -> int:
    """Run pytest so; the arguments are its own, by default all suites of C kernels."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    library = preloaded(compiler) if compiler is not None else None
    if compiler is None or library is None:
        sys.stderr.write(f"{compiler or 'no C compiler found; it'} cannot build and run with {FLAGS[0]}: install gcc\n")
        return 2
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *with_suites(arguments, SUITES)]
    with tempfile.TemporaryDirectory(prefix="fusible-sanitized-") as cache:
        around = environment(compiler, library, Path(cache))
        return subprocess.run(command, cwd=ROOT, env=around, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
