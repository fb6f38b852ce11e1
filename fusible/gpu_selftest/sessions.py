"""Whole sessions on the device against the target numpy: models, graphs, state, threads, arrays that stay there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from fusible.gpu_selftest.models import CASES, Case, doubled, growing_cache, shared_sums
from fusible.gpu_selftest.rows import CheckFailed, Row, check, require
from fusible.runtime.devices.session import DeviceSession
from fusible.runtime.executable import Executable

__all__ = ["session_rows"]

_TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}  # of the largest error, by the reference's own root mean square


_RUNS = 25


def session_rows(compile_model: Callable[..., Executable], reference: Callable[..., Executable]) -> Iterator[Row]:
    """Rows of correctness. compile_model: compiles for the device (precision=...); reference: for the target numpy."""
    for case in CASES:
        for precision in _TOLERANCE:
            what = f"{case.name}, {precision}"
            yield from check("session", what, partial(_agrees, case, precision, compile_model, reference))
    yield from check("session", "threads", lambda: _threads(compile_model))
    shared = shared_sums()
    yield from check("session", f"{shared.name}, the same bits", lambda: _same_bits(shared, compile_model, reference))
    growing = growing_cache()
    yield from check("session", f"{growing.name}, by buckets", lambda: _grows(growing, compile_model, reference))
    yield from check("session", "arrays stay on the device", lambda: _stays(compile_model))


def session_of(executable: Executable) -> DeviceSession:
    """A session on the device. Raises CheckFailed if the executable has nothing there."""
    found = executable.session()
    if not isinstance(found, DeviceSession):
        raise CheckFailed("no step of the model runs on the device")
    return found


def _agrees(
    case: Case, precision: str, compile_model: Callable[..., Executable], reference: Callable[..., Executable]
) -> str:
    executable, wanted = compile_model(case.model, precision=precision), reference(case.model)
    session = session_of(executable)
    worst = 0.0
    for run in range(len(case.runs)):
        inputs = case.inputs(run)
        expected = wanted.run(inputs)
        for _ in range(3):  # launched, captured, replayed
            for name, got in session.run(inputs).items():
                worst = max(worst, _error(got, expected[name]))
    require(worst <= _TOLERANCE[precision], f"error {worst:.2e}, allowed {_TOLERANCE[precision]:.0e}")
    host = len(executable.report.host)
    return f"error {worst:.1e}, {len(session.captures)} captures" + (f", steps on the host: {host}" if host else "")


def _error(got: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, by the root mean square of what is wanted."""
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        raise CheckFailed(f"got {got.dtype}{list(got.shape)}, expected {wanted.dtype}{list(wanted.shape)}")
    if not wanted.size:
        return 0.0
    difference = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
    scale = np.sqrt(np.mean(np.square(wanted.astype(np.float64)))) or 1.0
    found = float(np.max(difference / np.maximum(scale, np.abs(wanted.astype(np.float64)))))
    return found if np.isfinite(found) else float("inf")


def _same_bits(case: Case, compile_model: Callable[..., Executable], reference: Callable[..., Executable]) -> str:
    """Two sessions run at once, again and again: each has counters and memory of its own."""
    executable, inputs = compile_model(case.model, precision="fp32"), case.inputs(0)
    wanted = reference(case.model).run(inputs)
    assert executable.device is not None
    shared = sum(kernel.workspace > 0 for kernel in executable.device.code.kernels)
    require(shared == len(wanted), f"programs of {shared} kernels share sums, expected those of {len(wanted)}")
    found = list[dict[str, np.ndarray]]()

    def work() -> None:
        session = session_of(executable)
        found.extend(session.run(inputs) for _ in range(_RUNS))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    require(len(found) == 2 * _RUNS, "a session failed")
    for name, array in wanted.items():
        worst = _error(found[0][name], array)
        require(worst <= _TOLERANCE["fp32"], f"{name}: error {worst:.2e}, allowed {_TOLERANCE['fp32']:.0e}")
        require(all(np.array_equal(found[0][name], each[name]) for each in found), f"{name} differs from run to run")
    return f"{shared} kernels, {len(found)} runs"


def _grows(case: Case, compile_model: Callable[..., Executable], reference: Callable[..., Executable]) -> str:
    """Sizes of a bucket share graphs, whose bits are those of launches one by one."""
    executable, wanted = compile_model(case.model, shapes={"past": (1, 64)}), reference(case.model)
    session, inputs = session_of(executable), case.inputs(0)
    session.bind(state={"keys": "past_k", "values": "past_v"})
    worst = 0.0
    for run in range(_RUNS):
        fresh = inputs if run == 0 else {name: inputs[name] for name in "qkv"}
        found, expected = session.run(fresh), wanted.run(inputs)
        worst = max(worst, *(_error(found[name], array) for name, array in expected.items()))
        launched = session_of(executable).run(inputs)
        same = all(np.array_equal(found[name], launched[name]) for name in expected)
        require(same, f"with {inputs['past_k'].shape[2]} keys a replayed graph differs from its launches")
        inputs = {**inputs, "past_k": expected["keys"], "past_v": expected["values"]}
    require(worst <= _TOLERANCE["fp32"], f"error {worst:.2e}, allowed {_TOLERANCE['fp32']:.0e}")
    buckets = [capture.bucket for capture in session.captures]
    require(bool(buckets) and None not in buckets, f"graphs of exact sizes: {session.captures[:1]}")
    return f"{_RUNS} sizes, {len(buckets)} captures"


def _threads(compile_model: Callable[..., Executable]) -> str:
    executable, wrong = compile_model(doubled(5000)), list[int]()

    def work(seed: int) -> None:
        x = np.random.default_rng(seed).standard_normal(5000).astype(np.float32)
        if not all(np.array_equal(executable(x)[0], 2 * x) for _ in range(20)):
            wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    require(not wrong, f"threads {wrong} got wrong numbers")
    return f"{len(threads)} at once"


def _stays(compile_model: Callable[..., Executable]) -> str:
    session = session_of(compile_model(doubled(64)))
    x = np.arange(64, dtype=np.float32)
    one = session.run_on_device({"x": x})["y"]
    two = session.run_on_device({"x": one})["y"]
    three = session.run({"x": two})["y"]
    require(np.array_equal(three, 8 * x), "three runs in a row do not give 8 x")
    return ""
