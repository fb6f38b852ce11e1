"""What may look at a graph while a pipeline runs: verify, time, dump, diff. Instruments never change the graph."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path

from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.text import print_graph
from fusible.compiler.ir.verify import verify
from fusible.passes.base import Phase

__all__ = ["Diff", "Dump", "Instrument", "Step", "Timing", "Verify"]


@dataclass(frozen=True, slots=True)
class Step:
    """One run of one pass: its number, phase and name, how many changes it made, in how many seconds."""

    number: int
    phase: Phase
    name: str
    changes: int
    seconds: float

    @property
    def title(self) -> str:
        """`NNN_pass`."""
        return f"{self.number + 1:03d}_{self.name}"


class Instrument:
    """Called before the first and after every pass."""

    @property
    def dumps(self) -> list[str]:
        """The paths of files written so far."""
        return []

    def start(self, graph: Graph) -> None:
        """Called once with the graph as it was imported."""

    def after(self, step: Step, graph: Graph) -> None:
        """Called after each pass."""


class Verify(Instrument):
    """Checks the invariants of the IR; a violation is raised as PassError naming the pass."""

    def start(self, graph: Graph) -> None:
        """Verify the imported graph."""
        verify(graph)

    def after(self, step: Step, graph: Graph) -> None:
        """Verify after a pass, also if it says that it changed nothing."""
        verify(graph)


@dataclass
class Timing(Instrument):
    """Collects the steps with their times."""

    steps: list[Step] = field(default_factory=list)

    def after(self, step: Step, graph: Graph) -> None:
        """Remember the step."""
        self.steps.append(step)

    def seconds(self) -> dict[str, float]:
        """The time of each pass over all its runs, the longest first."""
        total: dict[str, float] = {}
        for step in self.steps:
            total[step.name] = total.get(step.name, 0.0) + step.seconds
        return dict(sorted(total.items(), key=lambda item: -item[1]))

    def __str__(self) -> str:
        lines = [f"{s.seconds * 1e3:9.2f} ms  {s.changes:6d} changes  {s.phase}/{s.name}" for s in self.steps]
        return "\n".join(lines)


class Dump(Instrument):
    """Writes the graph to `NNN_pass.txt` after each pass that changed it; 000_import.txt is where it began."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._written: list[str] = []

    @property
    def dumps(self) -> list[str]:
        """The files written."""
        return list(self._written)

    def start(self, graph: Graph) -> None:
        """Write the imported graph."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write("000_import.txt", print_graph(graph))

    def after(self, step: Step, graph: Graph) -> None:
        """Write the graph after a pass."""
        if step.changes:
            self._write(f"{step.title}.txt", print_graph(graph))

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text + ("" if text.endswith("\n") else "\n"), encoding="utf-8")
        self._written.append(str(path))


class Diff(Dump):
    """Writes what each pass changed to `NNN_pass.diff`."""

    def start(self, graph: Graph) -> None:
        """Remember the imported graph."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._before = print_graph(graph)

    def after(self, step: Step, graph: Graph) -> None:
        """Write the lines that a pass removed and added."""
        if not step.changes:
            return
        now = print_graph(graph)
        changed = difflib.unified_diff(
            self._before.splitlines(), now.splitlines(), "before", f"after {step.name}", lineterm="", n=2
        )
        self._write(f"{step.title}.diff", "\n".join(changed))
        self._before = now
