"""Loads, stores and atomic updates, through pointers and through descriptors, checked or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusible.compiler.backends.triton.elements import c_type, narrowed, widened
from fusible.compiler.backends.triton.state import Handler, Lowering
from fusible.compiler.backends.triton.tiles import Index, Loop, Tile, flat_index, loop_shape, stored, uniform
from fusible.compiler.backends.triton.ttir import (
    Descriptor,
    Element,
    Operation,
    Pointer,
    Scalar,
    Tensor,
    Value,
    element_of,
)

__all__ = ["MEMORY_HANDLERS"]

_READ, _WRITE = "OUT_OF_RANGE_READ", "OUT_OF_RANGE_WRITE"
_UPDATES = {
    "fadd": "{old} + {new}", "add": "{old} + {new}", "and": "{old} & {new}", "or": "{old} | {new}",
    "xor": "{old} ^ {new}", "exch": "{new}", "max": "{old} > {new} ? {old} : {new}",
    "min": "{old} < {new} ? {old} : {new}", "umax": "({u}){old} > ({u}){new} ? {old} : {new}",
    "umin": "({u}){old} < ({u}){new} ? {old} : {new}",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Checks:
    """How accesses of one operation are guarded. buffers: the set they may touch; site: the operation's number."""

    state: Lowering
    buffers: str
    site: int
    bytes: int

    def guarded(self, mask: str | None, kind: str, address: str) -> str | None:
        """Return the C condition under which an access may happen; None if it always may."""
        if not self.state.checked:
            return mask
        inside = f"may_access(launch, program, {kind}, {self.site}, {self.buffers}, {address}, {self.bytes})"
        return inside if mask is None else f"{mask} && {inside}"

    def noted(self, address: str) -> str:
        """Return the C statement that remembers a write, with a space behind it, or nothing."""
        if not self.state.checked:
            return ""
        return f"note_write(launch, program, {self.site}, {self.buffers}, {address}); "


def _checks(state: Lowering, operation: Operation, pointer: Value) -> _Checks:
    element = _pointee(state, operation, pointer)
    site = state.site(operation) if state.checked else 0
    return _Checks(state, state.buffer_set(pointer), site, element.bytes)


def _pointee(state: Lowering, operation: Operation, value: Value) -> Scalar:
    if isinstance(value.type, Descriptor):
        return value.type.block.element
    pointer = element_of(value.type)
    if not isinstance(pointer, Pointer):
        raise state.refuse(operation, f"expected pointers, not {pointer}")
    return pointer.pointee


def _by_rows(state: Lowering, pointer: Value, item: int) -> bool:
    """Whether each row of a tensor of pointers is a run of elements: then its first address is enough."""
    return not state.checked and isinstance(pointer.type, Tensor) and state.strides.get(pointer) == item


def _load(state: Lowering, operation: Operation) -> None:
    """What a mask leaves out is `other`, or where there is none undefined: zero, and NaN in checking mode."""
    result, pointer = operation.results[0], operation.operands[0]
    addresses, *rest = (state.tile(value) for value in operation.operands)
    element, checks = _pointee(state, operation, pointer), _checks(state, operation, pointer)
    mask = rest[0] if rest else None
    other = rest[1] if len(rest) > 1 else uniform(_undefined(state, element), (), element)
    kind = c_type(element)
    target = stored(state.code.buffer(element, addresses.size), addresses.shape, element)

    def write(loop: Loop, index: Index, place: str, address: str) -> None:
        shown = loop.at(mask, index) if mask is not None else None
        condition = checks.guarded(shown, _READ, address)
        value = (
            place if condition is None else f"{condition} ? {place} : {loop.at(other, index if other.shape else ())}"
        )
        state.code.line(f"{target.at(loop, index)} = {value};")

    if _by_rows(state, pointer, element.bytes):
        with state.code.loops(addresses.shape[:-1], vector=False) as (outer, first):
            row, column = state.code.fresh("row"), state.code.fresh("i")
            state.code.line(f"const {kind} *const {row} = (const {kind} *){outer.at(addresses, (*first, '0'))};")
            state.code.line("INDEPENDENT")
            with state.code.braces(f"for (long {column} = 0; {column} < {addresses.shape[-1]}; {column}++)"):
                write(Loop(state.code), (*first, column), f"{row}[{column}]", "")
    else:
        shape = loop_shape(addresses, other, *rest) if other.shape else loop_shape(addresses, *rest)
        with state.code.loops(shape) as (loop, index):
            address = loop.at(addresses, index)
            write(loop, index, f"*(const {kind} *){address}", address)
    _bind(state, result, target)


def _bind(state: Lowering, result: Value, target: Tile) -> None:
    if isinstance(result.type, Tensor):
        state.tiles[result] = target
        return
    name = state.code.fresh("v")
    state.code.line(f"const {c_type(target.element)} {name} = {target.buffer}[0];")
    state.scalars[result] = name


