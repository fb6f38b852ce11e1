"""The command that runs kernel tests under sanitizers: it passes on a sample, and finds what is planted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.cpu.sanitized import ROOT, preloaded

SAMPLE = "tests/kernels/cpu/test_softmax.py"
PLANTED = '''
import ctypes
import numpy as np
import pytest
from tests.kernels.cpu.harness import compile_c, pointer

SOURCES = {
    "address": "void run(float *x, int n) { x[n] = 1; }",
    "undefined": "int run(float *x, int n) { return 0x7fffffff + n + (int)x[0]; }",
}

@pytest.mark.parametrize("kind", SOURCES)
def test_planted(kind):
    x = np.zeros(10, np.float32)
    compile_c(SOURCES[kind], "plain").run(pointer(x), ctypes.c_int(10))
'''


def sanitized(*arguments: str) -> subprocess.CompletedProcess[str]:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or preloaded(compiler) is None:
        pytest.skip("the compiler has no sanitizers here")
    command = [sys.executable, "-m", "tests.kernels.cpu.sanitized", "-q", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_sample_passes() -> None:
    done = sanitized(SAMPLE, "-k", "every_kind_of_tail and (1001 or 33)")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "report"), [("address", "heap-buffer-overflow"), ("undefined", "integer overflow")])
def test_what_is_planted_is_found(tmp_path: Path, kind: str, report: str) -> None:
    (tmp_path / "test_planted.py").write_text(PLANTED)
    done = sanitized(str(tmp_path / "test_planted.py"), "-k", kind, "-s", f"--rootdir={ROOT}")
    assert done.returncode != 0 and report in done.stdout + done.stderr, done.stdout + done.stderr
