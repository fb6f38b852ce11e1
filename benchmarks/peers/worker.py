"""The process that runs one peer: requests and answers as JSON lines.

A process of its own for each contestant: thread pools clash otherwise, peak memory is the contestant's own, and one
that crashes takes nobody with it. Answers go to the descriptor that was standard output; what a system prints goes to
standard error. The process ends with its parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from fusible.benchmarks.measure.interleave import time_block
from fusible.benchmarks.peers.plain import PLAIN_LOOPS
from fusible.benchmarks.peers.protocol import Job, Loaded, PeerError, PeerMissing, find_peer
from fusible.errors import FusibleError

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
Reply = dict[str, Any]


class _Worker:
    """One contestant and its state."""

    def __init__(self) -> None:
        self.loaded: Loaded | None = None
        self.loop: Callable[[int], float] | None = None

    def load(self, request: Mapping[str, Any]) -> Reply:
        """Import the system, load the model, run it once; the seconds of each."""
        with np.load(request["inputs"], allow_pickle=False) as stored:
            inputs = {name: stored[name] for name in stored.files}
        cache = Path(request["cache"]) if request["cache"] else None
        job = Job(Path(request["model"]), request["name"], inputs, request["threads"], request["option"], cache)
        if request["plain"]:
            self.loop = PLAIN_LOOPS[request["peer"]](job)
            self.loop(2)
            return {"version": ""}
        started = time.perf_counter()
        peer = find_peer(request["peer"], request["option"])
        imported = time.perf_counter()
        self.loaded = peer.load(job)
        ready = time.perf_counter()
        self.loaded.run()
        done = time.perf_counter()
        seconds = {"imports": imported - started, "load": ready - imported, "first_run": done - ready}
        return {"version": peer.version, **seconds}

    def block(self, request: Mapping[str, Any]) -> Reply:
        """Seconds of each iteration of a block (of a plain loop: their mean)."""
        iterations, slowdown = request["iterations"], request["slowdown"]
        if self.loop is not None:
            return {"seconds": [self.loop(iterations)]}
        loaded = self._model()
        run = loaded.run if slowdown == 1.0 else _stretched(loaded.run, slowdown)
        return {"seconds": time_block(run, iterations)}

    def outputs(self, request: Mapping[str, Any]) -> Reply:
        """Write the outputs of a run to a file."""
        results = self._model().outputs()
        numbers = {f"a{i}": np.asarray(a) for i, a in enumerate(results.values())}
        texts = {k: a.astype(np.str_) if a.dtype == object else a for k, a in numbers.items()}
        np.savez(request["path"], **texts)  # type: ignore[arg-type]  # its stub takes the names for options
        return {"names": list(results)}

    def facts(self, request: Mapping[str, Any]) -> Reply:
        """Peak memory, then the kernels of one inference (counting them may load the model again)."""
        peak = _peak_memory()
        return {"peak_memory": peak, "kernels": self._model().kernels() if request["kernels"] else None}

    def _model(self) -> Loaded:
        if self.loaded is None:
            raise PeerError("no model is loaded yet")
        return self.loaded


def _stretched(run: Callable[[], object], slowdown: float) -> Callable[[], object]:
    """`run`, and then busy for a fixed share of the time it took: a planted slowdown."""

    def slow() -> object:
        started = time.perf_counter()
        result = run()
        until = started + (time.perf_counter() - started) * slowdown
        while time.perf_counter() < until:
            pass
        return result

    return slow


def _peak_memory() -> int:
    """Bytes of the largest resident set so far (`ru_maxrss` may count the parent's)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise PeerError("/proc/self/status has no VmHWM; peak memory needs Linux")


def _answer(worker: _Worker, request: Mapping[str, Any]) -> Reply:
    try:
        handle: Callable[[Mapping[str, Any]], Reply] = getattr(worker, request["do"])
        return handle(request)
    except (FusibleError, MemoryError) as error:
        return {"error": str(error) or "out of memory", "missing": isinstance(error, PeerMissing)}
    # Anything else ends this process; its last words, the end of the traceback, become the reason of its row.


def _own_channel() -> IO[str]:
    """Take standard output for the answers; whatever a system prints goes to standard error."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def main() -> int:
    """Serve until the input ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # stopped workers would outlive a killed parent
    channel, worker = _own_channel(), _Worker()
    for line in sys.stdin:
        channel.write(json.dumps(_answer(worker, json.loads(line))) + "\n")
        channel.flush()
    return 0
