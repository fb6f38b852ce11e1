"""The text of a TTIR module becomes a `Function`.

MLIR prints one operation a line, and lines that open or close regions; each operation has an assembly format of its
own, of which this reads what all share: results, operands in order, attributes, bare words, types. Where a format says
something that these do not, `_result_types` or `_operation` knows the operation by name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fusible.compiler.backends.triton.ttir import (
    Block,
    Descriptor,
    Element,
    Function,
    Operation,
    Pointer,
    Region,
    Scalar,
    Tensor,
    Type,
    Value,
    element_of,
    refuse,
    shape_of,
)
from fusible.compiler.backends.triton.ttir_text import (
    BadText,
    attributes_of,
    parse_type,
    parse_types,
    positions,
    resolve_location,
    split_at,
    take_locations,
)
from fusible.errors import LoweringError

__all__ = ["parse_ttir"]

_MAX_REGIONS = 64
_MAX_BYTES = 64 * 2**20
_FUNCTION = re.compile(r"tt\.func (?:public |private )?@([\w.$-]+)\((.*)\)(.*)\{", re.DOTALL)
_RESULTS = re.compile(r"(%[\w$.-]+(?::\d+)?(?:, %[\w$.-]+(?::\d+)?)*) = (.*)", re.DOTALL)
_NAME = re.compile(r'"?([a-z_0-9]+\.[\w.]+)"?(.*)', re.DOTALL)
_LABEL = re.compile(r"\^(\w+)(?:\((.*)\))?:(?:\s*//.*)?", re.DOTALL)
_ALIAS = re.compile(r"(#\w+) = loc\((.*)\)", re.DOTALL)
_VALUE = re.compile(r"%([\w$.-]+(?:#\d+)?)")
_BINDER = re.compile(r"%([\w$.-]+) = (?=%)")
_SUCCESSOR = re.compile(r"\^(\w+)(?:\(([^)]*)\))?")
_KEYWORD = re.compile(r"\b([A-Za-z]\w*) = ([\w.-]+)")
_WORD = re.compile(r"(?<![%\w#.])[A-Za-z_]\w*")
_YIELDING = ("scf.for", "scf.if")  # where nothing is yielded, no line says so
_CONTINUES = ("} else {", "} do {", "}, {")


def parse_ttir(text: str) -> Function:
    """Return the one function of a module, as Triton prints it after its TTIR passes, with locations or without.

    Raises LoweringError that names the line for text that is not of this form, and for a module of several functions
    (those marked noinline).
    """
    if len(text) > _MAX_BYTES:
        raise refuse("(unknown)", None, f"its TTIR has {len(text)} characters, more than {_MAX_BYTES}")
    return _Parser(text).module()


class _Parser:
    """Reads lines from first to last; `scopes` are the names that each region being read has defined."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.next = 0
        self.kernel = "(unknown)"
        self.location = ""
        self.locations = {m.group(1): m.group(2) for line in self.lines if (m := _ALIAS.fullmatch(line.strip()))}
        self.scopes: list[dict[str, Value]] = []

    def module(self) -> Function:
        functions = []
        try:
            while (line := self.take()) is not None:
                if line.startswith("tt.func"):
                    functions.append(self.function(line))
                elif line not in ("", "}") and not line.startswith(("module", "#", "//")):
                    raise BadText(f"a module or a function, not {line[:60]!r}")
        except BadText as error:
            raise self.error(str(error)) from error
        if len(functions) != 1:
            names = ", ".join(each.name for each in functions) or "none"
            raise refuse(
                self.kernel, None, f"its module must hold one function and holds {names}: inline what it calls"
            )
        return functions[0]

    def take(self) -> str | None:
        """The next line, stripped, its locations removed and the last of them kept; None at the end."""
        if self.next == len(self.lines):
            return None
        line, self.location = take_locations(self.lines[self.next].strip())
        self.next += 1
        return line.strip()

    def error(self, why: str) -> LoweringError:
        return refuse(self.kernel, None, f"its TTIR cannot be read: line {self.next}: {why}")

    def function(self, line: str) -> Function:
        match = _FUNCTION.fullmatch(line)
        if match is None:
            raise BadText("tt.func @name(arguments) attributes {...} {")
        self.kernel = match.group(1)
        arguments = self.typed_names(match.group(2))
        self.scopes.append({value.name: value for value in arguments})
        blocks, _ = self.region_blocks(())
        self.scopes.pop()
        return Function(self.kernel, arguments, Region(blocks))

    def typed_names(self, text: str) -> tuple[Value, ...]:
        """Read `%a: type {attributes}, ...`."""
        values = []
        for part in split_at(text, ",") if text.strip() else ():
            name, colon, kind = part.partition(":")
            if not colon or not name.startswith("%"):
                raise BadText(f"%name: type, not {part!r}")
            values.append(Value(name[1:].strip(), parse_type(split_at(kind, " {")[0])))
        return tuple(values)

    def region_blocks(self, arguments: tuple[Value, ...]) -> tuple[tuple[Block, ...], str]:
        """Read to the line that closes the region; returns the blocks and that line."""
        if len(self.scopes) > _MAX_REGIONS:
            raise BadText(f"regions nested more than {_MAX_REGIONS} deep")
        self.scopes.append({value.name: value for value in arguments})
        blocks = [Block("bb0", arguments)]
        while (line := self.take()) is not None:
            if line.startswith("}"):
                self.scopes.pop()
                return tuple(blocks), line
            if line.startswith("^"):
                self.label(line, blocks)
            elif line and not line.startswith("//"):
                blocks[-1].operations.append(self.operation(line))
        raise BadText("the end of the text before that of a region")

    def label(self, line: str, blocks: list[Block]) -> None:
        match = _LABEL.fullmatch(line)
        if match is None:
            raise BadText(f"^label(arguments):, not {line[:60]!r}")
        block = Block(match.group(1), self.typed_names(match.group(2) or ""))
        self.scopes[-1].update({value.name: value for value in block.arguments})
        if blocks[-1].operations or len(blocks) > 1:
            blocks.append(block)
        else:
            blocks[-1] = block

    def operation(self, line: str) -> Operation:
        number, place = self.next, self.location
        results: list[str] = []
        if match := _RESULTS.fullmatch(line):
            results, line = _result_names(match.group(1)), match.group(2)
        match = _NAME.fullmatch(line)
        if match is None:
            raise BadText(f"an operation, not {line[:60]!r}")
        name, rest = match.group(1), match.group(2).strip()
        opens = rest.endswith("{")
        if opens:
            rest = rest[:-1].removesuffix("(").strip()
        head, types = _types_apart(rest, name)
        binders = [] if name in ("tt.reduce", "tt.scan") else _BINDER.findall(head)
        attributes, plain = _attributes(head)
        operands = tuple(self.value(each) for each in _operand_names(plain))
        regions, tail = self.regions(name, binders, operands, types, head) if opens else ((), "")
        if opens:
            types = types or _types_apart(tail, name)[1]
            attributes |= _attributes(tail)[0]
        if name == "arith.constant":
            attributes["value"] = split_at(head, " {")[0] if not head.startswith("{") else head
        values = self.results(name, results, operands, types, head)
        words = tuple(_WORD.findall(_KEYWORD.sub("", plain)))
        successors = tuple(self.successor(*each) for each in _SUCCESSOR.findall(head)) if name[:3] == "cf." else ()
        if successors:
            operands = operands[:1] if name == "cf.cond_br" else ()
        where = resolve_location(place or self.location, self.locations)
        return Operation(name, operands, values, attributes, words, regions, successors, number, where)

    def successor(self, label: str, text: str) -> tuple[str, tuple[Value, ...]]:
        return label, tuple(self.value(each) for each in _VALUE.findall(text))

    def regions(
        self, name: str, binders: Sequence[str], operands: tuple[Value, ...], types: str, head: str
    ) -> tuple[tuple[Region, ...], str]:
        """Read the regions that a line opened; returns them and what follows the last."""
        arguments: tuple[Value, ...] = ()
        if name == "scf.for":
            kinds = (parse_type(types or "index"), *(value.type for value in operands[3:]))
            arguments = tuple(Value(each, kind) for each, kind in zip(binders, kinds, strict=True))
        elif name == "scf.while":
            arguments = tuple(Value(each, value.type) for each, value in zip(binders, operands, strict=True))
        regions = []
        while True:
            blocks, line = self.region_blocks(arguments)
            if name in _YIELDING and not (blocks[-1].operations and blocks[-1].operations[-1].name == "scf.yield"):
                blocks[-1].operations.append(Operation("scf.yield", (), (), {}, (), (), (), self.next, ""))
            regions.append(Region(blocks))
            if line not in _CONTINUES:
                return tuple(regions), line[1:].removeprefix(")").strip()
            arguments = ()

    def results(
        self, name: str, names: Sequence[str], operands: Sequence[Value], types: str, head: str
    ) -> tuple[Value, ...]:
        if not names:
            return ()
        kinds = _result_types(name, types, head, operands)
        if len(kinds) == 1:
            kinds = kinds * len(names)  # tt.split says once what both halves are
        if len(kinds) != len(names):
            raise BadText(f"{name} with {len(names)} results has {len(kinds)} result types")
        values = tuple(Value(each, kind) for each, kind in zip(names, kinds, strict=True))
        self.scopes[-1].update({value.name: value for value in values})
        return values

    def value(self, name: str) -> Value:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
            if name.endswith("#0") and name[:-2] in scope:
                return scope[name[:-2]]
        raise BadText(f"%{name} is used and nowhere defined before")


