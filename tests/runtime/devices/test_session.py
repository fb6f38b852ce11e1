"""Sessions on a device: shapes, transfers, graphs, state, control flow, late sizes, threads. In checking mode."""

from __future__ import annotations

import os
import threading
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

import fusible
from fusible.runtime.devices.session import DeviceSession
from fusible.runtime.executable import Executable
from tests.runtime.devices import plans
from tests.runtime.devices.counting import counting_program, recycling_program


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def session_of(exe: Executable) -> DeviceSession:
    found = exe.session()
    assert isinstance(found, DeviceSession)
    return found


def counted(exe: Executable, inputs: dict[str, np.ndarray], runs: int = 3) -> Counter[str]:
    """What one run asks of the device once a session has settled."""
    session = session_of(exe)
    for _ in range(runs):
        session.run(inputs)
    assert exe.device is not None
    counts: Counter[str] = exe.device.device.counts  # type: ignore[attr-defined]
    counts.clear()
    session.run(inputs)
    return counts


@pytest.mark.parametrize("n", [0, 1, 31, 33, 1000])
def test_one_executable_many_shapes(n: int) -> None:
    exe, x = plans.chain(), numbers(n)
    for _ in range(3):
        (y,) = exe(x)
        assert y.dtype == np.float32 and np.array_equal(y, 3 * x)


def test_bounds_are_checked() -> None:
    with pytest.raises(fusible.BoundsError, match="'n' is 1001"):
        plans.chain()(numbers(1001))


def test_a_settled_run_uploads_inputs_replays_and_downloads_outputs() -> None:
    counts = counted(plans.chain(counting_program()[0]), {"x": numbers(100)})
    assert counts == {"upload": 1, "replay": 1, "download": 1}


def test_every_capture_is_logged() -> None:
    session = session_of(plans.chain())
    for n in (100, 100, 50, 100, 50, 50):
        session.run({"x": numbers(n)})
    assert [(c.steps, c.launches, dict(c.symbols)) for c in session.captures] == [
        ((0, 2), 2, {"n": 100}),
        ((0, 2), 2, {"n": 50}),
    ]


def test_arrays_that_keep_moving_are_copied_to_where_a_graph_is() -> None:
    program, device = counting_program()
    session, x = session_of(plans.chain(program)), numbers(64)
    kept = []
    for k in range(12):
        kept.append(session.run_on_device({"x": x})["y"])
        session.bind(outputs={"y": kept[-1]})
        for _ in range(3):
            assert session.run({"x": x + k})["y"] is kept[-1]
        assert np.array_equal(np.from_dlpack(kept[-1]), 3 * (x + k))
        session._bound_outputs.clear()
    assert len(session.captures) == device.counts["capture"] == 8
    device.counts.clear()
    for k in range(3):
        held = session.run_on_device({"x": kept[k]})["y"]
        kept.append(held)
        assert np.array_equal(np.from_dlpack(held), 3 * (3 * (x + k)))
    assert device.counts["replay"] == 3 and not device.counts["capture"] and not device.counts["launch"]


def test_a_host_step_between_kernels() -> None:
    x = numbers(100)
    exe = plans.with_host_step(counting_program()[0])
    assert np.array_equal(exe(x)[0], -6 * x)
    counts = counted(exe, {"x": x})
    assert counts == {"upload": 2, "replay": 2, "download": 2}  # x and the middle's result; its operand and y


def test_what_only_the_host_uses_stays_there() -> None:
    x = numbers(100)
    exe = plans.host_only_middle(counting_program()[0])
    assert np.array_equal(exe(x)[0], 2 * x)
    assert counted(exe, {"x": x}) == {"upload": 1, "replay": 1, "download": 1}


def test_views_stay_on_the_device() -> None:
    x = numbers(6, 35)
    exe = plans.with_views(counting_program()[0])
    assert np.allclose(exe(x)[0], 2 * x.sum(1), rtol=1e-5, atol=1e-5)
    assert counted(exe, {"x": x}) == {"upload": 1, "replay": 1, "download": 1}


