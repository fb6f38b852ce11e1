"""The registry of canonical ops: attributes, inference, definition and NumPy meaning of each.

Families register in `compiler/ir/opset/*.py`; `fusible.register_op` adds ops of other domains.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np

from fusible.compiler.ir.broadcast import bcast
from fusible.compiler.ir.definition import Definition
from fusible.compiler.ir.requirements import Relation, Requirement, decide, requirement
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt, modulo
from fusible.compiler.ir.types import DType, OptionalType, SequenceType, Shape, TensorType, Type
from fusible.errors import InvalidModel, InvalidNode, UsageError

if TYPE_CHECKING:
    from fusible.compiler.ir.graph import Graph, Node, Value

__all__ = [
    "OPS",
    "Content",
    "Infer",
    "NoAttrs",
    "Op",
    "Registry",
    "SymbolTable",
    "attribute_values",
    "kernel_arguments",
]

Content: TypeAlias = np.ndarray  # dtype object, elements int | float | bool | SymInt
CONTENT_LIMIT = 1024  # elements; larger tensors have no known content


@dataclass(frozen=True, slots=True)
class NoAttrs:
    """The attributes of an op that has none."""


class SymbolTable:
    """The symbols of a graph and its subgraphs; gives out fresh names."""

    def __init__(self) -> None:
        self._symbols: dict[str, Symbol] = {}
        self._next: dict[str, int] = {}
        self.display: dict[str, str] = {}  # symbol -> the model's own spelling, where it is no identifier

    def __iter__(self) -> Iterator[Symbol]:
        return iter(self._symbols.values())

    def get(self, name: str) -> Symbol | None:
        """The symbol of that name, if there is one."""
        return self._symbols.get(name)

    @property
    def by_name(self) -> dict[str, Symbol]:
        """All symbols by name."""
        return dict(self._symbols)

    def add(self, symbol: Symbol) -> SymInt:
        """Register a symbol. The same name with other bounds raises ValueError."""
        known = self._symbols.setdefault(symbol.name, symbol)
        if known != symbol:
            raise ValueError(f"symbol {symbol.name!r} exists with other bounds")
        return SymInt.of(symbol)

    def copy(self) -> SymbolTable:
        """A table of the same symbols that goes its own way from here."""
        made = SymbolTable()
        made._symbols, made._next, made.display = dict(self._symbols), dict(self._next), dict(self.display)
        return made

    def fresh(self, hint: str, lower: int = 0, upper: int | None = None) -> SymInt:
        """A new symbol whose name starts with `hint`."""
        while True:
            number = self._next.get(hint, 0)
            self._next[hint] = number + 1
            if f"{hint}_{number}" not in self._symbols:
                return self.add(Symbol(f"{hint}_{number}", lower, upper))


class Infer:
    """What an inference function may look at: one node before it exists."""

    def __init__(
        self,
        op: Op,
        inputs: Sequence[Value | None],
        attrs: Any,
        symbols: SymbolTable,
        subgraphs: Sequence[Graph] = (),
        outputs: int = 1,
        where: str = "",
    ) -> None:
        self.op, self.inputs, self.attrs = op, tuple(inputs), attrs
        self.symbols, self.subgraphs, self.outputs, self.where = symbols, tuple(subgraphs), outputs, where
        self.defines: list[Symbol] = []
        self.requirements: list[Requirement] = []

    def fail(self, message: str) -> NoReturn:
        """Raise InvalidNode naming the op and its place."""
        raise InvalidNode(f"{self.op.name} at {self.where or 'an unnamed node'}: {message}")

    def has(self, index: int) -> bool:
        """True if input `index` is present."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def any_type(self, index: int) -> Type:
        """The type of a required input."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            self.fail(f"required input {index} is missing")
        return value.type

    def type(self, index: int) -> TensorType:
        """The type of a required tensor input."""
        type_ = self.any_type(index)
        if not isinstance(type_, TensorType):
            self.fail(f"input {index} must be a tensor, got {type_}")
        return type_

    def dtype(self, index: int) -> DType:
        """The element type of input `index`."""
        return self.type(index).dtype

    def shape(self, index: int) -> Shape | None:
        """The shape of input `index`, None if the rank is unknown."""
        return self.type(index).shape

    def rank(self, index: int) -> int | None:
        """The rank of input `index`, None if unknown."""
        return self.type(index).rank

    def content(self, index: int) -> Content | None:
        """The known elements of a small input: an object array of numbers and SymInts, or None."""
        value = self.inputs[index] if index < len(self.inputs) else None
        return None if value is None else value.content

    def fresh(self, hint: str = "n", lower: int = 0, upper: int | None = None) -> SymInt:
        """A dimension that this node defines when it runs. Use it bare in an output's shape."""
        dim = self.symbols.fresh(hint, lower, upper)
        self.defines.extend(s for m, _ in dim.terms for s in m if isinstance(s, Symbol))
        return dim

    def equal(self, a: Dim, b: Dim) -> bool:
        """False if two dimensions differ for certain; where symbols decide, the node requires that they are equal."""
        return a == b or self._may_hold(Relation.EQUAL, a, b)

    def fits(self, a: Dim, b: Dim) -> bool:
        """False if `a` is neither 1 nor `b` for certain; where symbols decide, the node requires it."""
        return a == b or self._may_hold(Relation.FITS, a, b)

    def at_most(self, a: Dim, b: Dim) -> bool:
        """False if a > b for certain; where symbols decide, the node requires that a <= b."""
        return self._may_hold(Relation.AT_MOST, a, b)

    def equal_shapes(self, a: Shape, b: Shape) -> bool:
        """False if ranks or dimensions of two shapes differ for certain; `equal` for each dimension."""
        return len(a) == len(b) and all(self.equal(x, y) for x, y in zip(a, b, strict=True))

    def divides(self, divisor: int, dividend: Dim) -> bool:
        """False if the dividend is no multiple of the positive divisor; where symbols decide, it is required."""
        return self.equal(modulo(dividend, divisor), 0)

    def broadcast(self, a: Dim, b: Dim) -> Dim:
        """The broadcast of two dimensions, which is required where symbols decide. ValueError if it cannot be."""
        if a != b and not self._may_hold(Relation.BROADCAST, a, b):
            raise ValueError(f"dimensions {a} and {b} do not broadcast")
        return bcast(a, b)

    def _may_hold(self, relation: Relation, a: Dim, b: Dim) -> bool:
        holds = decide(relation, a, b)
        if holds is None:
            where = f"{self.op.name} at {self.where or 'an unnamed node'}"
            self.requirements.append(requirement(relation, a, b, where))
        return holds is not False

    def axis(self, axis: int, rank: int, extra: int = 0) -> int:
        """A non-negative axis; fails if it lies outside [-rank-extra, rank+extra)."""
        if not -rank - extra <= axis < rank + extra:
            self.fail(f"axis {axis} is out of range for rank {rank}")
        return axis % (rank + extra) if rank + extra else 0