def _result_names(text: str) -> list[str]:
    names = []
    for part in text.split(", "):
        name, _, count = part[1:].partition(":")
        names += [f"{name}#{k}" for k in range(int(count))] if count else [name]
    return names


def _operand_names(text: str) -> list[str]:
    """The values used, in order: all but those that `%a = %b` defines, and the counter of a loop."""
    return _VALUE.findall(_BINDER.sub("", text))


def _types_apart(text: str, name: str) -> tuple[str, str]:
    """Split an operation's text before its types, which follow the last ` : ` outside brackets."""
    last = -1
    for place, char, depth in positions(text):
        if (
            depth == 0
            and char == ":"
            and (place == 0 or text[place - 1] in " )")
            and text[place + 1 : place + 2] == " "
        ):
            last = place
    return (text[:last].strip(), text[last + 1 :].strip()) if last >= 0 else (text, "")


def _attributes(text: str) -> tuple[dict[str, str], str]:
    """The attributes of `{...}`, `<{...}>` and `keyword = value`, and the text without the braces."""
    found: dict[str, str] = {}
    plain, start, opened = [], 0, -1
    base = 0
    for place, char, depth in positions(text):
        if char == "{" and opened < 0:
            opened, base = place, depth
            plain.append(text[start:place])
        elif char == "}" and opened >= 0 and depth == base:
            found |= attributes_of(text[opened + 1 : place])
            start, opened = place + 1, -1
    plain.append(text[start:])
    rest = "".join(plain).replace("<>", "")
    found |= dict(_KEYWORD.findall(rest))
    return found, rest


