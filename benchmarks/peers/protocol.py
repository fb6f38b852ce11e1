"""What a system under test must offer: load a model, run it on inputs that stay where they are, tell about itself."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from fusible.errors import FusibleError, UsageError

__all__ = [
    "PEERS",
    "Contestant",
    "Inputs",
    "Job",
    "Loaded",
    "Peer",
    "PeerError",
    "PeerMissing",
    "find_peer",
    "parse_contestant",
]

Inputs: TypeAlias = Mapping[str, np.ndarray]


class PeerError(FusibleError):
    """A peer cannot run a model, or died."""


class PeerMissing(PeerError):
    """A peer is not installed."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a peer is to load. name: the model's name in the zoo, "" for a file of the user's own.

    cache: a folder where the peer may keep what it compiled, for the later launches of the same run.
    """

    model: Path
    name: str
    inputs: Inputs
    threads: int
    option: str = ""
    cache: Path | None = None


@runtime_checkable
class Loaded(Protocol):
    """A model ready to run on the inputs of its job."""

    def run(self) -> object:
        """One inference, finished when it returns."""

    def outputs(self) -> dict[str, np.ndarray]:
        """The outputs of one inference by name."""

    def kernels(self) -> int | None:
        """Nodes or kernels executed in one inference; None if it cannot be told."""


class Peer(Protocol):
    """A system. Its module is imported in the worker only; importing it imports the system."""

    version: str

    def load(self, job: Job) -> Loaded:
        """Load and compile. Raises PeerError with a reason for a model that it cannot run."""


# name -> (module: a class `System` that is a Peer, what to install, what it is)
PEERS: Mapping[str, tuple[str, str, str]] = {
    "fusible": ("fusible_peer", "fusible", "this compiler; :TARGET chooses the target, :cpu:bf16 the precision too"),
    "onnxruntime": ("onnxruntime_peer", "onnxruntime", "ONNX Runtime, all optimisations; :ort loads an .ort file"),
    "onnxruntime-unoptimised": ("onnxruntime_peer", "onnxruntime", "ONNX Runtime, optimisations disabled"),
    "openvino": ("openvino_peer", "openvino", "OpenVINO, latency hint, fp32; :bf16 hints at that precision"),
    "torch-inductor": ("inductor_peer", "torch", "torch.compile of the zoo's own torch module, weights frozen"),
}


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who takes part. slowdown: every run is stretched to so many times its duration (to test the benchmark itself).

    plain: the worker runs a plain loop as a user would write it, instead of the adapter.
    """

    peer: str
    option: str = ""
    slowdown: float = 1.0
    plain: bool = False

    @property
    def precision(self) -> str:
        """Of what it multiplies, as its option says."""
        return "bf16" if self.option.rpartition(":")[2] == "bf16" else "fp32"

    @property
    def label(self) -> str:
        """How tables call it."""
        text = f"{self.peer}:{self.option}" if self.option else self.peer
        text = f"{text}*{self.slowdown:g}" if self.slowdown != 1.0 else text
        return f"plain loop of {text}" if self.plain else text


def parse_contestant(text: str) -> Contestant:
    """`onnxruntime`, `fusible:numpy`, `onnxruntime*1.05` (each run stretched by 5 %). Raises UsageError."""
    rest, star, factor = text.strip().partition("*")
    peer, _, option = rest.partition(":")
    if peer not in PEERS:
        raise UsageError(f"no peer is called {peer!r}; there are {', '.join(PEERS)}")
    try:
        slowdown = float(factor) if star else 1.0
    except ValueError:
        raise UsageError(f"{text!r}: after * a number such as 1.05 is expected, got {factor!r}") from None
    if not 1.0 <= slowdown <= 100.0:
        raise UsageError(f"{text!r}: a run can be stretched to 1 to 100 times its duration, not {slowdown:g}")
    return Contestant(peer, option, slowdown)


def find_peer(name: str, option: str = "") -> Peer:
    """Import a peer's adapter, and with it the system. Raises PeerError if it is not installed."""
    module, package, _ = PEERS[name]
    try:
        found = importlib.import_module(f"fusible.benchmarks.peers.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise PeerMissing(f"{name} is not installed; pip install {package}, or pip install 'fusible[bench]'") from error
    peer: Peer = found.System(name, option)
    return peer
