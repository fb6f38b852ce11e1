"""The thread pool: every item once, whoever runs it, wherever it was started."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from fusible.errors import DeviceError, UsageError
from fusible.kernels import cpu
from fusible.runtime.native.compiler import Compiler, CompilerKind, run_command
from fusible.runtime.native.machine import usable_threads
from fusible.runtime.native.pool import Pool

HERE = Path(__file__).parent
PROCESSORS = sorted(os.sched_getaffinity(0))


def counts_of(checks: ctypes.CDLL, pool: Pool, items: int) -> np.ndarray:
    """Return how often each item of one run was done."""
    counts = np.zeros(max(items, 1), np.int32)
    checks.count(pool.handle, counts.ctypes.data, items)
    return counts[:items]


OTHERS: set[str] = set()  # threads of pools that belong to executables which fixtures of other tests hold


def workers() -> list[dict[str, str]]:
    """Return /proc/self/task/*/status of the threads that this file's pools have started."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        lines = (line.partition(":") for line in (task / "status").read_text().splitlines())
        status = {name: value.strip() for name, _, value in lines}
        found += [status] if status["Name"].startswith("fusible-") and status["Pid"] not in OTHERS else []
    return found


def no_workers() -> bool:
    """Return whether none is left, soon: a joined thread is listed for a moment longer."""
    end = time.monotonic() + 10
    while workers() and time.monotonic() < end:
        time.sleep(0.001)
    return not workers()


@pytest.fixture(autouse=True)
def pools_of_other_tests() -> None:
    """Executables have pools of their own: those that nobody holds any more are collected, the others are known."""
    gc.collect()
    OTHERS.clear()
    OTHERS.update(status["Pid"] for status in workers())


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_every_item_is_done_once(checks: ctypes.CDLL, pool_library: ctypes.CDLL, threads: int) -> None:
    with Pool(threads, library=pool_library) as pool:
        assert pool.threads == threads
        for items in (0, 1, 2, 3, 7, 1000, 100_003):
            assert (counts_of(checks, pool, items) == 1).all(), items
        assert counts_of(checks, pool, -1).size == 0


def test_a_hundred_thousand_short_runs(checks: ctypes.CDLL, pool_library: ctypes.CDLL) -> None:
    with Pool(3, library=pool_library) as pool:
        assert checks.many_runs(pool.handle, 100_000, 5) == 0


def test_runs_after_the_workers_fell_asleep(checks: ctypes.CDLL, pool_library: ctypes.CDLL) -> None:
    with Pool(2, library=pool_library) as pool:
        for microseconds in (0, 50, 190, 200, 210, 1000, 5000):
            for _ in range(5):
                time.sleep(microseconds * 1e-6)
                assert checks.many_runs(pool.handle, 3, 11) == 0


def test_items_run_at_the_same_time(checks: ctypes.CDLL, pool_library: ctypes.CDLL) -> None:
    with Pool(8, library=pool_library) as pool:
        started = time.perf_counter()
        checks.wait_together(pool.handle, 8, 100_000_000)
        assert 0.1 <= time.perf_counter() - started < 0.75  # one after the other they take 0.8


def test_threads_of_a_run_have_numbers_of_their_own(checks: ctypes.CDLL, pool_library: ctypes.CDLL) -> None:
    items = 20_000
    of_item = np.full(items, -1, np.int32)
    with Pool(3, library=pool_library) as pool:
        of_thread = np.zeros((3, 16), np.int32)
        checks.threads_of_items(pool.handle, of_thread.ctypes.data, of_item.ctypes.data, items)
    assert of_thread[:, 0].sum() == items  # not atomic: two threads of one number would lose some
    assert np.array_equal(np.bincount(of_item, minlength=3), of_thread[:, 0])


def test_each_thread_begins_with_a_share_of_its_own(checks: ctypes.CDLL, pool_library: ctypes.CDLL) -> None:
    """What it wrote in the run before is in its own cache."""
    of_item = np.full(12, -1, np.int32)
    with Pool(3, library=pool_library) as pool:
        checks.meet(pool.handle, of_item.ctypes.data, 12)
    assert [of_item[n] for n in (0, 4, 8)] == [0, 1, 2]


def test_no_pool_is_one_thread(checks: ctypes.CDLL) -> None:
    counts, of_thread, of_item = (np.zeros(16, np.int32) for _ in range(3))
    checks.count(None, counts.ctypes.data, 16)
    checks.threads_of_items(None, of_thread.ctypes.data, of_item.ctypes.data, 16)
    assert (counts == 1).all() and of_thread[0] == 16


def test_a_run_within_an_item_is_done_inline(checks: ctypes.CDLL, pool_library: ctypes.CDLL) -> None:
    counts = np.zeros((20, 300), np.int32)  # the inner runs last long enough for a worker to come
    with Pool(4, library=pool_library) as outer, Pool(2, library=pool_library) as inner:
        checks.nested(outer.handle, inner.handle, counts.ctypes.data, *counts.shape)
        checks.nested(outer.handle, outer.handle, counts.ctypes.data, *counts.shape)
        checks.nested(inner.handle, outer.handle, counts.ctypes.data, *counts.shape)
    assert (counts == 3).all()


@pytest.mark.parametrize("shared", [False, True])
def test_two_threads_run_on_two_pools_or_share_one(
    checks: ctypes.CDLL, pool_library: ctypes.CDLL, shared: bool
) -> None:
    wrong: list[int] = []
    with Pool(2, library=pool_library) as one, Pool(3, library=pool_library) as other:
        pools = (one, one if shared else other)
        running = [
            threading.Thread(target=lambda pool=pool: wrong.append(checks.many_runs(pool.handle, 5000, 13)))
            for pool in pools
        ]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    assert wrong == [0, 0]


def forked(work: object) -> int:
    """Call `work` in a forked child; returns its exit status: 0 if the call returned."""
    assert callable(work)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # "multi-threaded, use of fork() may lead to deadlocks"
        child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_has_workers_of_its_own(checks: ctypes.CDLL, pool_library: ctypes.CDLL) -> None:
    def child(pool: Pool) -> None:
        assert no_workers()
        checks.wait_together(pool.handle, 3, 10_000_000)
        assert len(workers()) == 2
        assert checks.many_runs(pool.handle, 1000, 11) == 0
        assert forked(lambda: checks.many_runs(pool.handle, 10, 11)) == 0
        pool.close()
        assert no_workers()

    with Pool(3, library=pool_library) as pool:
        assert checks.many_runs(pool.handle, 10, 11) == 0
        assert forked(lambda: child(pool)) == 0
        assert checks.many_runs(pool.handle, 10, 11) == 0
        assert len(workers()) == 2


def test_a_child_forked_during_a_run_of_another_thread(checks: ctypes.CDLL, pool_library: ctypes.CDLL) -> None:
    with Pool(3, library=pool_library) as pool:
        long_run = threading.Thread(target=checks.wait_together, args=(pool.handle, 30, 30_000_000))
        long_run.start()
        time.sleep(0.05)
        assert long_run.is_alive()
        assert forked(lambda: checks.many_runs(pool.handle, 1000, 11) and os._exit(2)) == 0
        long_run.join()


@pytest.mark.skipif(len(PROCESSORS) < 2, reason="needs two processors")
def test_a_child_that_may_not_use_the_pinned_processor(checks: ctypes.CDLL, pool_library: ctypes.CDLL) -> None:
    first, last = PROCESSORS[0], PROCESSORS[-1]

    def child(pool: Pool) -> None:
        os.sched_setaffinity(0, {first})
        assert checks.many_runs(pool.handle, 10, 11) == 0
        assert [status["Cpus_allowed_list"] for status in workers()] == [str(first)] * 2

    with Pool(3, library=pool_library, processors=[last, last]) as pool:
        assert forked(lambda: child(pool)) == 0


def test_a_pool_closed_in_a_child_without_having_been_used(pool_library: ctypes.CDLL) -> None:
    with Pool(3, library=pool_library) as pool:
        assert forked(pool.close) == 0


INTERRUPTED = """
import ctypes, os, signal, sys, threading, time
from pathlib import Path
from fusible.runtime.native.pool import Pool
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins with it ignored
pool_library, checks = ctypes.CDLL(sys.argv[1]), ctypes.CDLL(sys.argv[2])
pool_library.pool_create.restype = ctypes.c_void_p
pool_library.pool_destroy.argtypes = [ctypes.c_void_p]
checks.wait_together.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_long]
with Pool(3, library=pool_library) as pool:
    try:
        print("ready", flush=True)
        while True:
            checks.wait_together(pool.handle, 6, 10_000_000)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        checks.wait_together(pool.handle, 6, 1000)
"""


def test_ctrl_c_reaches_python(checks: ctypes.CDLL, pool_library: ctypes.CDLL) -> None:
    command = [sys.executable, "-c", INTERRUPTED, pool_library._name, checks._name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "interrupted\n"
        assert process.wait() == 0


def blocked_by_workers() -> list[set[int]]:
    """Return the signals that each worker blocks, once they have started: a thread that starts blocks everything."""
    end = time.monotonic() + 10
    while True:
        masks = [int(status["SigBlk"], 16) for status in workers()]
        found = [{number for number in range(1, 65) if mask >> (number - 1) & 1} for mask in masks]
        if time.monotonic() > end or not any(signal.SIGSEGV in blocked for blocked in found):
            return found


def test_workers_block_the_signals_that_are_the_programs(pool_library: ctypes.CDLL) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with Pool(3, library=pool_library):
        found = blocked_by_workers()
    assert len(found) == 2
    for blocked in found:
        assert blocked >= {signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD, signal.SIGUSR1}
        assert not blocked & {signal.SIGSEGV, signal.SIGFPE, signal.SIGBUS, signal.SIGILL}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


ON_ONE_PROCESSOR = """
import ctypes, os, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from fusible.runtime.native.pool import Pool
pool_library, checks = ctypes.CDLL(sys.argv[1]), ctypes.CDLL(sys.argv[2])
pool_library.pool_create.restype = ctypes.c_void_p
pool_library.pool_destroy.argtypes = [ctypes.c_void_p]
checks.many_runs.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_long]
with Pool(library=pool_library) as pool:
    assert pool.threads == 1
with Pool(4, library=pool_library) as pool:
    assert checks.many_runs(pool.handle, 5000, 11) == 0
    for _ in range(20):
        time.sleep(0.001)
        assert checks.many_runs(pool.handle, 3, 11) == 0
"""


def test_one_processor_only(checks: ctypes.CDLL, pool_library: ctypes.CDLL) -> None:
    command = [sys.executable, "-c", ON_ONE_PROCESSOR, pool_library._name, checks._name]
    subprocess.run(command, check=True, timeout=30)


def test_workers_are_pinned_and_the_caller_is_not(checks: ctypes.CDLL, pool_library: ctypes.CDLL) -> None:
    last = PROCESSORS[-1]
    with Pool(3, library=pool_library, processors=[last, last]) as pool:
        assert {status["Cpus_allowed_list"] for status in workers()} == {str(last)}
        assert checks.many_runs(pool.handle, 100, 11) == 0
    with Pool(3, library=pool_library):
        assert {status["Cpus_allowed_list"] for status in workers()} == {status_of_caller()}
    assert sorted(os.sched_getaffinity(0)) == PROCESSORS


def status_of_caller() -> str:
    """Return the processors that this thread may use, as the kernel lists them."""
    text = Path("/proc/thread-self/status").read_text()
    return next(line.split()[1] for line in text.splitlines() if line.startswith("Cpus_allowed_list"))


def test_a_processor_that_may_not_be_used_is_refused(pool_library: ctypes.CDLL) -> None:
    for processor in (-1, PROCESSORS[-1] + 1, 100_000):
        with pytest.raises(DeviceError, match=rf"cannot be pinned to \[{PROCESSORS[0]}, {processor}\]"):
            Pool(3, library=pool_library, processors=[PROCESSORS[0], processor])
    assert no_workers()


def test_numbers_that_make_no_sense(pool_library: ctypes.CDLL) -> None:
    for threads in (0, -1, 1025):
        with pytest.raises(UsageError, match=f"1 to 1024 threads, not {threads}"):
            Pool(threads, library=pool_library)
        assert pool_library.pool_create(threads, None) is None
    with pytest.raises(UsageError, match="3 threads have 2 workers to pin, not 3"):
        Pool(3, library=pool_library, processors=[0, 0, 0])


def test_the_default_is_what_may_be_used(pool_library: ctypes.CDLL) -> None:
    with Pool(library=pool_library) as pool:
        assert pool.threads == usable_threads()


def test_closing_ends_the_workers(pool_library: ctypes.CDLL) -> None:
    pool = Pool(5, library=pool_library)
    assert sorted(status["Name"] for status in workers()) == [f"fusible-{n}" for n in range(1, 5)]
    pool.close()
    pool.close()
    assert no_workers()
    with pytest.raises(UsageError, match="the thread pool is closed"):
        _ = pool.handle
    forgotten = Pool(5, library=pool_library)
    del forgotten
    assert no_workers()


def test_idle_workers_use_no_processor(checks: ctypes.CDLL, pool_library: ctypes.CDLL) -> None:
    with Pool(3, library=pool_library) as pool:
        checks.many_runs(pool.handle, 10, 10)
        time.sleep(0.05)
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.03


def test_items_compute_in_the_callers_floating_point_mode(checks: ctypes.CDLL, pool_library: ctypes.CDLL) -> None:
    if not checks.knows_float_control():
        pytest.skip("pool_checks.c does not know this processor")
    usual = checks.float_control()
    results = []
    with Pool(3, library=pool_library) as pool:
        for control in (usual, checks.flushing(usual), usual):
            values = np.full(20_000, np.finfo(np.float32).tiny, np.float32)
            checks.set_float_control(control)
            checks.halve(pool.handle, values.ctypes.data, values.size)
            checks.set_float_control(usual)
            results.append(set(values.view(np.int32).tolist()))
    assert results == [{0x400000}, {0}, {0x400000}]


SANITIZERS = {"thread": "no-fork", "address,undefined": "fork"}  # the first one does not support threads after a fork


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_sanitizers_find_nothing(tmp_path: Path, compiler: Compiler, sanitizer: str) -> None:
    if compiler.kind is CompilerKind.ZIG:
        pytest.skip("Zig first builds the sanitizers, which takes minutes")
    folder = Path(cpu.__file__).parent
    flags = ("-O2", "-g", "-std=gnu11", "-pthread", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")
    (tmp_path / "empty.c").write_text("int main(void) { return 0; }\n")
    empty = run_command((*compiler.command, *flags, "-o", "empty", "empty.c"), tmp_path)
    if (empty or run_command((str(tmp_path / "empty"),), tmp_path)) is not None:
        pytest.skip(f"-fsanitize={sanitizer} does not work here")
    sources = (str(HERE / "pool_checks.c"), str(folder / "pool.c"))
    warned = ("-Wall", "-Wextra", "-Werror", "-DSTRESS", f"-I{folder}", "-o", "stress", *sources)
    assert run_command((*compiler.command, *flags, *warned), tmp_path) is None
    assert run_command((str(tmp_path / "stress"), SANITIZERS[sanitizer]), tmp_path) is None