def _result_types(name: str, types: str, head: str, operands: Sequence[Value]) -> tuple[Type, ...]:
    """The types of an operation's results, from what its format prints."""
    if name in ("scf.for", "scf.if"):
        return parse_types(split_at(head, "->")[-1])
    if name == "tt.make_tensor_descriptor":
        return (Descriptor(_block_of(types)),)
    arrow = split_at(types, "->")
    if len(arrow) > 1:
        return parse_types(arrow[-1])
    cast = split_at(types, " to ")
    if len(cast) > 1:
        return parse_types(cast[-1])
    if not types and name == "arith.constant":
        return (Element.I1,)
    stated = parse_types(types)
    if not stated:
        raise BadText(f"{name} without types")
    if name in ("arith.cmpi", "arith.cmpf"):
        return (_with_element(stated[0], Element.I1),)
    if name == "tt.load":
        pointer = element_of(stated[0])
        if not isinstance(pointer, Pointer):
            raise BadText("tt.load of pointers")
        return (_with_element(stated[0], pointer.pointee),)
    return (stated[0],) if name == "tt.addptr" else (stated[-1],)


def _block_of(types: str) -> Tensor:
    """The block of `<f16>, <tensor<16x16xf16>>`, which is printed without `!tt.ptr` and `!tt.tensordesc`."""
    descriptor = parse_type("!tt.tensordesc" + split_at(types, ",")[-1].removeprefix("!tt.tensordesc"))
    assert isinstance(descriptor, Descriptor)
    return descriptor.block


def _with_element(type: Type, element: Scalar) -> Type:
    return Tensor(shape_of(type), element) if isinstance(type, Tensor) else element
