"""Many runs of a small native model: two sessions in two threads, then the same in a forked child.

    python -m tests.runtime.native.endurance [--runs 100000] [--threads 2]

Every run must give the bits of the first one, and memory must not grow once each session has run a few times. Prints
what it saw; exit code 1 if results differ or memory grew.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import threading
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import fusible
from tests.runtime import models

__all__ = ["Outcome", "endure", "forked"]

WARM = 200  # runs before memory is measured, or a tenth of all
GROWTH = 4 << 20  # bytes that allocators take in one or two steps; 50 bytes leaked by each of 100,000 runs are more
SHAPES = ((1, 3, 9, 11), (2, 3, 16, 16))  # each session goes through its own, and through a second one now and then


@dataclass(frozen=True, slots=True)
class Outcome:
    """Runs done, runs whose result differed from the first, bytes by which memory grew, seconds."""

    runs: int
    wrong: int
    grown: int
    seconds: float

    @property
    def good(self) -> bool:
        """True if nothing differed and nothing grew."""
        return self.runs > 0 and self.wrong == 0 and self.grown <= GROWTH


def endure(executable: fusible.Executable, runs: int) -> Outcome:
    """Run two sessions in two threads, `runs` times in all. The model is `models.conv_relu_add`."""
    started, wrong, grown = time.monotonic(), [0, 0], [0, 0]
    begin = threading.Barrier(2)

    def work(number: int) -> None:
        session, other = executable.session(), SHAPES[1 - number]
        own = np.random.default_rng(number).standard_normal(SHAPES[number]).astype(np.float32)
        expected = session.run({"x": own})["u"]
        small = np.zeros(other, np.float32)
        begin.wait()
        before, warm = 0, max(WARM, runs // 20)
        for run in range(runs // 2):
            if run == warm:
                before = _anonymous()
            wrong[number] += not np.array_equal(session.run({"x": own})["u"], expected)
            if run % 100 == 0:
                session.run({"x": small})
        grown[number] = _anonymous() - before if before else 0

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Outcome(2 * (runs // 2), sum(wrong), max(grown), time.monotonic() - started)


def forked(executable: fusible.Executable, runs: int) -> Outcome:
    """`endure` in a forked child, whose pool has lost its threads and starts its own."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # "multi-threaded, use of fork() may lead to deadlocks"
        child = os.fork()
    if child == 0:
        try:
            os.write(write, json.dumps(asdict(endure(executable, runs))).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return Outcome(**json.loads(text)) if text else Outcome(0, 0, 0, 0.0)


def _anonymous() -> int:
    """Bytes of resident memory that no file holds: a forked child maps files anew, which is no growth."""
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:")))


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2, help="of the pool that both sessions share")
    options = parser.parse_args()
    settings = fusible.Options(threads=options.threads)
    executable = fusible.compile(models.conv_relu_add(), target="cpu", options=settings)
    good = True
    for name, run in (("two threads", endure), ("two threads after fork", forked)):
        outcome = run(executable, options.runs)
        good = good and outcome.good
        sys.stdout.write(
            f"{name}: {outcome.runs} runs in {outcome.seconds:.1f} s, {outcome.wrong} differ, memory grew by "
            f"{outcome.grown / 1024:.0f} KiB: {'good' if outcome.good else 'BAD'}\n"
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
