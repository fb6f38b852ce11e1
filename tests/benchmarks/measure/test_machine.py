"""The roofs are measured with and without a C compiler; noise is relative to the best round."""

from __future__ import annotations

import pytest

from fusible.benchmarks.measure.machine import NoiseWatch, summarise, this_machine, versions_of
from fusible.benchmarks.measure.roof import measure_roof
from fusible.errors import DeviceError


@pytest.mark.parametrize("compiler", [None, ""])
def test_a_roof_is_a_rate_that_a_processor_can_have(compiler: str | None) -> None:
    roof = measure_roof(1, compiler=compiler)
    assert 1e8 < roof.flops < 1e13
    assert 1e8 < roof.bandwidth < 1e12
    assert roof.threads == 1
    if compiler == "":
        assert "NumPy" in roof.how


def test_a_compiler_that_does_not_work_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="'false', does not work"):
        measure_roof(1, compiler="false")
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(DeviceError, match="'no-such-compiler', does not work: not found"):
        measure_roof(1)


def test_noise_is_relative_to_the_best_round() -> None:
    summary = summarise([2.0, 1.0, 1.0, 1.0, 3.0])
    assert (summary.seconds, summary.p50, summary.worst, summary.rounds) == (1.0, 1.0, 3.0, 5)
    watch = NoiseWatch()
    assert watch.summary() is None
    assert watch.sample() > 0
    found = watch.summary()
    assert found is not None and found.rounds == 1


def test_the_machine_and_versions() -> None:
    machine = this_machine()
    assert machine.cores >= 1 and machine.memory > 0
    assert set(versions_of(["numpy", "no-such-package"])) == {"numpy"}
