"""`fusible doctor`: what this machine and installation offer."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

from fusible.cli.console import aligned, bytes_text, print_json, print_line
from fusible.cli.machine import c_compiler, gpus
from fusible.cli.parameters import JsonOption
from fusible.errors import DeviceError
from fusible.runtime.native.machine import cgroup_cpus, cpu, memory_limit, usable_threads
from fusible.version import __version__

__all__ = ["doctor"]

PACKAGES = ("numpy", "ml_dtypes", "onnx", "onnxruntime", "triton", "torch", "ziglang")
# Libraries under NumPy read these when they load.
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def doctor(json_output: JsonOption = False) -> None:
    """Show the toolchain, processor features, threads, memory and GPUs, and the targets for which it compiles here."""
    facts = examine()
    if json_output:
        print_json(facts)
        return
    for line in aligned({name: _shown(name, value) for name, value in facts.items()}):
        print_line(line)


def examine() -> dict[str, object]:
    """Return the facts, by name, as plain data."""
    return {
        "fusible": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "processor": cpu(),
        "processors": {"online": os.cpu_count(), "usable": usable_threads(), "quota": cgroup_cpus()},
        "memory_bytes": memory_limit(),
        "c_compiler": c_compiler(os.environ),
        "gpus": gpus(os.environ),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "targets": _targets(),
    }


def _targets() -> dict[str, str]:
    from fusible.compiler.targets import TARGETS, resolve_target

    facts = {name: _usable(name) for name in TARGETS if name != "auto"}
    return {"auto": resolve_target("auto")[0], **facts}


def _usable(target: str) -> str:
    from fusible.compiler.targets import GPU_TARGETS, check_target

    try:
        check_target(target)
    except DeviceError as missing:
        return str(missing)
    return "can be built" if target in GPU_TARGETS else "usable"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _shown(name: str, value: object) -> str:
    match name, value:
        case "memory_bytes", int():
            return bytes_text(value)
        case "processor", {"name": title, "features": list(features)}:
            return f"{title}: {' '.join(map(str, features)) or 'no features known'}"
        case "c_compiler", {"path": path, "version": version}:
            return f"{path}: {version}"
        case "c_compiler", {"problem": problem}:
            return str(problem)
        case _, dict():
            return ", ".join(f"{key} {'-' if item is None else item}" for key, item in value.items()) or "-"
        case _, list():
            return ", ".join(map(str, value)) or "none"
        case _, None:
            return "none"
        case _:
            return str(value)
