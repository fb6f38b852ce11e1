"""`fusible ops`: the canonical ops, and which ONNX operators they cover."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusible.cli.console import print_json, print_line, print_table
from fusible.cli.parameters import JsonOption

if TYPE_CHECKING:
    from fusible.compiler.ir.ops import Op

__all__ = ["coverage", "ops"]

PatternArgument = Annotated[str, typer.Argument(metavar="[TEXT]", help="Only names with TEXT in them.")]


@dataclass(frozen=True, slots=True)
class Covered:
    """An ONNX operator, the opset its newest version came with, and how it is imported."""

    domain: str
    name: str
    since: int
    way: str


def ops(pattern: PatternArgument = "", json_output: JsonOption = False) -> None:
    """List the canonical ops, and the ONNX operators of the newest opset with the way each is imported."""
    from fusible.compiler.ir.ops import OPS

    chosen = [op for op in OPS if pattern.lower() in op.name.lower()]
    covered = [row for row in coverage() if pattern.lower() in row.name.lower()]
    if json_output:
        print_json({"ops": [_op_facts(op) for op in chosen], "onnx": [_row_facts(row) for row in covered]})
        return
    rows = [(op.name, _arity(op), ", ".join(_attribute(f) for f in fields(op.attrs)), _marks(op)) for op in chosen]
    print_table(("op", "inputs", "attributes", ""), rows)
    print_line()
    print_table(("ONNX operator", "since", "imported by"), [(_title(r), r.since, r.way) for r in covered])
    print_line()
    counts = Counter(row.way for row in covered)
    listed = ", ".join(f"{count} by {way}" if way != "none" else f"{count} not" for way, count in counts.items())
    print_line(f"{len(chosen)} ops; {len(covered)} ONNX operators: {listed or 'none'}")


def coverage() -> Iterator[Covered]:
    """Yield the operators of the standard that are not deprecated, then those beyond it that have a handler."""
    from onnx import defs

    from fusible.compiler.frontend.coverage import way_of
    from fusible.compiler.frontend.handlers import HANDLERS

    seen: set[tuple[str, str]] = set()
    for schema in sorted(defs.get_all_schemas(), key=lambda schema: (schema.domain, schema.name)):
        seen.add((schema.domain, schema.name))
        if not schema.deprecated:
            way = way_of(schema.domain, schema.name, schema.since_version)
            yield Covered(schema.domain, schema.name, schema.since_version, way)
    for handler in HANDLERS:
        if (handler.domain, handler.name) not in seen:
            seen.add((handler.domain, handler.name))
            yield Covered(handler.domain, handler.name, handler.since, "handler")


def _title(row: Covered) -> str:
    return f"{row.domain}::{row.name}" if row.domain else row.name


def _arity(op: Op) -> str:
    least, most = op.inputs
    return str(least) if least == most else f"{least}..{'' if most is None else most}"


def _marks(op: Op) -> str:
    marks = {"commutative": op.commutative, "sizes known only in a run": op.dynamic, "has effects": not op.pure}
    return ", ".join(name for name, holds in marks.items() if holds)


def _attribute(field: Field[Any]) -> str:
    return field.name if field.default is MISSING else f"{field.name}={field.default}"


def _op_facts(op: Op) -> dict[str, object]:
    return {
        "name": op.name,
        "domain": op.domain,
        "inputs": list(op.inputs),
        "outputs": op.outputs,
        "attributes": [field.name for field in fields(op.attrs)],
        "commutative": op.commutative,
        "dynamic": op.dynamic,
        "pure": op.pure,
    }


def _row_facts(row: Covered) -> dict[str, object]:
    return {"domain": row.domain or "ai.onnx", "name": row.name, "since": row.since, "way": row.way}
