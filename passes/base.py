"""What a pass is: a name, an exactness, and `run(graph, context)`; valid graph in, valid graph out."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.errors import LimitExceeded
from fusible.passes.exactness import Exactness
from fusible.passes.ledger import Entry, Kind, Ledger

__all__ = ["Compare", "GraphPass", "Pass", "PassContext", "Phase", "value_name"]

Compare: TypeAlias = Callable[[np.ndarray, np.ndarray, Exactness], "str | None"]
"""(reference, got, exactness of the rewrite) -> what is wrong, or None."""


class Phase(StrEnum):
    """The phases of every pipeline, in order."""

    IMPORT = "import"
    CANONICAL = "canonical"
    OPTIMISE = "optimise"
    FUSE = "fuse"
    LOWER = "lower"


@dataclass
class PassContext:
    """What a pass may know beside the graph, and where it reports.

    fold_bytes: the largest constant that folding may create. exactness: the loosest rewrite allowed. limit: how many
    applications are allowed in all (None: any number), to bisect; `applications` counts them. deadline: of
    `time.monotonic()`. verify: "off", "passes" or "rewrites"; the last needs `compare`. target: facts about the target.
    loop_iterations: of a Loop that is run while compiling.
    """

    ledger: Ledger = field(default_factory=Ledger)
    exactness: Exactness = Exactness.REASSOCIATING
    fold_bytes: int = 64 * 2**20
    limit: int | None = None
    applications: int = 0
    deadline: float | None = None
    compile_seconds: float = 0.0
    verify: Literal["off", "passes", "rewrites"] = "off"
    compare: Compare | None = None
    target: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    loop_iterations: int = 100_000
    seed: int = 0

    @property
    def exhausted(self) -> bool:
        """True if no application is left."""
        return self.limit is not None and self.applications >= self.limit

    def take(self) -> bool:
        """Count one application. False, and nothing may be changed, if the limit is reached."""
        if self.exhausted:
            return False
        self.applications += 1
        return True

    def check_deadline(self, where: str) -> None:
        """Raise LimitExceeded if the compilation has taken too long."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise LimitExceeded("compile_seconds", "more", self.compile_seconds, where)


class Pass(ABC):
    """A step of the pipeline. `exactness`: the strictest bound under which it does anything."""

    name: str
    exactness: Exactness = Exactness.EXACT

    @abstractmethod
    def run(self, graph: Graph, context: PassContext) -> int:
        """Change the graph; return the number of changes (0: the graph is as it was)."""

    def __repr__(self) -> str:
        return f"<Pass {self.name}>"


class GraphPass(Pass):
    """A pass that treats a graph and each subgraph in the same way, inner ones first."""

    def run(self, graph: Graph, context: PassContext) -> int:
        """Run on every graph."""
        return sum(self.run_one(inner, context) for inner in reversed(list(graph.all_graphs())))

    @abstractmethod
    def run_one(self, graph: Graph, context: PassContext) -> int:
        """Change one graph without looking into subgraphs; return the number of changes."""

    def note(
        self, context: PassContext, kind: Kind, nodes: tuple[str, ...], reason: str = "", *culprits: Value | Node
    ) -> None:
        """Write a line of the ledger."""
        names = tuple(value_name(culprit) for culprit in culprits)
        context.ledger.add(Entry(kind, self.name, "", nodes, reason, names))


def value_name(culprit: Value | Node) -> str:
    """How messages call a value (its name, else its producer) or a node (its ONNX names)."""
    if isinstance(culprit, Node):
        return ", ".join(culprit.origin) or culprit.op.name
    if culprit.name:
        return culprit.name
    if culprit.producer is not None:
        return f"{culprit.producer.op.name} of {value_name(culprit.producer)}"
    return f"constant {culprit.type}" if culprit.constant is not None else f"value {culprit.type}"
