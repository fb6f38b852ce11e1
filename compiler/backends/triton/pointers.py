"""What is known of pointers before a kernel is lowered: whose memory they point into, and how they step along a row."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from fusible.compiler.backends.triton.ttir import (
    Descriptor,
    Function,
    Operation,
    Pointer,
    Region,
    Value,
    element_of,
    shape_of,
)

__all__ = ["pointed_arguments", "row_strides"]

_INTEGER = re.compile(r"dense<(-?\d+)>|(-?\d+)")


def pointed_arguments(function: Function) -> dict[Value, frozenset[int]]:
    """Return for each pointer or descriptor the numbers of the arguments whose memory it may point into.

    An address made of an integer or read from memory may be any: it is missing.
    """
    found: dict[Value, frozenset[int]] = {
        value: frozenset({number})
        for number, value in enumerate(function.arguments)
        if isinstance(value.type, Pointer | Descriptor)
    }
    unknown: set[Value] = set()

    def join(target: Value, sources: Sequence[Value]) -> bool:
        before = (found.get(target), target in unknown)
        if any(source in unknown for source in sources):
            unknown.add(target)
        found[target] = found.get(target, frozenset()).union(*(found.get(each, frozenset()) for each in sources))
        return before != (found[target], target in unknown)

    def visit(operation: Operation) -> bool:
        results = [value for value in operation.results if _points(value)]
        if operation.name in ("tt.int_to_ptr", "tt.load", "tt.atomic_rmw", "tt.atomic_cas", "tt.descriptor_load"):
            fresh = set(results) - unknown
            unknown.update(results)
            return bool(fresh)
        changed = False
        if not operation.regions:
            sources = [value for value in operation.operands if _points(value)]
            for value in results:
                changed |= join(value, sources)
        for source, target in _handed_over(operation):
            if _points(target):
                changed |= join(target, [source])
        return changed

    changed = True
    while changed:
        changed = False
        for operation in _all(function.body):
            changed |= visit(operation)
    return {value: where for value, where in found.items() if value not in unknown and where}


def row_strides(function: Function) -> dict[Value, int]:
    """Return by how much integer and pointer tensors grow with the last index, in ones or bytes, where known.

    As Triton's own analysis it takes addresses not to overflow within a row.
    """
    known: dict[Value, int] = {}
    refuted: set[Value] = set()
    settled = False
    while not settled:  # what loops carry is believed to step as what they start from, until a yield says otherwise
        known, settled = {}, True
        for operation in _all(function.body):
            for source, target in _handed_over(operation):
                if target not in known and target not in refuted and source in known:
                    known[target] = known[source]
            for value in operation.results if not operation.regions else ():
                stride = _stride(operation, known)
                if stride is not None:
                    known[value] = stride
        for operation in _all(function.body):
            for source, target in _handed_over(operation):
                if target in known and known.get(source) != known[target]:
                    refuted.add(target)
                    settled = False
    return known


def _points(value: Value) -> bool:
    return isinstance(value.type, Descriptor) or isinstance(element_of(value.type), Pointer)


def _all(region: Region) -> list[Operation]:
    """All operations, in the order of execution: those inside an operation behind it."""
    found = []
    for block in region.blocks:
        for operation in block.operations:
            found.append(operation)
            for inner in operation.regions:
                found += _all(inner)
    return found


def _handed_over(operation: Operation) -> list[tuple[Value, Value]]:
    """Which value becomes which: into blocks, back from their ends, and out as results."""
    pairs: list[tuple[Value, Value]] = []
    if operation.name == "scf.for":
        inside = operation.regions[0].blocks[0]
        starts, ends = operation.operands[3:], inside.operations[-1].operands
        pairs += [*zip(starts, inside.arguments[1:], strict=True), *zip(ends, inside.arguments[1:], strict=True)]
        pairs += [*zip(starts, operation.results, strict=True), *zip(ends, operation.results, strict=True)]
    elif operation.name == "scf.if":
        for region in operation.regions:
            pairs += zip(region.blocks[0].operations[-1].operands, operation.results, strict=True)
    elif operation.name == "scf.while":
        before, after = (region.blocks[0] for region in operation.regions)
        handed, back = before.operations[-1].operands[1:], after.operations[-1].operands
        pairs += [*zip(operation.operands, before.arguments, strict=True), *zip(back, before.arguments, strict=True)]
        pairs += [*zip(handed, after.arguments, strict=True), *zip(handed, operation.results, strict=True)]
    return pairs


def _stride(operation: Operation, known: Mapping[Value, int]) -> int | None:
    result = operation.results[0]
    shape = shape_of(result.type)
    if not shape or shape[-1] == 1:
        return 0
    rule = _RULES.get(operation.name)
    strides = [known.get(value) for value in operation.operands]
    if rule is not None:
        stride = rule(operation, strides)
        if stride is not None:
            return stride
    alike = operation.name.startswith(("arith.", "math.")) and operation.operands and all(each == 0 for each in strides)
    return 0 if alike else None


def _scaled(operation: Operation, strides: Sequence[int | None]) -> int | None:
    pointer = element_of(operation.results[0].type)
    assert isinstance(pointer, Pointer)
    base, offset = strides
    return None if base is None or offset is None else base + offset * pointer.pointee.bytes


def _sum(sign: int) -> Callable[[Operation, Sequence[int | None]], int | None]:
    def rule(_: Operation, strides: Sequence[int | None]) -> int | None:
        left, right = strides
        return None if left is None or right is None else left + sign * right

    return rule


def _broadcast(operation: Operation, strides: Sequence[int | None]) -> int | None:
    return 0 if shape_of(operation.operands[0].type)[-1] == 1 else strides[0]


def _expand(operation: Operation, strides: Sequence[int | None]) -> int | None:
    return strides[0]  # the last axis is not the new one, whose extent is 1


def _constant(operation: Operation, _: Sequence[int | None]) -> int | None:
    return 0 if _INTEGER.fullmatch(operation.attributes["value"]) else None


_RULES: dict[str, Callable[[Operation, Sequence[int | None]], int | None]] = {
    "arith.constant": _constant,
    "arith.addi": _sum(1),
    "arith.subi": _sum(-1),
    "arith.extsi": _expand,
    "tt.make_range": lambda operation, strides: 1,
    "tt.splat": lambda operation, strides: 0,
    "tt.broadcast": _broadcast,
    "tt.expand_dims": _expand,
    "tt.addptr": _scaled,
}
