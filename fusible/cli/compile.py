"""`fusible compile MODEL -o OUT`: build an artifact."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusible.cli.console import aligned, bytes_text, print_json, print_line
from fusible.cli.models import compile_file, options_for
from fusible.cli.parameters import (
    AllowHostOption,
    AlsoOption,
    JsonOption,
    ModelArgument,
    PrecisionOption,
    ShapeOption,
    TargetOption,
    TuningOption,
)

if TYPE_CHECKING:
    from fusible.runtime.executable import Executable
    from fusible.runtime.report import Report

__all__ = ["compile_model"]

OutputOption = Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="The artifact.", show_default=False)]
PassesOption = Annotated[
    list[Path] | None,
    typer.Option("--passes", metavar="F.py", help="A file that defines register(pipeline). Repeatable."),
]
DisableOption = Annotated[list[str] | None, typer.Option(metavar="PASS", help="Leave a pass out. Repeatable.")]
LimitOption = Annotated[int | None, typer.Option(min=0, metavar="N", help="Stop after N rewrites, to bisect.")]
DumpOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Write the graph after every pass that changed it.")
]


def compile_model(
    model: ModelArgument,
    output: OutputOption,
    target: TargetOption = "auto",
    shape: ShapeOption = None,
    precision: PrecisionOption = "fp32",
    allow_host: AllowHostOption = False,
    also: AlsoOption = None,
    tuning: TuningOption = None,
    passes: PassesOption = None,
    disable: DisableOption = None,
    limit: LimitOption = None,
    dump: DumpOption = None,
    json_output: JsonOption = False,
) -> None:
    """Compile MODEL and write the artifact OUT."""
    from fusible.passes.instruments import Dump

    began = perf_counter()
    executable = compile_file(
        model,
        target,
        shape or (),
        pass_files=passes or (),
        disabled=disable or (),
        options=options_for(precision, allow_host=allow_host, also=also or (), tuning=tuning),
        instruments=() if dump is None else (Dump(dump),),
        limit=limit,
    )
    executable.save(output)
    facts = _facts(executable, output, perf_counter() - began)
    if json_output:
        print_json({**facts, "report": json.loads(executable.report.to_json())})
        return
    for line in _lines(executable, facts):
        print_line(line)


def _facts(executable: Executable, output: Path, seconds: float) -> dict[str, Any]:
    return {
        "artifact": str(output),
        "bytes": output.stat().st_size,
        "target": executable.target,
        "seconds": round(seconds, 3),
        "inputs": [str(spec) for spec in executable.inputs],
        "outputs": [str(spec) for spec in executable.outputs],
    }


def _lines(executable: Executable, facts: dict[str, Any]) -> Iterator[str]:
    report = executable.report
    yield f"{facts['artifact']}: {bytes_text(facts['bytes'])}, for {facts['target']}, in {facts['seconds']:.2f} s"
    yield from aligned(
        {
            "inputs": ", ".join(facts["inputs"]),
            "outputs": ", ".join(facts["outputs"]),
            "steps": len(report.kernels),
            **_configurations(report),
            "rewrites": _counted(row["rule"] or row["pass"] for row in report.fusions) or "none",
        }
    )
    yield from (f"note: {note}" for note in report.notes)


def _configurations(report: Report) -> dict[str, str]:
    """How the configurations of Triton kernels were chosen."""
    chosen = {row["kernel"]: row["chosen"] for row in report.kernels if "chosen" in row}
    found = Counter(chosen.values())
    return {"configurations": ", ".join(f"{n} {how}" for how, n in sorted(found.items()))} if found else {}


def _counted(names: Iterator[str]) -> str:
    return ", ".join(f"{name} x {count}" if count > 1 else name for name, count in Counter(names).items())
