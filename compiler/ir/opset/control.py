"""Control flow: `if` and `loop` hold subgraphs; what these capture follows their own inputs.

if:   inputs (condition, *captures); both subgraphs take the captures and give the outputs.
loop: inputs (trip count or None, condition or None, *carried, *captures); the body takes (iteration, condition,
      *carried, *captures) and gives (condition, *carried, *scans); the outputs are the carried values at the end and
      each scan stacked along a new first axis.
fail: no inputs; stops the run with an error. It stands in a branch that contradicts itself where another is taken.
require: gives its condition, or stops the run if that is not as expected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusible.compiler.ir.analysis import defined_symbols
from fusible.compiler.ir.definition import Opaque, same
from fusible.compiler.ir.ops import OPS, Infer, NoAttrs, Op
from fusible.compiler.ir.symbol_values import symbols_of
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType, OptionalType, SequenceType, TensorType, Type

if TYPE_CHECKING:
    from fusible.compiler.ir.graph import Value

__all__ = ["FailAttrs", "LoopAttrs", "RequireAttrs", "merge_types"]


@dataclass(frozen=True, slots=True)
class LoopAttrs:
    """carried: the number of values that go from one iteration to the next."""

    carried: int


@dataclass(frozen=True, slots=True)
class FailAttrs:
    """message: why the run cannot go on here. results: the types that the outputs would have."""

    message: str
    results: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class RequireAttrs:
    """expected: what the condition must be. message: why the run cannot go on if it is not."""

    expected: bool
    message: str


def merge_types(ctx: Infer, a: Type | None, b: Type | None, hint: str) -> Type:
    """The least type that holds values of both: dimensions that differ become fresh symbols."""
    match a, b:
        case TensorType(dtype=left), TensorType(dtype=right):
            if left is not right:
                ctx.fail(f"the branches give {a} and {b}")
            if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
                return TensorType(left, None)
            dims = (_merge_dims(ctx, x, y, hint) for x, y in zip(a.shape, b.shape, strict=True))
            return TensorType(left, tuple(dims))
        case SequenceType(element=left_element), SequenceType(element=right_element):
            return SequenceType(_merge_elements(ctx, left_element, right_element, hint))
        case OptionalType(element=left_element), OptionalType(element=right_element):
            return OptionalType(_merge_elements(ctx, left_element, right_element, hint))
        case OptionalType(element=element), other:
            return OptionalType(_merge_elements(ctx, element, other, hint))
        case other, OptionalType(element=element):
            return OptionalType(_merge_elements(ctx, other, element, hint))
    ctx.fail(f"the branches give {a} and {b}")


def _merge_elements(ctx: Infer, a: Type | None, b: Type | None, hint: str) -> Type | None:
    if a is None or b is None or a == b:
        return a if b is None else b
    if isinstance(a, TensorType) and isinstance(b, TensorType) and a.dtype is b.dtype:
        return TensorType(a.dtype, None)
    ctx.fail(f"the branches give elements {a} and {b}")


def _merge_dims(ctx: Infer, a: Dim, b: Dim, hint: str) -> Dim:
    if a == b and all(_visible(ctx, s.name) for s in symbols_of(a)):
        return a
    return ctx.fresh(hint)


def _visible(ctx: Infer, symbol: str) -> bool:
    return not any(symbol in defined_symbols(g) for g in ctx.subgraphs)


def _if(ctx: Infer) -> list[Type]:
    then, otherwise = ctx.subgraphs
    if len(then.outputs) != len(otherwise.outputs):
        ctx.fail(f"one branch gives {len(then.outputs)} values, the other {len(otherwise.outputs)}")
    pairs = zip(then.outputs, otherwise.outputs, strict=True)
    return [_if_type(ctx, a, b) for a, b in pairs]


def _if_type(ctx: Infer, a: Value, b: Value) -> Type:
    """A branch that fails gives nothing, so the other one decides."""
    if _fails(a) != _fails(b):
        a, b = (b, b) if _fails(a) else (a, a)
    return merge_types(ctx, a.type, b.type, "if")


def _fails(value: Value) -> bool:
    return value.producer is not None and value.producer.op.name == "fail"


def _fail(ctx: Infer) -> list[Type]:
    return list(ctx.attrs.results)


def _require(ctx: Infer) -> TensorType:
    if ctx.dtype(0) is not DType.BOOL:
        ctx.fail(f"the condition must be boolean, got {ctx.type(0)}")
    return TensorType(DType.BOOL, ctx.shape(0))


def _loop(ctx: Infer) -> list[Type]:
    body, carried = ctx.subgraphs[0], ctx.attrs.carried
    results = [merge_types(ctx, v.type, v.type, "loop") for v in body.inputs[2 : 2 + carried]]
    scans = body.outputs[1 + carried :]
    trips: Dim = _trip_count(ctx) if scans else 0
    for value in scans:
        element = merge_types(ctx, value.type, value.type, "loop")
        if not isinstance(element, TensorType):
            ctx.fail(f"a scan output must be a tensor, got {element}")
        results.append(TensorType(element.dtype, None if element.shape is None else (trips, *element.shape)))
    return results


def _trip_count(ctx: Infer) -> Dim:
    """The number of iterations where it is sure: a known count and a condition that stays true."""
    content, body = ctx.content(0), ctx.subgraphs[0]
    condition = body.outputs[0].content
    always = not ctx.has(1) or (ctx.content(1) is not None and bool(ctx.content(1).ravel()[0]))  # type: ignore[union-attr]
    passed_on = body.outputs[0] is body.inputs[1] or (condition is not None and condition.ravel()[0] is True)
    if content is not None and always and passed_on:
        count = content.ravel()[0]
        if not isinstance(count, int) or count >= 0:
            return count if not isinstance(count, int) else max(count, 0)
    return ctx.fresh("trips")


_CONTROL = same(Opaque("it holds subgraphs"))
OPS.register(Op("if", _if, _CONTROL, None, NoAttrs, inputs=(1, None), outputs=None, dynamic=True))
OPS.register(Op("loop", _loop, _CONTROL, None, LoopAttrs, inputs=(2, None), outputs=None, dynamic=True))
OPS.register(
    Op(
        "fail",
        _fail,
        same(Opaque("it stops the run")),
        "control:fail",
        FailAttrs,
        inputs=(0, 0),
        outputs=None,
        pure=False,
        dynamic=True,
    )
)
OPS.register(
    Op(
        "require",
        _require,
        same(Opaque("it may stop the run")),
        "control:require",
        RequireAttrs,
        inputs=(1, 1),
        outputs=1,
        pure=False,
    )
)
