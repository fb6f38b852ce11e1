"""The example: a trained model tells which side of a page of text is up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.network
@pytest.mark.parametrize("target", ["auto", "numpy"])
def test_the_example_answers_rightly(target):
    command = [sys.executable, str(ROOT / "examples" / "orientation.py"), "--target", target]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for line, degrees in zip(done.stdout.splitlines(), (0, 90, 180, 270), strict=True):
        assert f"rotated by {degrees:3d} degrees: the model says {degrees:3d}" in line
