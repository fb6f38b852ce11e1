"""`fusible check MODEL`: every operator, whether and how it is supported, and the memory a run takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from fusible.cli.console import aligned, bytes_text, escape_controls, print_json, print_line, print_table, progress
from fusible.cli.models import compile_file, existing
from fusible.cli.parameters import JsonOption, ModelArgument, ShapeOption
from fusible.cli.shapes import parse_shapes

if TYPE_CHECKING:
    from fusible.compiler.frontend.coverage import Coverage, Operator

__all__ = ["check"]

TARGETS = ("numpy", "cpu", "triton-cpu")
SHOWN_NODES = 3


def check(model: ModelArgument, shape: ShapeOption = None, json_output: JsonOption = False) -> None:
    """List the operators of MODEL, on which target each is supported or why not, and the memory of a run.

    Exit code 1 if anything is not supported.
    """
    from fusible.compiler.frontend.coverage import import_covering
    from fusible.compiler.frontend.load import load_model
    from fusible.compiler.options import Limits

    limits = Limits()
    with progress(f"importing {model.name}"):
        coverage = import_covering(load_model(existing(model), limits), limits, parse_shapes(shape or ()))
    memory = dict(compile_file(model, "numpy", shape or ()).report.memory) if coverage.supported else None
    if json_output:
        print_json(_facts(coverage, memory))
    else:
        _show(coverage, memory)
    if not coverage.supported:
        raise typer.Exit(1)


def _facts(coverage: Coverage, memory: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "supported": coverage.supported,
        "targets": list(TARGETS),
        "operators": [
            {
                "domain": operator.domain or "ai.onnx",
                "name": operator.name,
                "opset": operator.opset,
                "count": operator.count,
                "way": operator.way,
                "targets": [] if operator.reasons else list(TARGETS),
                "reasons": [{"node": node, "why": why} for node, why in operator.reasons],
            }
            for operator in coverage.operators
        ],
        "memory": memory,
    }


def _show(coverage: Coverage, memory: dict[str, Any] | None) -> None:
    rows = [
        (escape_controls(o.title), o.opset, o.count, *("no" if o.reasons else "yes" for _ in TARGETS), o.way)
        for o in coverage.operators
    ]
    print_table(("operator", "opset", "nodes", *TARGETS, "imported by"), rows)
    for operator in coverage.operators:
        for line in _reason_lines(operator):
            print_line(line)
    if memory is None:
        kinds = sum(bool(operator.reasons) for operator in coverage.operators)
        print_line(
            f"\nnot supported: {kinds} of {len(coverage.operators)} operators; `fusible.register_op` adds your own"
        )
        return
    print_line()
    for line in aligned(memory_facts(memory)):
        print_line(line)


def _reason_lines(operator: Operator) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for node, why in operator.reasons:
        by_reason.setdefault(why, []).append(node)
    return [
        escape_controls(f"{operator.title}: {why} (at {_listed(nodes)})") for why, nodes in sorted(by_reason.items())
    ]


def _listed(names: list[str]) -> str:
    rest = len(names) - SHOWN_NODES
    return ", ".join(map(repr, names[:SHOWN_NODES])) + (f" and {rest} more" if rest > 0 else "")


def memory_facts(memory: dict[str, Any]) -> dict[str, str]:
    """Return the memory part of a report as texts by name."""
    arena = memory["arena_bytes"]
    facts = {
        "constants": bytes_text(memory["constant_bytes"]),
        "buffers of a run": "as the sizes are" if arena is None else bytes_text(arena),
    }
    if arena is not None and (sizes := memory.get("arena_bytes_at")):
        facts["buffers of a run"] += " at " + ", ".join(f"{name} = {value}" for name, value in sizes.items())
    if late := memory.get("values_outside_arena"):
        facts["values outside the buffers"] = str(late)
    return facts
