"""Kernels whose launch may begin while the one before it in the stream still runs.

On Hopper and later a kernel can be launched with "programmatic stream serialization": its programs are set up while the
last programs of its predecessor run, and wait by `griddepcontrol.wait` until all that the predecessor wrote is visible
(CUDA C++ Programming Guide, "Programmatic Dependent Launch and Synchronization"; PTX ISA, "griddepcontrol"). A kernel
that waits before its first load or store sees what it would see after a plain launch, and its predecessor had waited
in the same way, so memory may be used again as before. What is gained is the time to launch: about a microsecond.
"""

from __future__ import annotations

import re

from fusible.compiler.backends.triton.gpu_targets import GpuTarget

__all__ = ["can_overlap", "with_wait"]

_SINCE = 90  # the first architecture that has the instruction

_IMPORT = "from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait\n"
_WAIT = "    gdc_wait()\n    gdc_launch_dependents()\n"


def can_overlap(target: GpuTarget) -> bool:
    """True for a GPU that lets a kernel be launched before its predecessor has ended."""
    return target.backend == "cuda" and int(target.architecture) >= _SINCE


def with_wait(source: str, entry: str) -> str:
    """The text of a kernel file whose function `entry` waits for its predecessor before all else.

    Once it has, its own successor may be launched. Raises ValueError if there is no such function with its head on one
    line, as printers write it.
    """
    head = re.compile(rf"^def {re.escape(entry)}\(.*\):\n", re.MULTILINE)
    waiting, found = head.subn(lambda match: match.group() + _WAIT, source)
    if found != 1:
        raise ValueError(f"the kernel's text has {found} functions {entry!r} with their head on one line, expected one")
    first = re.search(r"^import triton\n", waiting, re.MULTILINE)
    if first is None:
        raise ValueError("the kernel's text does not import triton on a line of its own")
    return waiting[: first.end()] + _IMPORT + waiting[first.end() :]
