"""Where AVX512_BF16 is, every inner loop of the bf16 kernels multiplies by its instruction and spills nothing.

This machine need not have the instructions: objects are built and read, not run.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.kernels.cpu import test_convolution_bf16, test_gemm_bf16
from tests.kernels.cpu.harness import HEADERS
from tests.runtime.native.test_ziglang import installed

_SOURCES = {"gemm": test_gemm_bf16.SOURCE, "convolution": test_convolution_bf16.BF16_SOURCE}
_FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-std=gnu11", "-fPIC", "-Werror")
_GCC = ("-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16")
_ZIG = ("-target", "x86_64-linux-gnu", "-mcpu=znver4")
_LARGEST = 28  # accumulators of the largest tile
_FUNCTION = re.compile(r"\n(?=[0-9a-f]+ <)")
_INSTRUCTION = re.compile(r"^\s+([0-9a-f]+):\t(.*)$", re.MULTILINE)
_JUMP = re.compile(r"j\w+\s+([0-9a-f]+)")
_SPILL = re.compile(r"zmm.*\(%r[sb]p|\(%r[sb]p[^)]*\),%zmm")


def inner_loops(disassembly: str) -> Iterator[list[str]]:
    """The instructions of each innermost loop that multiplies bf16."""
    for function in _FUNCTION.split(disassembly):
        places = [(int(at, 16), text) for at, text in _INSTRUCTION.findall(function)]
        jumps = [(int(found[1], 16), at) for at, text in places if (found := _JUMP.match(text))]
        loops = {}
        for first, last in jumps:
            body = [text for at, text in places if first <= at <= last]
            if first < last and any("vdpbf16ps" in text for text in body):
                loops[first, last] = body
        for (first, last), body in loops.items():
            if not any((a, b) != (first, last) and first <= a and b <= last for a, b in loops):
                yield body


def disassembled(command: Sequence[str], source: str, folder: Path, environment: Mapping[str, str]) -> str:
    (folder / "kernel.c").write_text(source)
    built = [*command, *_FLAGS, "-Wno-psabi", f"-I{HEADERS}", "-c", "kernel.c", "-o", "kernel.o"]
    done = subprocess.run(built, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read = ["objdump", "-d", "--no-show-raw-insn", "kernel.o"]
    return subprocess.run(read, cwd=folder, capture_output=True, text=True, check=True).stdout


def check(disassembly: str) -> None:
    loops = list(inner_loops(disassembly))
    products = [sum("vdpbf16ps" in text for text in body) for body in loops]
    assert products.count(_LARGEST) >= 2, products  # with hooks inlined, and without
    for body in loops:
        assert not [text for text in body if _SPILL.search(text)], "\n".join(body)
        assert not [text for text in body if "vfmadd" in text or "vpslld" in text], "\n".join(body)


def _needs(*tools: str) -> None:
    if platform.machine() != "x86_64" or not all(map(shutil.which, tools)):
        pytest.skip(f"needs an x86-64 machine with {' and '.join(tools)}")


@pytest.mark.parametrize("kernel", _SOURCES)
def test_gcc(kernel: str, tmp_path: Path) -> None:
    _needs("gcc", "objdump")
    check(disassembled(["gcc", *_GCC], _SOURCES[kernel], tmp_path, os.environ))


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("kernel", _SOURCES)
def test_the_clang_of_the_ziglang_wheel(kernel: str, tmp_path: Path) -> None:
    _needs("objdump")
    environment = {**os.environ, "PYTHONPATH": str(installed())}
    command = [sys.executable, "-m", "ziglang", "cc", *_ZIG]
    check(disassembled(command, _SOURCES[kernel], tmp_path, environment))


def test_a_spill_is_noticed() -> None:
    loop = "\n0000000000000000 <f>:\n" + "".join(
        f"  {at:x}:\t{text}\n"
        for at, text in enumerate([*["vdpbf16ps %zmm1,%zmm2,%zmm3"] * 28, "vmovaps %zmm9,0x40(%rsp)", "jne    0 <f>"])
    )
    with pytest.raises(AssertionError, match="zmm9"):
        check(loop * 2)
