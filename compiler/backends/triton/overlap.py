"""Kernels whose launch may begin while the one before it in the stream still runs.

On Hopper and later a kernel can be launched with "programmatic stream serialization": its programs are set up while the
last programs of its predecessor run, and wait by `griddepcontrol.wait` until all that the predecessor wrote is visible
(CUDA C++ Programming Guide, "Programmatic Dependent Launch and Synchronization"; PTX ISA, "griddepcontrol"). A kernel
that waits before its first load or store sees what it would see after a plain launch, and its predecessor had waited
in the same way, so memory may be used again as before. What is gained is the time to launch: about a microsecond.

While it waits it can have its weights brought into the L2 cache: nothing that runs before it writes those. A small
batch needs each weight once and computes little, so that its kernels mostly wait for memory otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fusible.compiler.backends.triton.gpu_targets import GpuTarget

__all__ = ["can_overlap", "with_wait"]

_SINCE = 90  # the first architecture that has the instruction

_IMPORT = "from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait\n"
_WAIT = "    gdc_wait()\n    gdc_launch_dependents()\n"
_LINE = 128  # bytes of the L2 cache that are fetched together
_MOST = 16 << 20  # bytes that are fetched ahead: a part of the L2 cache, where much else is to stay
_FETCH = """
@triton.jit
def fetch_ahead(pointer, LINES: tl.constexpr, BLOCK: tl.constexpr):
    bytes = pointer.to(tl.pointer_type(tl.int8))
    for first in range(tl.program_id(0) * BLOCK, LINES, tl.num_programs(0) * BLOCK):
        line = tl.minimum(first + tl.arange(0, BLOCK), LINES - 1)
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; // dummy $0", "=r,l", [bytes + line.to(tl.int64) * 128],
            dtype=tl.int32, is_pure=False, pack=1,
        )


"""


def can_overlap(target: GpuTarget) -> bool:
    """True for a GPU that lets a kernel be launched before its predecessor has ended."""
    return target.backend == "cuda" and int(target.architecture) >= _SINCE


def with_wait(source: str, entry: str, fixed: Mapping[str, int] | None = None, threads: int = 128) -> str:
    """The text of a kernel file whose function `entry` waits for its predecessor before all else.

    Once it has, its own successor may be launched. fixed: bytes of arguments that nothing writes, which are fetched
    into the L2 cache before it waits, by all programs together; threads: of a program. Raises ValueError if there is no
    such function with its head on one line, as printers write it.
    """
    head = re.compile(rf"^@triton.jit\ndef {re.escape(entry)}\(.*\):\n", re.MULTILINE)
    lines = {name: min(nbytes, _MOST) // _LINE for name, nbytes in (fixed or {}).items()}
    fetched = "".join(f"    fetch_ahead({name}, {n}, {threads})\n" for name, n in lines.items() if n)
    before = _FETCH if fetched else ""
    waiting, found = head.subn(lambda match: before + match.group() + fetched + _WAIT, source)
    if found != 1:
        raise ValueError(f"the kernel's text has {found} functions {entry!r} with their head on one line, expected one")
    first = re.search(r"^import triton\n", waiting, re.MULTILINE)
    if first is None:
        raise ValueError("the kernel's text does not import triton on a line of its own")
    return waiting[: first.end()] + _IMPORT + waiting[first.end() :]
