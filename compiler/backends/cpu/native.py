"""Nodes as native kernels: their region, or their regions, over buffers as values are stored, and the C text of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fusible.compiler.backends.cpu.c_bytes import is_byte_product
from fusible.compiler.backends.cpu.kernel import NativeKernel, NotPrintable, print_group, print_region
from fusible.compiler.backends.cpu.layout import channels_last
from fusible.compiler.backends.cpu.precision import Arithmetic
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import TensorType
from fusible.compiler.region.build import Built, NoRegion, build_region
from fusible.compiler.region.group import build_group, home_of
from fusible.compiler.region.region import Group, Load, Region, operands_of
from fusible.compiler.region.reorder import Order, reordered, widened
from fusible.passes.copy_images import CONVOLUTIONS, reads_planes

__all__ = ["Shape", "Storage", "kernel_of", "likely_storage", "native_refusal", "seen"]

Shape = tuple[Dim, ...]


@dataclass(frozen=True)
class Storage:
    """How values are stored: orders of those that are not row-major, shapes of what some are blocks of."""

    orders: Mapping[Value, Order] = field(default_factory=dict)
    wholes: Mapping[Value, Shape] = field(default_factory=dict)

    def of(self, values: Mapping[Value, Value]) -> Storage:
        """The same for values that stand for others."""
        orders = {v: self.orders[a] for v, a in values.items() if a in self.orders}
        return Storage(orders, {v: self.wholes[a] for v, a in values.items() if a in self.wholes})

    def region(self, region: Region, inputs: Sequence[Value], outputs: Sequence[Value]) -> Region:
        """The region over buffers as they are stored. Raises NotPrintable."""
        wide = [{n: self.wholes[v] for n, v in enumerate(vs) if v in self.wholes} for vs in (inputs, outputs)]
        for stage in region.stages:
            if isinstance(stage, Load) and stage.buffer in wide[0] and operands_of(stage):
                raise NotPrintable("an index that data give is checked against the end of the operand's own memory")
        orders = [{n: self.orders[v] for n, v in enumerate(vs) if v in self.orders} for vs in (inputs, outputs)]
        return reordered(widened(region, *wide), *orders)


def kernel_of(
    nodes: Sequence[Node],
    outputs: Sequence[Value],
    inputs: Sequence[Value],
    given: Mapping[Value, Value],
    storage: Storage,
    arithmetic: Arithmetic,
    *,
    draft: bool = False,
) -> tuple[Built, NativeKernel]:
    """The region of some nodes, and its kernel. given: the values that inputs and outputs of a group stand for.

    draft: all that matters is whether there is one. Raises NoRegion, NotPrintable.
    """
    stored, constants = seen(nodes, outputs, inputs, given, storage)
    return _printed(nodes, outputs, inputs, stored, constants, arithmetic, draft=draft)


def seen(
    nodes: Sequence[Node],
    outputs: Sequence[Value],
    inputs: Sequence[Value],
    given: Mapping[Value, Value],
    storage: Storage,
) -> tuple[Storage, set[Value]]:
    """How what some nodes read and write is stored, and which of it is constant; arguments as for `kernel_of`."""
    inside = {v for node in nodes for v in node.outputs}
    outside = dict.fromkeys([*inputs, *(v for n in nodes for v in n.inputs if v is not None and v not in inside)])
    actual = {v: given.get(v, v) for v in (*outside, *outputs)}
    return storage.of(actual), {v for v in outside if actual[v].constant is not None}


def _printed(
    nodes: Sequence[Node],
    outputs: Sequence[Value],
    inputs: Sequence[Value],
    storage: Storage,
    constants: Collection[Value],
    arithmetic: Arithmetic,
    *,
    draft: bool,
) -> tuple[Built, NativeKernel]:
    """The kernel of one region or, if there is none, of two or three with images between them."""
    if sum(node.op.name == "conv" for node in nodes) > 1 and not any(node.op.name == "softmax" for node in nodes):
        # No region has two contractions but attention's, and to derive one takes as long as to print the chain.
        parts = chain_parts(nodes, outputs)
        if len(parts) > 1:
            return _printed_chain(parts, outputs, inputs, storage, constants, arithmetic)
    try:
        built = build_region(nodes, outputs, inputs=inputs, home=home_of(nodes, outputs), inline_scalars=True)
        _check_stores(built.region)
        region = storage.region(built.region, built.inputs, built.outputs)
        known = [n for n, v in enumerate(built.inputs) if v in constants]
        # A block is no reason to give up a kernel for loops.
        loops = len(nodes) == 1 and not storage.wholes
        kernel = print_region(region, known, arithmetic, loops=loops, draft=draft)
        return Built(region, built.inputs, built.outputs), kernel
    except NotPrintable as refusal:
        parts = chain_parts(nodes, outputs)
        if len(parts) < 2:
            raise
        try:
            return _printed_chain(parts, outputs, inputs, storage, constants, arithmetic)
        except (NoRegion, NotPrintable) as other:
            raise NotPrintable(f"{refusal}; {other}") from other


def _printed_chain(
    parts: Sequence[Sequence[Node]],
    outputs: Sequence[Value],
    inputs: Sequence[Value],
    storage: Storage,
    constants: Collection[Value],
    arithmetic: Arithmetic,
) -> tuple[Built, NativeKernel]:
    built = build_group(parts, outputs, inputs=inputs, inline_scalars=True)
    between = [part[-1].outputs[0] for part in parts[:-1]]
    images = dict.fromkeys((v for v in between if _is_image(v)), channels_last(4))
    storage = Storage({**storage.orders, **images}, storage.wholes)
    values = (*built.inputs, *built.outputs, *between)
    if len(values) != len(built.group.buffers):
        raise NotPrintable("its convolutions have more between them than one image each")
    buffers, steps = list(built.group.buffers), []
    for step in built.group.steps:
        _check_stores(step.region)
        region = storage.region(step.region, [values[n] for n in step.inputs], [values[n] for n in step.outputs])
        steps.append(replace(step, region=region))
        numbers = (*step.inputs, *step.outputs)
        for number, buffer in zip(numbers, (*region.inputs, *region.outputs), strict=True):
            buffers[number] = buffer
    group = Group(built.group.inputs, built.group.outputs, tuple(buffers), tuple(steps))
    kernel = print_group(group, [n for n, v in enumerate(built.inputs) if v in constants], arithmetic)
    return Built(group.steps[-1].region, built.inputs, built.outputs), kernel


def _check_stores(region: Region) -> None:
    """Raise NotPrintable for a result that is stored piece by piece: kernels have vectors along one axis of it."""
    if len(region.stores) > len(region.outputs):
        raise NotPrintable("it stores the pieces of a result one by one")


def chain_parts(nodes: Sequence[Node], outputs: Sequence[Value]) -> list[list[Node]]:
    """The nodes in parts, one for each convolution or product whose operand others compute; one if there is none."""
    home = home_of(nodes, outputs)
    anchor = None if home is None else home.producer
    image = anchor.inputs[0] if anchor is not None else None
    if anchor is None or image is None or image.producer not in nodes or image in outputs:
        return [list(nodes)]
    if anchor.op.name in CONVOLUTIONS and not _is_image(image):
        return [list(nodes)]
    if len(image.users) != 1:
        return [list(nodes)]
    inside = set(nodes)
    before: set[Node] = set()
    waiting = [image.producer]
    while waiting:
        node = waiting.pop()
        if node is not None and node in inside and node not in before:
            before.add(node)
            waiting += [v.producer for v in node.inputs if v is not None]
    return [*chain_parts([n for n in nodes if n in before], [image]), [n for n in nodes if n not in before]]


def native_refusal(nodes: Sequence[Node], outputs: Sequence[Value]) -> str | None:
    """Why no native kernel can be printed for some nodes together, or None."""
    if len(nodes) > 1 and (alone := next(filter(is_byte_product, nodes), None)) is not None:
        return f"{alone.op.name} is a kernel of its own"
    try:
        kernel_of(nodes, outputs, [], {}, likely_storage(nodes, outputs), Arithmetic(), draft=True)
    except (NoRegion, NotPrintable) as refusal:
        return str(refusal)
    return None


def likely_storage(nodes: Sequence[Node], outputs: Sequence[Value]) -> Storage:
    """How values will be stored: images around a convolution channels last, but for few channels of an input.

    An input that a convolution reads in part, through views, stays as it is: then the part is copied.
    """
    convolutions = [node for node in nodes if node.op.name in CONVOLUTIONS]
    if not convolutions:
        return Storage()
    inside = {v for node in nodes for v in node.outputs}
    outside = dict.fromkeys(v for n in nodes for v in n.inputs if v is not None and v not in inside)
    firsts = [(n, n.inputs[0]) for n in convolutions]
    planar = {v for n, v in firsts if v is not None and v.producer is None and reads_planes(n)}
    planar |= {v for v in outside if v.producer is None} - {v for _, v in firsts}
    images = [v for v in (*outside, *outputs) if v.constant is None and _is_image(v) and v not in planar]
    return Storage(dict.fromkeys(images, channels_last(4)))


def _is_image(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.shape is not None and len(value.type.shape) == 4
