"""Ops and kernels from outside: `fusible.register_op`, `fusible.register_kernel`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, make_dataclass
from typing import Any

from fusible.compiler.ir.definition import Definition, Elementwise, Opaque, same
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.inference import broadcast_type
from fusible.compiler.ir.ops import OPS, InferFunction, NoAttrs, Op
from fusible.compiler.region.expr import Apply, Arg, Convert, Literal, arguments
from fusible.errors import UsageError
from fusible.kernels.registry import KERNELS, Kernel, NodeFacts

__all__ = ["register_kernel", "register_op"]

_TARGETS = ("numpy", "cpu")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*\Z")


def register_op(
    domain: str,
    name: str,
    *,
    numpy: Callable[..., Any],
    inputs: int | tuple[int, int | None] = 1,
    outputs: int = 1,
    attributes: Mapping[str, Any] | type | None = None,
    infer: InferFunction | None = None,
    definition: Definition | Apply | Arg | Convert | Literal | Callable[[Node], Definition] | None = None,
    commutative: bool = False,
    dynamic: bool = False,
    version: int = 1,
    doc: str = "",
) -> Op:
    """Teach the compiler operator `domain::name`; models that use it then import, fuse, run and save.

    numpy(*inputs, **attributes) -> array or tuple: what the op means; a function at the top level of an importable
    module if artifacts shall be saved. inputs: a number or (least, most). attributes: defaults by name, or a frozen
    dataclass. infer: types of the outputs (default: the broadcast of the inputs, with the first one's dtype); it asks
    `ctx.equal`, `fits`, `at_most`, ... how sizes must agree, so that runs check what symbols decide.
    definition: a scalar expression over Arg(0), Arg(1), ... (the op is then element-wise and fuses), or any definition;
    default Opaque. version: raise it when the meaning changes; artifacts check it.
    Raises UsageError if the name is malformed or taken, or the definition reads more operands than there are.
    """
    if not domain or not _NAME.match(domain) or not _NAME.match(name):
        raise UsageError(
            f"a custom op needs a domain and a name made of letters, digits, '.', '_', '-': {domain}::{name}"
        )
    if version < 1:
        raise UsageError(f"version must be at least 1, got {version}")
    _mark_version(numpy, version)
    arity = (inputs, inputs) if isinstance(inputs, int) else inputs
    _check_operands(f"{domain}::{name}", definition, arity[1])
    return OPS.register(
        Op(
            f"{domain}::{name}",
            infer if infer is not None else broadcast_type,
            _definition(definition),
            None,
            _attributes(name, attributes),
            inputs=arity,
            outputs=outputs,
            commutative=commutative,
            dynamic=dynamic,
            domain=domain,
            version=version,
            doc=doc or (numpy.__doc__ or "").strip().split("\n")[0],
            function=numpy,
        )
    )


def register_kernel(
    op: str,
    *,
    function: Callable[..., Any],
    targets: Sequence[str] = _TARGETS,
    legal: Callable[[NodeFacts], bool | str] | None = None,
    cost: Callable[[NodeFacts], float] | float = 0.5,
    version: int = 1,
) -> Kernel:
    """Offer another implementation of a canonical or custom op.

    function(*inputs, **attributes) returns the op's outputs. targets: by default both, which call it alike.
    legal(facts) -> True or the reason why not (default: always legal). cost: a number, or a function of the facts; the
    op's own kernel costs 1.0, the least cost wins.
    Raises UsageError for an unknown op or target.
    """
    OPS[op]
    if not targets or not set(targets) <= set(_TARGETS):
        raise UsageError(f"targets must be among {_TARGETS}, got {tuple(targets)}")
    _mark_version(function, version)
    price: Callable[[NodeFacts], float] = cost if callable(cost) else _constant_cost(float(cost))
    kernel = Kernel(op, tuple(targets), function, legal if legal is not None else _always, price, version)
    KERNELS.register(kernel)
    return kernel


def _always(facts: NodeFacts) -> bool:
    return True


def _constant_cost(value: float) -> Callable[[NodeFacts], float]:
    return lambda facts: value


def _mark_version(function: Callable[..., Any], version: int) -> None:
    """Leave the version on the function, where a loaded artifact looks for it."""
    if not callable(function):
        raise UsageError(f"a kernel must be a function, got {function!r}")
    if version != 1:
        function.__fusible_version__ = version  # type: ignore[attr-defined]


def _attributes(name: str, given: Mapping[str, Any] | type | None) -> type:
    if given is None:
        return NoAttrs
    if isinstance(given, type):
        return given
    fields = [(key, type(value), field(default=_plain(value))) for key, value in given.items()]
    return make_dataclass(f"{name.replace('.', '_').replace('-', '_')}Attrs", fields, frozen=True)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check_operands(op: str, definition: Any, most: int | None) -> None:
    """Raise UsageError for a scalar definition that reads an operand which the op does not have."""
    if most is None or not isinstance(definition, (Apply, Arg, Convert, Literal)):
        return
    beyond = [index for index in sorted(arguments(definition)) if not 0 <= index < most]
    if beyond:
        last = f"with {most} inputs the last is Arg({most - 1})"
        raise UsageError(f"the definition of {op} reads Arg({beyond[0]}); {last}")


def _definition(given: Any) -> Callable[[Node], Definition]:
    if given is None:
        return same(Opaque("registered without a definition"))
    if isinstance(given, (Apply, Arg, Convert, Literal)):
        return same(Elementwise(given))
    if callable(given):
        return given  # type: ignore[no-any-return]
    return same(given)
