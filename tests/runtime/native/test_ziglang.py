"""With the ziglang wheel and no compiler on the search path a model compiles natively, runs, is saved and loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fusible.benchmarks.zoo.wheels import cache_directory

ROOT = Path(__file__).parents[3]
REQUIREMENT = "ziglang==0.16.0"

PROGRAM = """
import os, sys
import numpy as np
import fusible
from fusible.runtime.native.compiler import CompilerKind, find_compiler
from tests.runtime import models
from tests.tolerance import assert_outputs_close

compiler = find_compiler(os.environ)
assert compiler.kind is CompilerKind.ZIG and compiler.origin == "the ziglang wheel", compiler
exe = fusible.compile(models.conv_relu_add(), options=fusible.Options(threads=2))
assert exe.target == "cpu" and exe.report.host == (), exe.report.host
x = {"x": np.random.default_rng(0).standard_normal((2, 3, 9, 7), dtype=np.float32)}
assert_outputs_close(exe.run(x), fusible.compile(models.conv_relu_add(), target="numpy").run(x))
exe.save("m.fusible")
again = fusible.load("m.fusible").run(x)
assert all(np.array_equal(again[name], y) for name, y in exe.run(x).items())
"""


def installed() -> Path:
    """The folder that holds the wheel, which is fetched once into the cache."""
    folder = cache_directory().parent / REQUIREMENT.replace("==", "-")
    if not (folder / "ziglang").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*pip, "--target", str(folder), REQUIREMENT], check=True, timeout=600)
    return folder


@pytest.mark.network
@pytest.mark.slow
def test_the_wheel_alone(tmp_path: Path) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("CC", "VIRTUAL_ENV")}
    environment |= {"PATH": str(empty), "HOME": str(tmp_path), "FUSIBLE_CACHE_DIR": str(tmp_path / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(installed())])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