InferFunction: TypeAlias = Callable[[Infer], "Type | Sequence[Type]"]
PropagateFunction: TypeAlias = "Callable[[Infer], Content | None]"


@dataclass(frozen=True)
class Op:
    """A canonical op.

    name: snake_case; ops of other domains are called `domain::Name`. attrs: a frozen dataclass type. inputs:
    (least, most), most None = variadic. outputs: the number, None = chosen for each node. infer: types of outputs.
    definition: from which fusibility follows. kernel: `module:function` below `fusible.kernels.numpy` (or an
    absolute module path) - its NumPy meaning; None for control flow. propagate: known content of output 0 for
    symbolic inputs. dynamic: output sizes or kinds are known only when it has run. view: the kernel may return a view
    of input 0. pure: same inputs, same outputs, no effect. accepts_out: the kernel takes `out=`.
    """

    name: str
    infer: InferFunction
    definition: Callable[[Node], Definition]
    kernel: str | None
    attrs: type = NoAttrs
    inputs: tuple[int, int | None] = (1, 1)
    outputs: int | None = 1
    commutative: bool = False
    pure: bool = True
    dynamic: bool = False
    view: bool = False
    accepts_out: bool = False
    propagate: PropagateFunction | None = None
    domain: str = ""
    version: int = 1
    doc: str = ""
    function: Callable[..., Any] | None = field(default=None, compare=False)

    @cached_property
    def numpy(self) -> Callable[..., Any]:
        """The NumPy meaning."""
        if self.function is not None:
            return self.function
        if self.kernel is None:
            raise UsageError(f"op {self.name} has no NumPy kernel")
        return resolve_kernel(self.kernel)

    @property
    def numpy_missing(self) -> bool:
        """True for control flow, which has no kernel of its own."""
        return self.kernel is None and self.function is None

    @cached_property
    def attribute_names(self) -> tuple[str, ...]:
        """The names of the attributes."""
        return tuple(f.name for f in fields(self.attrs))