def test_programs_share_sums_the_same_in_every_run() -> None:
    """The memory they share grows with the sizes; graphs that know the smaller one still run."""
    session = session_of(plans.shared_sums())
    given = {rows: numbers(rows, 77, seed=rows) for rows in (3, 200, 1)}
    first: dict[int, np.ndarray] = {}
    for rows in (3, 200, 3, 1, 200, 3, 200, 1, 3, 1):
        results = session.run({"x": given[rows]})
        wanted = first.setdefault(rows, results["y"])
        assert np.allclose(wanted, 2 * given[rows].sum(1), rtol=1e-5, atol=1e-5)
        assert np.array_equal(results["y"], wanted) and np.array_equal(results["again"], wanted)
    assert len(session.captures) == 3


def test_values_stored_in_another_order() -> None:
    x = numbers(5, 7)
    for _ in range(3):
        (y,) = plans.with_order()(x)
        assert np.array_equal(y, -2 * x)


def test_blocks_of_something_larger() -> None:
    a, b = numbers(2, 4), numbers(3, 4)
    exe = plans.with_blocks()
    for _ in range(3):
        assert np.array_equal(exe(a, b)[0], np.concatenate([6 * a, -3 * b]))


def test_blocks_with_gaps_keep_what_lies_between() -> None:
    a, b = numbers(5, 1), numbers(5, 3, seed=1)
    exe = plans.with_columns()
    for _ in range(3):
        assert np.array_equal(exe(a, b)[0], -3 * np.concatenate([a, b], axis=1))


@pytest.mark.parametrize("recycled", [False, True])
def test_sizes_known_only_when_they_happen(recycled: bool) -> None:
    session = session_of(plans.late_sizes(recycling_program() if recycled else None))
    for positive in (5, 20, 40, 60, 40, 40, 70, 5):
        x = np.abs(numbers(70)) * np.where(np.arange(70) < positive, 1, -1).astype(np.float32)
        assert np.array_equal(session.run({"x": x})["y"], 6 * x[x > 0]), positive
    assert np.array_equal(session.run({"x": -np.ones(70, np.float32)})["y"], np.empty(0))


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_if_and_loop(flag: bool, count: int) -> None:
    exe, x = plans.branches(), numbers(50)
    for _ in range(3):
        got = exe.run({"x": x, "flag": np.asarray(flag), "count": np.asarray(count)})
        start = 2 * x if flag else 3 * x
        steps = [start * 2.0 ** (k + 1) for k in range(count)]
        assert np.array_equal(got["z"], steps[-1] if steps else start)
        assert np.array_equal(got["all"], np.asarray(steps, np.float32).reshape(count, 50))


def test_poisoned_buffers_do_not_show() -> None:
    for exe, inputs in (
        (plans.chain(), {"x": numbers(40)}),
        (plans.with_host_step(), {"x": numbers(40)}),
        (plans.host_only_middle(), {"x": numbers(40)}),
        (plans.late_sizes(), {"x": numbers(40)}),
    ):
        session = session_of(exe)
        session._poison = True
        for _ in range(3):
            assert all(np.isfinite(y).all() for y in session.run(inputs).values())


def test_a_plan_that_reads_what_nobody_wrote_shows_when_poisoned() -> None:
    exe = plans.chain()
    broken = type(exe.plan)(
        exe.plan.values, exe.plan.buffers, exe.plan.inputs, exe.plan.outputs, exe.plan.steps[1:], exe.plan.bounds
    )
    session = session_of(type(exe)(exe.inputs, exe.outputs, broken, (), "", device=exe.device))
    session._poison = True
    assert np.isnan(session.run({"x": numbers(40)})["y"]).all()


def test_outputs_belong_to_the_caller() -> None:
    session, x = session_of(plans.chain()), numbers(64)
    first = session.run({"x": x})["y"]
    kept = first.copy()
    second = session.run({"x": x + 1})["y"]
    assert np.array_equal(first, kept) and not np.shares_memory(first, second)
    first[...] = 0
    assert np.array_equal(session.run({"x": x})["y"], kept)


def test_bound_inputs_and_outputs() -> None:
    exe, x, out = plans.chain(), numbers(64), np.empty(64, np.float32)
    session = session_of(exe)
    session.bind(inputs={"x": x}, outputs={"y": out})
    assert session.run()["y"] is out and np.array_equal(out, 3 * x)
    x[...] = 0  # a bound input is read at each run
    assert not session.run()["y"].any()
    with pytest.raises(fusible.SignatureError, match="unknown name"):
        session.bind(inputs={"nope": x})
    with pytest.raises(fusible.SignatureError, match="writeable"):
        session.bind(outputs={"y": np.empty(3, np.int32)})
    with pytest.raises(fusible.SignatureError, match=r"^output 'y': expected shape \(65,\), got shape \(64,\)"):
        session.run({"x": numbers(65)})


