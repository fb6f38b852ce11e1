"""Descriptors of tensors that the host makes: parameters of a kernel in place of lines of its text.

A printed kernel makes the descriptors of its operands itself, so that its text runs anywhere. Where there is a tensor
memory accelerator (Hopper and later) that costs each program about a microsecond, a place in global memory and a fence;
a descriptor that the host makes lies among the parameters (CUDA C++ Programming Guide, "Using TMA to transfer
multi-dimensional arrays"; CUDA Driver API reference, "Tensor Map Object Management").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.launch import LaunchRule
from fusible.runtime.devices.code import TensorBlock, TensorMap

__all__ = ["has_tensor_memory", "maps_of", "tensor_line", "tensor_types", "with_parameters", "wrong_parameters"]

_SINCE = 90
_KINDS = {"fp16": 6, "bf16": 9, "fp32": 7, "i8": 0, "u8": 0}  # CUtensorMapDataType; signed bytes are copied as others
_ITEMSIZES = {"fp16": 2, "bf16": 2, "fp32": 4, "i8": 1, "u8": 1}
_PARAMETER = re.compile(r"\.param \.(?:align 64 \.)?(\w+)[^,\n]*")


def has_tensor_memory(target: GpuTarget) -> bool:
    """True for a GPU whose tensor memory accelerator reads descriptors out of a kernel's parameters."""
    return target.backend == "cuda" and int(target.architecture) >= _SINCE


def tensor_line(tensor: TensorBlock, rows: str) -> str:
    """The line of a kernel's text that makes a descriptor. rows: the first size, a number or an expression."""
    base = f"{tensor.argument} + {tensor.offset}" if tensor.offset else tensor.argument
    shape = ", ".join([rows, *map(str, tensor.shape[1:])])
    return f"    {tensor.name} = tl.make_tensor_descriptor({base}, [{shape}], {[*tensor.strides]}, {[*tensor.block]})\n"


def with_parameters(source: str, entry: str, tensors: Sequence[TensorBlock]) -> str:
    """The text of a kernel file whose function `entry` is given the descriptors, behind its numbers.

    Raises ValueError if it does not make them on lines as `tensor_line` has them.
    """
    for tensor in tensors:
        line = re.compile(rf"^    {tensor.name} = tl\.make_tensor_descriptor\(.*\)\n", re.MULTILINE)
        source, found = line.subn("", source)
        if found != 1:
            raise ValueError(f"{found} lines of the kernel's text make the descriptor {tensor.name}, expected one")
    names = ", ".join(tensor.name for tensor in tensors)
    head = re.compile(rf"^def {re.escape(entry)}\(((?:\w+, )*)(?=\w+: tl\.constexpr)", re.MULTILINE)
    made, found = head.subn(lambda match: f"{match.group()}{names}, ", source)
    if found != 1:
        raise ValueError(f"the kernel's text has {found} functions {entry!r} with constants, expected one")
    return made


def tensor_types(rule: LaunchRule) -> dict[str, str]:
    """The types of the parameters, in Triton's spelling."""
    return {t.name: f"tensordesc<{_element(rule, t)}{list(t.block)}>".replace(" ", "") for t in rule.tensors}


def maps_of(rule: LaunchRule, facts: Sequence[Mapping[str, Any]]) -> tuple[TensorMap, ...]:
    """What the host is to make. facts: Triton's `tensordesc_meta`, in the order of the parameters."""
    found = []
    for tensor, known in zip(rule.tensors, facts, strict=True):
        element = _element(rule, tensor)
        box = tuple(int(n) for n in known["block_size"])
        found.append(TensorMap(tensor, box, _KINDS[element], int(known["swizzle"]), _ITEMSIZES[element]))
    return tuple(found)


def wrong_parameters(ptx: str, rule: LaunchRule) -> str:
    """What is wrong with a built kernel's parameters; "" if they are as launches will give them.

    Pointers and numbers, then for each tensor its descriptor, sizes and strides, then two pointers to scratch memory.
    """
    start = ptx.index(f".entry {rule.kernel}(")
    found = _PARAMETER.findall(ptx[start : ptx.index(")", start)])
    wanted = [_parameter(argument.type) for argument in rule.arguments]
    for tensor in rule.tensors:
        wanted += ["b8", *["u32"] * len(tensor.shape), *["u64"] * len(tensor.shape)]
    wanted += ["u64", "u64"]
    return "" if found == wanted else f"its parameters are {', '.join(found)}, expected {', '.join(wanted)}"


def _parameter(type_: str) -> str:
    return "u64" if type_.startswith("*") else f"u{type_[1:]}"


def _element(rule: LaunchRule, tensor: TensorBlock) -> str:
    (type_,) = [a.type for a in rule.arguments if a.name == tensor.argument]
    return type_.removeprefix("*")