def kernel_module(path: str) -> str:
    """The absolute module of a kernel path `module:function`."""
    module = path.partition(":")[0]
    return module if "." in module else f"fusible.kernels.numpy.{module}"


def resolve_kernel(path: str) -> Callable[..., Any]:
    """Import `module:function`. Raises UsageError if it is not there."""
    name = path.partition(":")[2]
    try:
        found: Any = importlib.import_module(kernel_module(path))
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"kernel {path!r} cannot be imported: {error}") from error
    if not callable(found):
        raise UsageError(f"kernel {path!r} is not callable")
    return found  # type: ignore[no-any-return]


def kernel_arguments(attrs: Any) -> dict[str, Any]:
    """Attributes as keyword arguments of a kernel: DType becomes np.dtype, everything else is itself."""
    return {k: v.numpy if isinstance(v, DType) else v for k, v in attribute_values(attrs).items()}


def attribute_values(attrs: Any) -> dict[str, Any]:
    """The attributes by name, in the order of the dataclass."""
    return {f.name: getattr(attrs, f.name) for f in fields(attrs)}


class Registry:
    """Ops by name. Built-in families are loaded on first use."""

    def __init__(self, families: str | None = None) -> None:
        self._ops: dict[str, Op] = {}
        self._families = families

    def _load(self) -> None:
        if self._families is not None:
            package, self._families = self._families, None
            importlib.import_module(package)

    def register(self, op: Op) -> Op:
        """Add an op. Raises UsageError if the name is taken or the attributes are no dataclass."""
        if op.name in self._ops:
            raise UsageError(f"op {op.name!r} is already registered")
        if not hasattr(op.attrs, "__dataclass_fields__"):
            raise UsageError(f"op {op.name!r}: attrs must be a frozen dataclass")
        if op.function is not None and not inspect.isroutine(op.function):
            raise UsageError(f"op {op.name!r}: the NumPy meaning must be a function")
        self._ops[op.name] = op
        return op

    def unregister(self, name: str) -> None:
        """Remove an op (for tests and interactive use)."""
        self._ops.pop(name, None)

    def get(self, name: str) -> Op | None:
        """The op of that name, if there is one."""
        self._load()
        return self._ops.get(name)

    def __getitem__(self, name: str) -> Op:
        found = self.get(name)
        if found is None:
            raise UsageError(f"no op {name!r} is registered; `fusible ops` lists them")
        return found

    def __iter__(self) -> Iterator[Op]:
        self._load()
        return iter(sorted(self._ops.values(), key=lambda op: op.name))


OPS = Registry("fusible.compiler.ir.opset")


def tensor(type_: Type) -> TensorType:
    """Narrow a type to a tensor's. Raises InvalidModel for sequences and optionals."""
    if isinstance(type_, (SequenceType, OptionalType)):
        raise InvalidModel(f"a tensor was expected, got {type_}")
    return type_


def attrs_dict(attrs: Any) -> dict[str, Any]:
    """The attributes by name, recursively plain."""
    return asdict(attrs)
