"""Loading and running native code leaves rounding and denormals as they were.

gcc before 13 links crtfastmath.o into libraries built with -ffast-math; its constructor switches denormals off in the
thread that loads the library.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fusible
from fusible.runtime.native.compiler import Compiler, CompilerKind
from fusible.runtime.native.library import build_library
from fusible.runtime.native.loading import load_library
from fusible.runtime.native.pool import Pool
from tests.runtime import models

SOURCE = '__attribute__((visibility("default"))) float halved(float x) { return x / 2.0f; }\n'
PLANTED = "#include <fenv.h>\n__attribute__((constructor)) static void planted(void) { fesetround(FE_UPWARD); }\n"


@pytest.fixture
def changed(checks: ctypes.CDLL) -> Callable[[Callable[[], object]], bool]:
    """Return a function that tells whether a call changes the floating-point state of this thread, and restores it."""

    def observe(call: Callable[[], object]) -> bool:
        if not checks.knows_float_control():
            pytest.skip("pool_checks.c does not know this processor")
        before = checks.float_control()
        call()
        after = checks.float_control()
        checks.set_float_control(before)
        return bool(before != after)

    return observe


def test_loading_and_running_change_nothing(
    compiler: Compiler,
    cache_dir: Path,
    checks: ctypes.CDLL,
    pool_library: ctypes.CDLL,
    changed: Callable[[Callable[[], object]], bool],
) -> None:
    path = build_library({"halved.c": SOURCE}, compiler, cache_dir=cache_dir)
    library: list[ctypes.CDLL] = []
    assert not changed(lambda: library.append(load_library(path)))
    function = library[0].halved
    function.argtypes, function.restype = [ctypes.c_float], ctypes.c_float
    tiny = float(np.finfo(np.float32).tiny)
    assert not changed(lambda: function(tiny))
    assert function(tiny) == tiny / 2

    def run_on_a_pool() -> None:
        values = np.full(1000, tiny, np.float32)
        with Pool(3, library=pool_library) as pool:
            checks.halve(pool.handle, values.ctypes.data, values.size)

    assert not changed(run_on_a_pool)


def test_a_model_changes_nothing_when_it_is_loaded_and_run(
    tmp_path: Path, changed: Callable[[Callable[[], object]], bool]
) -> None:
    """A convolution on a pool, over denormals: loaded from an artifact, and compiled."""
    exe = fusible.compile(models.conv_relu_add(), target="cpu", options=fusible.Options(threads=2))
    exe.save(tmp_path / "m.fusible")
    x = {"x": np.full((2, 3, 40, 40), np.finfo(np.float32).tiny / 8, np.float32)}
    loaded: list[fusible.Executable] = []
    assert not changed(lambda: loaded.append(fusible.load(tmp_path / "m.fusible")))
    assert not changed(lambda: loaded[0].run(x))
    assert not changed(lambda: fusible.compile(models.conv_relu_add(), target="cpu").run(x))
    assert loaded[0].run(x)["u"].any()  # denormals are computed with, not flushed


def test_the_callers_state_is_used_and_kept(checks: ctypes.CDLL) -> None:
    if not checks.knows_float_control():
        pytest.skip("pool_checks.c does not know this processor")
    exe = fusible.compile(models.conv_relu_add(), target="cpu", options=fusible.Options(threads=2))
    x = {"x": np.full((2, 3, 40, 40), np.finfo(np.float32).tiny / 8, np.float32)}
    usual = checks.float_control()
    flushing = checks.flushing(usual)
    exe.run(x)
    checks.set_float_control(flushing)
    found, after = exe.run(x)["u"], checks.float_control()
    checks.set_float_control(usual)
    assert after == flushing and not found.any()


def test_a_library_that_does_is_noticed(
    compiler: Compiler, cache_dir: Path, changed: Callable[[Callable[[], object]], bool]
) -> None:
    path = build_library({"planted.c": PLANTED}, compiler, cache_dir=cache_dir)
    assert changed(lambda: load_library(path))


def test_fast_math_of_an_old_gcc_is_noticed(
    tmp_path: Path, compiler: Compiler, changed: Callable[[Callable[[], object]], bool]
) -> None:
    if compiler.kind is not CompilerKind.GCC or _major(compiler) >= 13:
        pytest.skip("only gcc before 13 links crtfastmath.o into a library")
    (tmp_path / "fast.c").write_text(SOURCE)
    command = [*compiler.command, "-O2", "-ffast-math", "-shared", "-fPIC", "-o", "fast.so", "fast.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert changed(lambda: ctypes.CDLL(str(tmp_path / "fast.so")))


def _major(compiler: Compiler) -> int:
    answer = subprocess.run([*compiler.command, "-dumpversion"], capture_output=True, text=True, check=True)
    return int(answer.stdout.split(".")[0])
