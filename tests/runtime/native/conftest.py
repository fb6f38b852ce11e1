"""The C compiler of this machine, a cache for the session, and compilers made of shell scripts."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from fusible.runtime.native.compiler import Compiler, find_compiler
from fusible.runtime.native.library import build_library
from fusible.runtime.native.loading import load_library
from fusible.runtime.native.pool import load_pool_library

HERE = Path(__file__).parent


def script(path: Path, body: str) -> Path:
    """Write an executable shell script."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def wrapped(path: Path, compiler: Compiler, version: str = "wrapped 1", before: str = "") -> Path:
    """Write a script that is the compiler, with another version; `before` runs first, unless the version is asked."""
    command = " ".join(compiler.command)
    answer = f'case " $* " in *" --version "*) echo "{version}"; exit;; esac'
    return script(path, f'{answer}\n{before}\nexec {command} "$@"')


@pytest.fixture(scope="session")
def compiler() -> Compiler:
    """Return the compiler of this machine."""
    return find_compiler(os.environ)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache that all tests share which do not test the cache."""
    return tmp_path_factory.mktemp("native") / "cache"


@pytest.fixture(scope="session")
def pool_library(compiler: Compiler, cache_dir: Path) -> ctypes.CDLL:
    """Return the loaded library that holds the pool."""
    return load_pool_library(compiler, cache_dir=cache_dir)


@pytest.fixture(scope="session")
def checks(compiler: Compiler, cache_dir: Path) -> ctypes.CDLL:
    """Return the functions of pool_checks.c, a library that includes pool.h and does not hold pool.c."""
    source = {"pool_checks.c": (HERE / "pool_checks.c").read_text()}
    library = load_library(build_library(source, compiler, cache_dir=cache_dir))
    pointer, long = ctypes.c_void_p, ctypes.c_long
    signatures: dict[str, tuple[type | None, tuple[type, ...]]] = {
        "count": (None, (pointer, pointer, long)),
        "many_runs": (long, (pointer, long, long)),
        "threads_of_items": (None, (pointer, pointer, pointer, long)),
        "meet": (None, (pointer, pointer, long)),
        "nested": (None, (pointer, pointer, pointer, long, long)),
        "wait_together": (None, (pointer, long, long)),
        "halve": (None, (pointer, pointer, long)),
        "float_control": (ctypes.c_uint, ()),
        "set_float_control": (None, (ctypes.c_uint,)),
        "flushing": (ctypes.c_uint, (ctypes.c_uint,)),
        "knows_float_control": (ctypes.c_int, ()),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, list(arguments)
    return library
