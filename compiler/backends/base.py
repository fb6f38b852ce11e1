"""What a backend gives the planner for one node, and the protocol it follows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.symbols import Dim

__all__ = ["Backend", "Block", "CustomFunction", "Emitted", "Pending", "Support", "word_of"]


@dataclass(frozen=True, slots=True)
class Support:
    """Whether a backend takes a node; if not, why."""

    ok: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CustomFunction:
    """A kernel of the user's: the function, the path by which an artifact finds it, its version."""

    function: Callable[..., Any]
    path: str
    version: int


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """An array of a plan that `make` computes when the plan is complete, beside others; its type is known before."""

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """The size of the elements in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Emitted:
    """The generated kernel of one node.

    text: a Python function called `name`. writes: it writes into buffers it is given (else it returns its results).
    dims: dimension arguments, after inputs and outputs. inplace: output 0 may use the memory of one of these inputs.
    native: `name` is a function of the native library, and there is no text. inputs: what it reads, if that is not the
    node's inputs. constants: arrays that stand in the place of some of them.
    """

    name: str
    text: str
    writes: bool
    dims: tuple[Dim, ...] = ()
    inplace: tuple[int, ...] = ()
    view: bool = False
    native: bool = False
    inputs: tuple[Value | None, ...] | None = None
    constants: Mapping[int, np.ndarray | Pending] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Block:
    """Where a value lives if not in a buffer of its own: in that of `root`, from the element `corner` on.

    whole: the shape of the root. Its buffer is there before it is complete, from the first of its blocks on.
    """

    root: Value
    corner: tuple[Dim, ...]
    whole: tuple[Dim, ...]


class Backend(Protocol):
    """Turns nodes into kernels. `supports` has no side effects; `emit` is deterministic.

    order: in which order a value's dimensions are stored, None for row-major. block: the part of another value's buffer
    that a value lives in; None if it has its own. done: True for a node whose result is complete once its operands are.
    """

    def supports(self, node: Node) -> Support: ...

    def emit(self, node: Node, name: str) -> Emitted: ...

    def order(self, value: Value) -> tuple[int, ...] | None: ...

    def block(self, value: Value) -> Block | None: ...

    def done(self, node: Node) -> bool: ...

    def module(self, kernels: list[Emitted]) -> str: ...


def word_of(node: Node) -> str:
    """A name for people: the op, or the ops of a group; letters, digits and _ only."""
    ops = [inner.op.name for inner in node.subgraphs[0]] if node.op.name == "fused" else [node.op.name]
    text = "_".join(ops)
    short = text if len(text) <= 40 else f"{text[:32]}_{hashlib.sha256(text.encode()).hexdigest()[:6]}"
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in short)
