"""Kernels that read their sizes from memory: the numbers of a launch are then no part of a captured graph.

The text changes at the head of the kernel's function alone, so it computes what it did, to the bit: programs beyond
those that have work return at once, and the sizes that were arguments are loaded. Any kernel can be had so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from fusible.runtime.devices.buckets import BucketPlan, bucket_plan, has_symbols
from fusible.runtime.devices.code import SIZES, DeviceKernel
from fusible.runtime.plan import Plan

__all__ = ["sized", "sized_for"]

_WIDTHS = {f"{sign}{bits}": f"tl.{'u' * (sign == 'u')}int{bits}" for bits in (8, 16, 32, 64) for sign in "iu"}
_UNKNOWN_ROWS = 0  # the first size of a descriptor's tensor that only a run knows


def sized_for(plan: Plan, kernels: Mapping[str, DeviceKernel]) -> tuple[dict[str, DeviceKernel], str]:
    """The kernels of a plan, those whose launches differ from run to run `sized` if the plan can run by buckets.

    Also the reason why it cannot, "" if it can.
    """
    found = bucket_plan(plan, kernels)
    if not isinstance(found, BucketPlan):
        return dict(kernels), found
    varying = {step.kernel for step in found.launches if has_symbols(step)}
    return {name: sized(kernel) if name in varying else kernel for name, kernel in kernels.items()}, ""


def sized(kernel: DeviceKernel) -> DeviceKernel:
    """A kernel that reads its numbers from memory. Raises ValueError if its head is not as printers write it.

    Descriptors of tensors with an unknown number of rows are made by the kernel: those of the host would be as large as
    what is launched for, and read beyond the arrays of smaller runs.
    """
    name, type_ = SIZES
    pointers = [each for each in kernel.arguments if each[1].startswith("*")]
    own = len(pointers) - kernel.own_pointers
    arguments = (*pointers[:own], SIZES, *pointers[own:])
    lines = [f"    if tl.program_id(0) >= tl.load({name}):", "        return"]
    for number, (size, kind) in enumerate(kernel.numbers, 1):
        cast = "" if kind == type_.removeprefix("*") else f".to({_WIDTHS[kind]})"
        lines.append(f"    {size} = tl.load({name} + {number}){cast}")
    head = re.compile(rf"^@triton.jit\ndef {re.escape(kernel.entry)}\((.*)\):\n", re.MULTILINE)
    given = [argument for argument, _ in kernel.arguments]

    def rewritten(match: re.Match[str]) -> str:
        parameters = match[1].split(", ")
        if parameters[: len(given)] != given:
            raise ValueError(f"the kernel {kernel.entry!r} takes {match[1]}, expected {', '.join(given)} first")
        changed = ", ".join([*(argument for argument, _ in arguments), *parameters[len(given) :]])
        return f"@triton.jit\ndef {kernel.entry}({changed}):\n" + "".join(f"{line}\n" for line in lines)

    source, found = head.subn(rewritten, kernel.source)
    if found != 1:
        raise ValueError(f"the kernel's text has {found} functions {kernel.entry!r} with their head on one line")
    tensors = tuple(tensor for tensor in kernel.tensors if tensor.shape[0] != _UNKNOWN_ROWS)
    return replace(kernel, source=source, arguments=arguments, sizes=kernel.numbers, tensors=tensors)
