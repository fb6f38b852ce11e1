"""Runs that are one graph: when the short way is taken, and that it gives what the long one gives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fusible.errors import SignatureError
from fusible.runtime.devices.session import DeviceSession
from fusible.runtime.executable import Executable
from tests.runtime.devices import plans
from tests.runtime.devices.counting import counting_program
from tests.runtime.devices.test_session import numbers, session_of


@pytest.fixture
def long_runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every run that goes the long way."""
    found: list[int] = []
    general = DeviceSession._run_generally

    def counted(self: DeviceSession, arguments: list[object], on_device: dict[int, object]) -> list[object]:
        found.append(1)
        return general(self, arguments, on_device)  # type: ignore[arg-type]

    monkeypatch.setattr(DeviceSession, "_run_generally", counted)
    return found


def test_the_third_run_and_all_later_ones_are_short(long_runs: list[int]) -> None:
    session = session_of(plans.chain())
    for seed in range(6):
        x = numbers(100, seed=seed)
        assert np.array_equal(session.run({"x": x})["y"], 3 * x)
    assert len(long_runs) == 2  # launched, captured


def test_shapes_alternate_and_memory_grows_in_between(long_runs: list[int]) -> None:
    session = session_of(plans.chain())
    for n in (40, 40, 40, 900, 40, 40, 40, 900, 900, 900, 0, 0, 0):
        x = numbers(n, seed=n)
        assert np.array_equal(session.run({"x": x})["y"], 3 * x)
    long_runs.clear()
    for n in (40, 900, 40, 900):
        x = numbers(n, seed=n + 1)
        assert np.array_equal(session.run({"x": x})["y"], 3 * x)
    assert not long_runs


def test_arrays_on_the_device_come_from_anywhere(long_runs: list[int]) -> None:
    session = session_of(plans.chain())
    kept = [numbers(64, seed=seed) for seed in range(3)]
    for _ in range(4):
        for x in kept:
            assert np.array_equal(np.from_dlpack(session.run_on_device({"x": x})["y"]), 3 * x)
    one = session.run_on_device({"x": kept[0]})["y"]
    two = session.run_on_device({"x": one})["y"]
    assert np.array_equal(np.from_dlpack(two), 3 * (3 * kept[0])) and np.array_equal(np.from_dlpack(one), 3 * kept[0])
    assert long_runs


def test_bound_outputs_and_state(long_runs: list[int]) -> None:
    session, out = session_of(plans.chain()), np.zeros(50, np.float32)
    session.bind(outputs={"y": out})
    for seed in range(5):
        x = numbers(50, seed=seed)
        assert session.run({"x": x})["y"] is out and np.array_equal(out, 3 * x)
    with pytest.raises(SignatureError, match="shape"):
        session.run({"x": numbers(51)})
    fed = session_of(plans.chain())
    fed.bind(inputs={"x": numbers(20)}, state={"y": "x"})
    for run in range(1, 8):
        wanted = numbers(20)
        for _ in range(run):
            wanted = 2 * wanted + wanted
        assert np.array_equal(fed.run()["y"], wanted)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (plans.with_host_step, (77,)),
        (plans.with_views, (6, 35)),
        (plans.with_order, (5, 7)),
        (plans.late_sizes, (70,)),
        (plans.with_weights, (33, 20)),
    ],
)
def test_other_plans_give_the_same_in_every_run(make: Callable[[], Executable], shape: tuple[int, ...]) -> None:
    executable = make()
    session = session_of(executable)
    for seed in range(5):
        x = numbers(*shape, seed=seed)
        assert np.array_equal(session.run({"x": x})["y"], session_of(executable).run({"x": x})["y"])


def test_poison_and_profiles_go_the_long_way(long_runs: list[int]) -> None:
    session, x = session_of(plans.chain()), numbers(30)
    for _ in range(4):
        session.run({"x": x})
    long_runs.clear()
    session._poison = True
    assert np.array_equal(session.run({"x": x})["y"], 3 * x)
    session._poison = False
    assert session.profile({"x": x}, repeat=2)
    assert len(long_runs) == 3
    assert np.array_equal(session.run({"x": x})["y"], 3 * x) and len(long_runs) == 3


def test_memory_of_shapes_that_are_over_is_given_back() -> None:
    program, device = counting_program()
    session = session_of(plans.chain(program))
    for n in range(20, 980, 20):  # each needs a larger arena than all before
        x = numbers(n)
        for _ in range(3):
            assert np.array_equal(session.run({"x": x})["y"], 3 * x)
    assert len(session._frame.layouts) == len(session._straight._known) == 1
    assert len(session._frame.results) <= 16
    held = sum(array.nbytes for pool in session._frame.results.values() for array in pool)
    assert device.used <= held + 4 * 4 * 1000 + 64 * 100  # outputs; arena, staging, alignment


def test_an_output_that_is_state_is_also_what_it_is_bound_to() -> None:
    session, out, wanted = session_of(plans.chain()), np.zeros(20, np.float32), numbers(20)
    session.bind(inputs={"x": wanted}, outputs={"y": out}, state={"y": "x"})
    assert session.run()["y"] is out and np.array_equal(out, 3 * wanted)
    assert np.array_equal(session.run()["y"], 3 * (3 * wanted))
    left, bound = session_of(plans.chain()), np.zeros(20, np.float32)
    left.bind(outputs={"y": bound})
    assert left.run_on_device({"x": wanted})["y"] is bound and np.array_equal(bound, 3 * wanted)