def _undefined(state: Lowering, element: Scalar) -> str:
    if state.checked and isinstance(element, Element) and element.is_float:
        return narrowed(element, "NAN")
    return "0"


def _store(state: Lowering, operation: Operation) -> None:
    pointer = operation.operands[0]
    addresses, values, *masks = (state.tile(value) for value in operation.operands)
    element, checks = _pointee(state, operation, pointer), _checks(state, operation, pointer)
    kind = c_type(element)

    def write(loop: Loop, index: Index, place: str, address: str) -> None:
        value = loop.at(values, index)
        condition = checks.guarded(loop.at(masks[0], index) if masks else None, _WRITE, address)
        head = f"if ({condition}) " if condition is not None else ""
        state.code.line(f"{head}{{ {checks.noted(address)}{place} = {value}; }}")

    if _by_rows(state, pointer, element.bytes):
        with state.code.loops(addresses.shape[:-1], vector=False) as (outer, first):
            row, column = state.code.fresh("row"), state.code.fresh("i")
            state.code.line(f"{kind} *const {row} = ({kind} *){outer.at(addresses, (*first, '0'))};")
            state.code.line("INDEPENDENT")
            with state.code.braces(f"for (long {column} = 0; {column} < {addresses.shape[-1]}; {column}++)"):
                write(Loop(state.code), (*first, column), f"{row}[{column}]", "")
    else:
        with state.code.loops(loop_shape(addresses, values, *masks), vector=False) as (loop, index):
            address = loop.at(addresses, index)
            write(loop, index, f"*({kind} *){address}", address)


def _update(state: Lowering, element: Element, how: str, new: str) -> str:
    """The C expression of an atomic update, of `old` and a value."""
    unsigned = f"uint{element.bytes * 8}_t"
    if element.is_float:
        text = _UPDATES[how].format(old=f"({widened(element, 'old')})", new=f"({widened(element, new)})", u=unsigned)
        return new if how == "exch" else narrowed(element, f"({text})")
    return f"({c_type(element)})({_UPDATES[how].format(old='old', new=new, u=unsigned)})"


def _numeric(state: Lowering, operation: Operation, pointer: Value, how: str) -> Element:
    element = _pointee(state, operation, pointer)
    if not isinstance(element, Element) or how not in _UPDATES:
        raise state.refuse(operation, f"the update {how!r} of {element} is not known ({', '.join(_UPDATES)} are)")
    return element


def _atomic_update(state: Lowering, operation: Operation) -> None:
    pointer, how = operation.operands[0], operation.words[0]
    element, checks = _numeric(state, operation, pointer, how), _checks(state, operation, pointer)
    addresses, values, *masks = (state.tile(value) for value in operation.operands)
    target = stored(state.code.buffer(element, addresses.size), addresses.shape, element)
    kind = c_type(element)
    with state.code.loops(addresses.shape, vector=False) as (loop, index):
        address, new = loop.at(addresses, index), loop.at(values, index)
        condition = checks.guarded(loop.at(masks[0], index) if masks else None, _WRITE, address)
        state.code.line(f"{kind} old = 0;")
        head = f"if ({condition}) " if condition is not None else ""
        state.code.line(f"{head}ATOMIC_UPDATE({kind}, {address}, old, {_update(state, element, how, new)});")
        state.code.line(f"{target.at(loop, index)} = old;")
    _bind(state, operation.results[0], target)


def _compare_and_swap(state: Lowering, operation: Operation) -> None:
    """Compares bits, as a GPU does."""
    pointer = operation.operands[0]
    element, checks = _numeric(state, operation, pointer, "exch"), _checks(state, operation, pointer)
    addresses, expected, values = (state.tile(value) for value in operation.operands)
    target = stored(state.code.buffer(element, addresses.size), addresses.shape, element)
    kind = c_type(element)
    with state.code.loops(addresses.shape, vector=False) as (loop, index):
        address, new = loop.at(addresses, index), loop.at(values, index)
        condition = checks.guarded(None, _WRITE, address)
        state.code.line(f"{kind} old = {loop.at(expected, index)}, new = {new};")
        swap = f"__atomic_compare_exchange(({kind} *){address}, &old, &new, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);"
        state.code.line(f"{f'if ({condition}) ' if condition is not None else ''}{swap}")
        state.code.line(f"{target.at(loop, index)} = old;")
    _bind(state, operation.results[0], target)


def _make_descriptor(state: Lowering, operation: Operation) -> None:
    base, *sizes = operation.operands
    rank = len(sizes) // 2
    if operation.attributes.get("padding", "1") not in ("1", "PAD_ZERO"):
        raise state.refuse(operation, "what lies outside a descriptor's tensor is read as zero; NaN is not supported")
    shape = ", ".join(state.scalar(value) for value in sizes[:rank])
    strides = ", ".join(state.scalar(value) for value in sizes[rank:])
    name = state.code.fresh("d")
    state.code.line(f"const struct descriptor {name} = {{{state.scalar(base)}, {{{shape}}}, {{{strides}}}}};")
    state.scalars[operation.results[0]] = name


