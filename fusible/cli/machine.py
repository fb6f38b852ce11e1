"""Facts about this machine that only `fusible doctor` shows: the C compiler, the GPUs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from fusible.errors import DeviceError
from fusible.runtime.native.compiler import find_compiler

__all__ = ["c_compiler", "gpus"]

SECONDS = 10


def c_compiler(environment: Mapping[str, str]) -> dict[str, str] | None:
    """Return command, path and version of the compiler used, None if there is none, a problem if CC does not work."""
    try:
        found = find_compiler(environment)
    except DeviceError as error:
        return {"problem": str(error)} if environment.get("CC") else None
    program, *arguments = found.command
    return {"command": " ".join([Path(program).name, *arguments]), "path": program, "version": found.version}


def gpus(environment: Mapping[str, str]) -> list[str]:
    """Return the NVIDIA and AMD GPUs that their drivers' own tools list."""
    found: list[str] = []
    for command in (["nvidia-smi", "-L"], ["rocm-smi", "--showproductname", "--csv"]):
        path = shutil.which(command[0], path=environment.get("PATH"))
        answer = _answer([path, *command[1:]]) if path is not None else None
        found += [] if answer is None else [line for line in answer.split("\n") if line.strip()]
    return found


def _answer(command: list[str]) -> str | None:
    """Return what a command prints, None if it fails, hangs or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
