"""Kernels built one at a time by several processes, of which one may die or be given up without the others.

What a process makes goes into the cache of native code, where `build_kernels` finds it. A process imports Triton once.

`python -m fusible.compiler.backends.triton.build_pool` is what the processes run: it reads a line of JSON that says for
what to build, then a kernel in each line, and answers each with a line: the words of an error, or none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from fusible.compiler.backends.triton.build_kernels import Form, build_kernels, sent_gpu, sent_kernel
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.errors import FusibleError, KernelBuildError
from fusible.runtime.devices.code import DeviceKernel

__all__ = ["BuildPool"]

T = TypeVar("T")
_TOLD = 2000  # characters of what a dead process said last


class BuildPool:
    """Processes that build kernels for one GPU, in the order in which they are asked. Threads may share it."""

    def __init__(self, gpu: GpuTarget, form: Form, cache_dir: Path, workers: int) -> None:
        """Take what to build for, and how many processes may run; each starts when it is wanted."""
        self._gpu, self._form, self._cache = gpu, form, cache_dir
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="build")
        self._own = threading.local()
        self._all: list[_Worker] = []
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, kernel: DeviceKernel, then: Callable[[DeviceKernel], T]) -> Future[T]:
        """Build a kernel, unless the cache has it, then do more with it in the same thread.

        The future raises KernelBuildError if Triton refuses the kernel or its process dies, and what `then` raises.
        """
        return self._executor.submit(self._job, kernel, then)

    def call(self, function: Callable[[DeviceKernel], T], kernel: DeviceKernel) -> Future[T]:
        """Do with a kernel what needs no building, in its turn."""
        return self._executor.submit(function, kernel)

    def _job(self, kernel: DeviceKernel, then: Callable[[DeviceKernel], T]) -> T:
        worker = getattr(self._own, "worker", None)
        if worker is None or not worker.alive:
            worker = self._own.worker = self._started()
        problem = worker.build(kernel)
        if problem:
            raise KernelBuildError(kernel.source, ["triton", kernel.entry, self._gpu.target], problem)
        return then(kernel)

    def _started(self) -> _Worker:
        with self._lock:
            if self._closed:
                raise KernelBuildError("", ["triton"], "the pool of building processes was closed")
            worker = _Worker({"gpu": asdict(self._gpu), "form": self._form.value, "cache": str(self._cache)})
            self._all.append(worker)
            return worker

    def close(self) -> None:
        """Give up what has not been built."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed = True
            for worker in self._all:
                worker.kill()
        self._executor.shutdown(wait=True)
        for worker in self._all:
            worker.kill()
            worker.dispose()


class _Worker:
    """One process."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment,
        )  # fmt: skip
        self._settings: str | None = json.dumps(settings)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def build(self, kernel: DeviceKernel) -> str:
        """What is wrong with a kernel; nothing if it was built."""
        assert self._process.stdin is not None and self._process.stdout is not None
        lines = [line for line in (self._settings, json.dumps(asdict(kernel))) if line is not None]
        self._settings = None
        try:
            self._process.stdin.write("\n".join([*lines, ""]))
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except (OSError, ValueError):
            answer = ""
        if not answer:
            self.kill()
            return f"its process ended with {self._process.wait()}: {self._last_words()}"
        return str(json.loads(answer))

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-_TOLD:]

    def kill(self) -> None:
        """End the process; a thread that waits for its answer reads that there is none."""
        self._process.kill()

    def dispose(self) -> None:
        """Let go of an ended process. No thread may wait for it any more."""
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with suppress(OSError):  # what was not sent to it any more
                if pipe is not None:
                    pipe.close()


def _serve() -> None:
    """Answer lines until there are no more. What Triton itself prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())
    gpu, form, cache = sent_gpu(settings["gpu"]), Form(settings["form"]), Path(settings["cache"])
    for line in sys.stdin:
        problem = _built(json.loads(line), gpu, form, cache)
        answers.write(json.dumps(problem) + "\n")
        answers.flush()


def _built(fields: dict[str, Any], gpu: GpuTarget, form: Form, cache: Path) -> str:
    try:
        build_kernels([sent_kernel(fields)], gpu, form, cache)
    except FusibleError as error:
        return str(error) or type(error).__name__
    return ""


if __name__ == "__main__":
    _serve()
