"""What doctor says of C compilers and GPUs, from made-up programs."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from fusible.cli.machine import c_compiler, gpus
from fusible.runtime.native.compiler import find_compiler
from tests.runtime.native.conftest import wrapped


def program(folder: Path, name: str, text: str, status: int = 0) -> None:
    """Write an executable that prints a text."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{text}'\nexit {status}\n")
    path.chmod(0o755)


def test_c_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # no ziglang
    environment = {"PATH": str(tmp_path)}
    assert c_compiler(environment) is None
    real = find_compiler(os.environ)
    for name in ("gcc", "mycc"):
        wrapped(tmp_path / name, real, version=f"{name} 12\nmore")
    assert c_compiler(environment) == {"command": "gcc", "path": str(tmp_path / "gcc"), "version": "gcc 12"}
    found = c_compiler({**environment, "CC": "mycc -m64"})
    assert found == {"command": "mycc -m64", "path": str(tmp_path / "mycc"), "version": "mycc 12"}
    program(tmp_path, "cc", "broken", status=1)
    assert c_compiler(environment) == {"command": "gcc", "path": str(tmp_path / "gcc"), "version": "gcc 12"}
    problem = c_compiler({**environment, "CC": "cc"})
    assert problem is not None and list(problem) == ["problem"]
    assert "'cc', does not work" in problem["problem"]


def test_gpus(tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path)}
    assert gpus(environment) == []
    program(tmp_path, "nvidia-smi", "GPU 0: one\nGPU 1: two")
    assert gpus(environment) == ["GPU 0: one", "GPU 1: two"]
    program(tmp_path, "nvidia-smi", "no driver", status=9)
    assert gpus(environment) == []
