"""The other end of a worker: start it, ask it, stop its threads while somebody else is measured."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from fusible.benchmarks.peers.protocol import Contestant, PeerError, PeerMissing

__all__ = ["Task", "Worker", "worker_environment"]

LOAD_SECONDS, BLOCK_SECONDS = 600.0, 120.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Task:
    """One model and its inputs, as files that workers read, in a folder that lasts as long as the task."""

    def __init__(self, name: str, model: Path, inputs: Mapping[str, np.ndarray], folder: Path) -> None:
        self.name, self.model, self.folder = name, model.resolve(), folder
        self.inputs = folder / "inputs.npz"
        np.savez(self.inputs, **inputs)  # type: ignore[arg-type]  # its stub takes the names for options


def worker_environment(environment: Mapping[str, str], threads: int) -> dict[str, str]:
    """The environment of a worker: so many threads, and byte code kept.

    Installed packages come with their byte code. A checkout writes its own, unless PYTHONDONTWRITEBYTECODE is set: then
    each process would compile Fusible, and of all contestants Fusible alone.
    """
    kept = {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | dict.fromkeys(_THREAD_VARIABLES, str(threads))


# `import fusible` imports what runs artifacts, which is no work of the other systems: the package is there without what
# its `__init__` does, until the peer `fusible` asks for it.
_START = """
import importlib.util, sys
package = importlib.util.module_from_spec(importlib.util.find_spec("fusible"))
sys.modules["fusible"] = package
from fusible.benchmarks.peers.worker import main
sys.exit(main())
"""


class Worker:
    """A contestant in a process of its own, paused except while it works.

    Its threads must not spin while another contestant is measured, hence the pause: SIGSTOP and SIGCONT. Leave it by
    `close`, or use it in a `with` statement.
    """

    def __init__(self, contestant: Contestant, threads: int) -> None:
        self.contestant, self.threads = contestant, threads
        self.started = time.perf_counter()
        self._log: IO[bytes] = tempfile.TemporaryFile(prefix="fusible-bench-")  # noqa: SIM115  # closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=worker_environment(os.environ, threads),
            start_new_session=True,  # Ctrl-C is for the parent, which then ends its workers
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def load(self, task: Task, *, cache: Path | None) -> dict[str, Any]:
        """Load the model and run it once: version, and seconds of `imports`, `load`, `first_run`, `process`.

        Raises PeerError with the reason if it cannot.
        """
        who = self.contestant
        request = {
            "do": "load",
            "peer": who.peer,
            "option": who.option,
            "plain": who.plain,
            "name": task.name,
            "model": str(task.model),
            "inputs": str(task.inputs),
            "threads": self.threads,
            "cache": None if cache is None else str(cache),
        }
        reply = self._ask(request, LOAD_SECONDS)
        return {**reply, "process": time.perf_counter() - self.started}

    def block(self, iterations: int) -> list[float]:
        """Seconds of each of `iterations` runs, after one that finds cold caches and does not count."""
        request = {"do": "block", "iterations": iterations, "slowdown": self.contestant.slowdown}
        seconds: list[float] = self._ask(request, BLOCK_SECONDS)["seconds"]
        return seconds

    def outputs(self, task: Task) -> dict[str, np.ndarray]:
        """The outputs of one run by name."""
        path = task.folder / "outputs.npz"
        names = self._ask({"do": "outputs", "path": str(path)}, LOAD_SECONDS)["names"]
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[f"a{index}"] for index, name in enumerate(names)}

    def facts(self, *, kernels: bool = True) -> dict[str, Any]:
        """`peak_memory` in bytes, `kernels` of one inference."""
        return self._ask({"do": "facts", "kernels": kernels}, LOAD_SECONDS)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with suppress(BrokenPipeError):  # what the process was killed before it read; the stream is closed
                    stream.close()

    def _ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            reply: dict[str, Any] = json.loads(self._line(request["do"], seconds))
        except BrokenPipeError:
            raise self._died() from None
        self._pause()
        if "error" in reply:
            raise (PeerMissing if reply["missing"] else PeerError)(reply["error"])
        return reply

    def _line(self, what: str, seconds: float) -> bytes:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                raise PeerError(f"{self.contestant.label} did not finish {what!r} within {seconds:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        return line

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            os.kill(self._process.pid, number)

    def _pause(self) -> None:
        """Stop the process and wait until it has stopped: the signal alone leaves its threads running for a while."""
        self._signal(signal.SIGSTOP)
        if self._process.poll() is None:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _died(self) -> PeerError:
        code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        self._log.seek(0)
        said = [line for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        tail = f"; it said: {said[-1][:300]}" if said else ""
        return PeerError(f"the process of {self.contestant.label} {how}{tail}")