def test_an_output_over_an_input_is_refused() -> None:
    session = session_of(plans.chain())
    given = session.run_on_device({"x": numbers(64)})["y"]
    session.bind(outputs={"y": given})
    with pytest.raises(fusible.SignatureError, match=r"output 'y': .*memory of its own.*overlaps the input 'x'"):
        session.run({"x": given})
    session.run({"x": numbers(64)})
    host = numbers(64)
    session.bind(outputs={"y": host})  # written when the run is over
    assert np.array_equal(session.run({"x": host})["y"], 3 * numbers(64))


def test_a_bound_output_is_written_in_place_or_refused() -> None:
    session = session_of(plans.chain())
    apart = np.frombuffer(bytearray(4 * 130), np.float32)
    with pytest.raises(fusible.DeviceError, match="must be row-major and begin at a multiple of 16"):
        session.bind(outputs={"y": _Foreign(apart[:128:2])})


def test_state_stays_on_the_device() -> None:
    program, device = counting_program()
    session = session_of(plans.cache_step(program))
    session.bind(inputs={"past": np.zeros(40, np.float32)}, state={"present": "past"})
    x = np.ones(40, np.float32)
    for k in range(1, 7):
        device.counts.clear()
        got = session.run({"x": x})
        assert (got["present"] == k).all() and (got["y"] == 2 * k).all()
    assert device.counts == {"upload": 1, "replay": 1, "download": 2}  # x; both outputs
    assert len(session.captures) == 2  # to and fro


def test_arrays_on_the_device_are_not_copied() -> None:
    program, device = counting_program()
    session, x = session_of(plans.chain(program)), numbers(96)
    given = session.run_on_device({"x": x})["y"]
    assert given.__dlpack_device__() == (1, 0)
    device.counts.clear()
    again = session.run_on_device({"x": given})["y"]
    assert device.counts["upload"] == device.counts["download"] == device.counts["copy"] == 0
    assert np.array_equal(np.from_dlpack(again), 3 * (3 * x))
    out = session.run_on_device({"x": x})["y"]
    session.bind(outputs={"y": out})
    device.counts.clear()
    assert session.run({"x": given})["y"] is out and np.array_equal(np.from_dlpack(out), 3 * (3 * x))
    assert device.counts["upload"] == device.counts["download"] == device.counts["copy"] == 0


class _Foreign:
    """An array of another library, known by DLPack alone."""

    def __init__(self, array: np.ndarray, device: tuple[int, int] = (1, 0)) -> None:
        self.array, self.device = array, device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **asked: object) -> object:
        return self.array.__dlpack__()


def test_arrays_of_other_libraries() -> None:
    exe, x = plans.chain(), numbers(96)
    session = session_of(exe)
    assert np.array_equal(session.run({"x": _Foreign(x)})["y"], 3 * x)
    assert np.array_equal(session.run({"x": _Foreign(x[1:33])})["y"], 3 * x[1:33])  # not aligned: copied
    assert np.array_equal(session.run({"x": _Foreign(x[::2])})["y"], 3 * x[::2])  # not contiguous: copied
    with pytest.raises(fusible.SignatureError, match="lies elsewhere"):
        session.run({"x": _Foreign(x, (2, 0))})
    with pytest.raises(fusible.SignatureError, match="float32"):
        session.run({"x": _Foreign(x.astype(np.float64))})


def test_sessions_share_the_constants() -> None:
    program, device = counting_program()
    exe, x = plans.with_weights(program), numbers(33, 20)
    wanted = (x.astype(np.float64) @ exe.constants[0]).astype(np.float32)
    for _ in range(3):
        assert np.allclose(session_of(exe).run({"x": x})["y"], wanted, rtol=1e-5, atol=1e-5)
    assert device.counts["upload"] == 1 + 3  # the weights once, x each time


