"""Element-wise ops: one scalar expression an element, NumPy broadcasting."""

from __future__ import annotations

from collections.abc import Callable

from fusible.compiler.ir.definition import Elementwise, same
from fusible.compiler.ir.inference import broadcast_content, broadcast_type, like_input
from fusible.compiler.ir.ops import OPS, Op
from fusible.compiler.region.expr import Arg, Expr, apply


def _unary(name: str, expr: Expr) -> None:
    OPS.register(Op(name, like_input, same(Elementwise(expr)), f"elementwise:{name}", accepts_out=False))


def _binary(name: str, expr: Expr, content: Callable[..., object] | None = None, *, commutative: bool = False) -> None:
    OPS.register(
        Op(
            name,
            broadcast_type,
            same(Elementwise(expr)),
            f"elementwise:{name}",
            inputs=(2, 2),
            commutative=commutative,
            propagate=broadcast_content(content) if content is not None else None,
        )
    )


_binary("add", apply("add", Arg(0), Arg(1)), lambda a, b: a + b, commutative=True)