@dataclass(frozen=True, slots=True)
class _Block:
    """The block of a descriptor's tensor that an operation touches: prints addresses and whether they are inside."""

    descriptor: str
    offsets: Sequence[str]
    shape: tuple[int, ...]
    item: int

    def address(self, state: Lowering, index: Index) -> tuple[str, str]:
        """Write the address of an element; returns its name and the condition that it lies in the tensor."""
        inside, place = [], []
        for axis, (offset, each) in enumerate(zip(self.offsets, index, strict=True)):
            name = state.code.fresh("p")
            state.code.line(f"const int64_t {name} = (int64_t){offset} + {each};")
            inside.append(f"{name} >= 0 && {name} < {self.descriptor}.shape[{axis}]")
            stride = f" * {self.descriptor}.strides[{axis}]" if axis + 1 < len(index) else ""  # the last is 1
            place.append(f"{name}{stride}")
        address = state.code.fresh("q")
        state.code.line(f"const int64_t {address} = {self.descriptor}.base + ({' + '.join(place)}) * {self.item};")
        return address, " && ".join(inside)


def _block(state: Lowering, operation: Operation) -> _Block:
    kind = operation.operands[0].type
    assert isinstance(kind, Descriptor)
    rank = len(kind.block.shape)
    offsets = [state.scalar(value) for value in operation.operands[1 : rank + 1]]
    return _Block(state.scalar(operation.operands[0]), offsets, kind.block.shape, kind.block.element.bytes)


def _load_block(state: Lowering, operation: Operation) -> None:
    """Zero where the block reaches over the tensor's border. The result may lack leading extents of 1."""
    result, block = operation.results[0], _block(state, operation)
    checks = _checks(state, operation, operation.operands[0])
    assert isinstance(result.type, Tensor)
    element = result.type.element
    buffer = state.code.buffer(element, result.type.size)
    with state.code.loops(block.shape) as (_, index):
        address, inside = block.address(state, index)
        condition = checks.guarded(f"({inside})", _READ, address)
        value = f"{condition} ? *(const {c_type(element)} *){address} : 0"
        state.code.line(f"{buffer}[{flat_index(block.shape, index)}] = {value};")
    state.tiles[result] = stored(buffer, result.type.shape, element)


def _store_block(state: Lowering, operation: Operation) -> None:
    """Nothing is written over the tensor's border."""
    block, tile = _block(state, operation), state.stored_value(operation.operands[-1])
    checks = _checks(state, operation, operation.operands[0])
    with state.code.loops(block.shape, vector=False) as (_, index):
        address, inside = block.address(state, index)
        condition = checks.guarded(f"({inside})", _WRITE, address)
        write = f"*({c_type(tile.element)} *){address} = {tile.buffer}[{flat_index(block.shape, index)}];"
        state.code.line(f"if ({condition}) {{ {checks.noted(address)}{write} }}")


def _update_block(state: Lowering, operation: Operation) -> None:
    block, tile = _block(state, operation), state.stored_value(operation.operands[-1])
    how = operation.words[0]
    element = _numeric(state, operation, operation.operands[0], how)
    checks, kind = _checks(state, operation, operation.operands[0]), c_type(element)
    with state.code.loops(block.shape, vector=False) as (_, index):
        address, inside = block.address(state, index)
        condition = checks.guarded(f"({inside})", _WRITE, address)
        state.code.line(f"{kind} old; const {kind} new = {tile.buffer}[{flat_index(block.shape, index)}];")
        state.code.line(
            f"if ({condition}) ATOMIC_UPDATE({kind}, {address}, old, {_update(state, element, how, 'new')});"
        )


def _assert(state: Lowering, operation: Operation) -> None:
    """Checked in checking mode only, as Triton drops assertions outside its debugging mode."""
    if not state.checked:
        return
    site, tile = state.site(operation), state.tile(operation.operands[0])
    with state.code.loops(tile.shape, vector=False) as (loop, index):
        state.code.line(f"if (!{loop.at(tile, index)}) note(launch, program, ASSERTION, {site}, 0, -1);")


def _nothing(state: Lowering, operation: Operation) -> None:
    """Barriers order the threads of one program, and here it has one; what a kernel prints is not shown."""


MEMORY_HANDLERS: dict[str, Handler] = {
    "tt.load": _load,
    "tt.store": _store,
    "tt.atomic_rmw": _atomic_update,
    "tt.atomic_cas": _compare_and_swap,
    "tt.make_tensor_descriptor": _make_descriptor,
    "tt.descriptor_load": _load_block,
    "tt.descriptor_store": _store_block,
    "tt.descriptor_reduce": _update_block,
    "tt.assert": _assert,
    "tt.print": _nothing,
    "gpu.barrier": _nothing,
    "ttg.barrier": _nothing,
    "llvm.intr.assume": _nothing,
}
