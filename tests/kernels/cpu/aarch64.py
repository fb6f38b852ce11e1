"""Run the tests of kernels as aarch64 code under qemu-user: the same tests, in an aarch64 Python, on cross-compiled C.

    python -m tests.kernels.cpu.aarch64 --setup              # fetches that Python and its NumPy, once
    python -m tests.kernels.cpu.aarch64 [PYTEST_ARGUMENTS...]

Needs qemu-aarch64 and aarch64-linux-gnu-gcc (Debian: apt-get install qemu-user gcc-aarch64-linux-gnu
libc6-dev-arm64-cross). The setup needs apt-get, dpkg and pip, no privileges: Debian packages of Python 3.11 for arm64
and wheels for aarch64 are unpacked into $FUSIBLE_CACHE_DIR/aarch64 (by default ~/.cache/fusible/aarch64). The compiler
runs on this processor: an emulated process may start programs of the host. Emulation is some 20 times slower than the
machine.

Exit code 2, naming what is missing, if something is.
"""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fusible.benchmarks.zoo.wheels import cache_directory
from tests.kernels.cpu.sanitized import with_suites

__all__ = ["main", "missing"]

ROOT = Path(__file__).parents[3]
SUITES = ("tests/kernels/cpu", "tests/compiler/cpu/test_printed.py", "tests/runtime/native/test_pool.py")
TOOLS = {"qemu-aarch64": "qemu-user", "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"}
# What cannot be emulated: other aarch64 programs started from this one, a fork of a process with threads, what the
# kernel says about threads (it means the emulator's), sanitizers.
_POOL = "tests/runtime/native/test_pool.py::test_"
_LEFT_OUT = (
    "tests/kernels/cpu/test_sanitized.py",
    *(
        _POOL + name
        for name in (
            "a_forked_child_has_workers_of_its_own",
            "a_child_forked_during_a_run_of_another_thread",
            "a_child_that_may_not_use_the_pinned_processor",
            "a_pool_closed_in_a_child_without_having_been_used",
            "ctrl_c_reaches_python",
            "workers_block_the_signals_that_are_the_programs",
            "one_processor_only",
            "a_processor_that_may_not_be_used_is_refused",
            "sanitizers_find_nothing",
        )
    ),
)
PYTHON = "3.11"  # of Debian 12
_MIRROR = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main"
_WHEELS = ("numpy", "ml_dtypes", "pytest", "hypothesis", "onnx", "rich", "typer")
_PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
_WRAPPER = """\
#!/bin/sh
# The cross-compiler takes no -mcpu=native; the emulated processor has what armv8.2-a has.
for word; do shift; case $word in -mcpu=native) word=-march=armv8.2-a;; esac; set -- "$@" "$word"; done
exec aarch64-linux-gnu-gcc "$@"
"""


def folder() -> Path:
    """Where the aarch64 Python lies."""
    return cache_directory().parent / "aarch64"


def missing() -> list[str]:
    """What is not there and how to get it."""
    found = [f"{tool} (apt-get install {package})" for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if not (folder() / "root" / "usr" / "bin" / f"python{PYTHON}").exists() or not (folder() / "site").exists():
        found.append("a Python for aarch64 (python -m tests.kernels.cpu.aarch64 --setup)")
    return found


def setup() -> None:
    """Unpack Debian's Python for arm64 and the wheels that the tests need."""
    state, root = folder() / "apt", folder() / "root"
    for name in ("lists/partial", "archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    (state / "sources.list").write_text(_MIRROR + "\n")
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
        "Dir::Etc::SourceList": state / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
    }
    apt = ["apt-get", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    subprocess.run([*apt, "update"], check=True)
    packages = [f"python{PYTHON}", f"libpython{PYTHON}", "libstdc++6"]  # NumPy needs the last one
    subprocess.run([*apt, "install", "-d", "-y", "--no-install-recommends", *packages], check=True)
    for package in sorted((state / "archives").glob("*.deb")):
        if not package.name.startswith(("tar_", "dpkg_")):
            subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    platforms = [word for platform in _PLATFORMS for word in ("--platform", platform)]
    wheels = [f"{name}=={importlib.metadata.version(name)}" for name in _WHEELS]
    pip = [sys.executable, "-m", "pip", "install", "--only-binary", ":all:", "--implementation", "cp"]
    target = ["--python-version", PYTHON, "--target", str(folder() / "site")]
    subprocess.run([*pip, *platforms, *target, *wheels], check=True)


def command(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words and the environment of an emulated pytest."""
    compiler = folder() / "cc"
    compiler.write_text(_WRAPPER)
    compiler.chmod(0o755)
    root, qemu = folder() / "root", shutil.which("qemu-aarch64")
    assert qemu is not None
    around = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONHOME")}
    around |= {
        "QEMU_LD_PREFIX": str(root),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder() / "site")]),
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "FUSIBLE_TEST_CC": shlex.quote(str(compiler)),
        "CC": shlex.quote(str(compiler)),
    }
    python = [qemu, str(root / "usr" / "bin" / f"python{PYTHON}")]
    left_out = [word for name in _LEFT_OUT for word in ("--deselect", name)]
    return [*python, "-m", "pytest", "-p", "no:cacheprovider", *left_out, *with_suites(arguments, SUITES)], around


def main(arguments: Sequence[str]) -> int:
    """Set up, or run the tests: pytest's own arguments, by default the tests of kernels and of the thread pool."""
    if list(arguments) == ["--setup"]:
        setup()
        return 0
    if lacking := missing():
        sys.stderr.write(f"the aarch64 tests cannot run here; missing: {'; '.join(lacking)}\n")
        return 2
    words, around = command(arguments)
    return subprocess.run(words, cwd=ROOT, env=around, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