def test_threads_share_an_executable() -> None:
    exe = plans.with_host_step()
    inputs = [numbers(10 + 30 * (k % 3), seed=k) for k in range(6)]
    got: list[np.ndarray | None] = [None] * len(inputs)

    def work(k: int) -> None:
        for _ in range(20):
            got[k] = exe.run({"x": inputs[k]})["y"]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for x, y in zip(inputs, got, strict=True):
        assert y is not None and np.array_equal(y, -6 * x)


def test_a_forked_child_runs_too() -> None:
    exe, x = plans.with_weights(), numbers(70, 20)
    session = session_of(exe)
    wanted = session.run({"x": x})["y"]
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        same = all(np.array_equal(session.run({"x": x})["y"], wanted) for _ in range(3))
        os._exit(0 if same and np.array_equal(exe(x)[0], wanted) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(session.run({"x": x})["y"], wanted)


def test_a_launch_out_of_range_names_the_step() -> None:
    session = session_of(plans.reads_beyond())
    for n, reads in ((64, 0), (40, 24), (40, 24), (40, 24)):  # replayed launches are checked as well
        if not reads:
            session.run({"x": numbers(n)})
            continue
        with pytest.raises(fusible.ExecutionError) as caught:
            session.run({"x": numbers(n)})
        text = str(caught.value)
        assert text.startswith(f"reads_beyond at 'node 1': checking mode found {reads} defects: program (1, 0, 0)")
        assert "reads element 40 of 'x', which has 40" in text


def test_numbers_that_do_not_fit_their_type() -> None:
    exe = plans.chain()
    assert exe.device is not None
    stream = exe.device.device.stream()
    with pytest.raises(fusible.ExecutionError, match="here: kernel twice: n is 4294967296, which its type i32 cannot"):
        exe.device.prepare(stream, "twice", 1, [stream.allocate(4)] * 2, [1 << 32], "here")  # type: ignore[list-item]
    with pytest.raises(fusible.ExecutionError, match="2 buffers and 2 numbers"):
        exe.device.prepare(stream, "twice", 1, [stream.allocate(4)] * 2, [1, 1], "here")  # type: ignore[list-item]


def test_out_of_memory_says_how_much() -> None:
    exe = plans.chain(counting_program(limit=10_000)[0])
    for _ in range(5):
        exe(numbers(500))
    with pytest.raises(fusible.ExecutionError, match=r"memory of triton-cpu: asked for 40\d\d bytes and \d+ are free"):
        exe(numbers(1000))
    assert np.array_equal(exe(numbers(500))[0], 3 * numbers(500))


def test_memory_is_given_back() -> None:
    program, device = counting_program()
    exe = plans.chain(program)
    session = session_of(exe)
    for n in (100, 500, 900):
        session.run({"x": numbers(n)})
    del session
    assert device.used == 0


def test_profile_names_every_step() -> None:
    rows = plans.with_host_step().profile({"x": numbers(40)})
    assert [(row["kernel"], row["calls"]) for row in rows] == [("twice", 1), ("negate", 1), ("thrice", 1)]
    assert all(row["seconds"] > 0 for row in rows)


def test_limits_hold() -> None:
    exe = plans.chain()
    limits = fusible.runtime.session.RunLimits(tensor_bytes=100)
    small = type(exe)(exe.inputs, exe.outputs, exe.plan, (), "", limits=limits, device=exe.device)
    with pytest.raises(fusible.LimitExceeded, match="tensor_bytes"):
        small(numbers(40))


def test_an_array_of_another_device_is_refused() -> None:
    """Its address means nothing here."""
    session = session_of(plans.chain())
    array = session.run_on_device({"x": numbers(8)})["y"]
    assert np.array_equal(session_of(plans.chain()).run({"x": array})["y"], 3 * np.from_dlpack(array))
    exported = SimpleNamespace(__dlpack_device__=lambda: (2, 0))  # kDLCUDA
    device = SimpleNamespace(name="cuda:0 (a GPU)", export_array=lambda *_: exported)
    with pytest.raises(fusible.SignatureError, match="lies elsewhere"):
        session.run({"x": replace(array, device=device)})


def test_dlpack_has_no_short_floats_on_the_cpu() -> None:
    array = session_of(plans.chain()).run_on_device({"x": numbers(8)})["y"]
    with pytest.raises(fusible.DeviceError, match="no bfloat16 by DLPack"):
        np.from_dlpack(replace(array, dtype=np.dtype(ml_dtypes.bfloat16), strides=(2,)))
