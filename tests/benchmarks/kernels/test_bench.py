"""Rows of the kernel table: complete, honest about what is absent, wrong or failed, and kept when interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import fusible
from fusible.benchmarks.kernels import bench
from fusible.benchmarks.kernels.cases import Case, parse_case
from fusible.benchmarks.kernels.clocks import HostClock
from fusible.benchmarks.kernels.counterparts.protocol import BaselineError, Counterpart, NoCounterpart
from fusible.benchmarks.kernels.subjects import GENERATED
from fusible.benchmarks.records import KernelRow, Roof
from fusible.errors import UsageError
from fusible.kernels.registry import KERNELS

ROOF = Roof(1, 1e12, 1e11, "made up")
RELU = "relu(f32[16, 16])"
MATMUL = "matmul(f32[8, 16], const f32[16, 4])"


def rows_of(texts: Sequence[str], baselines: Sequence[str] = ("numpy",), **more: Any) -> list[KernelRow]:
    cases = [parse_case(text, ["here"]) for text in texts]
    settings: dict[str, Any] = {"threads": 1, "rounds": 2, "block_seconds": 1e-5, "seed": 0, "roof": ROOF}
    return list(bench.bench_kernels(cases, baselines, **(settings | more)))


def test_a_row_has_everything() -> None:
    (row,) = rows_of([MATMUL])
    assert (row.op, row.kernel, row.device, row.baseline) == ("matmul", "contraction:matmul", "cpu", "numpy")
    assert (row.status, row.reason, row.threads, row.origin) == ("ok", "", 1, ("here",))
    assert row.signature == "f32[8, 16], f32[16, 4]"
    assert row.attributes == "x1 const"
    assert (row.flops, row.bytes) == (2 * 8 * 16 * 4, 4 * (8 * 16 + 16 * 4 + 8 * 4))
    assert row.latency is not None and row.baseline_latency is not None and row.ratio is not None
    assert row.latency.blocks == row.baseline_latency.blocks == 2
    assert row.ratio.low <= row.ratio.middle <= row.ratio.high
    expected = max(row.flops / ROOF.flops, row.bytes / ROOF.bandwidth) / row.latency.p50
    assert row.roof_share == pytest.approx(expected)
    assert row.max_error is not None
    assert row.max_error < 1e-5


def test_one_row_for_each_case_and_baseline_in_order() -> None:
    found = [(row.op, row.baseline) for row in rows_of([RELU, MATMUL], ("onnxruntime", "numpy"))]
    assert found == [("relu", "onnxruntime"), ("relu", "numpy"), ("matmul", "onnxruntime"), ("matmul", "numpy")]


def test_a_generated_kernel_has_no_name_of_its_own() -> None:
    assert rows_of([RELU])[0].kernel == GENERATED


def test_a_view_moves_nothing_and_says_so() -> None:
    (row,) = rows_of(["transpose(f32[8, 4])"])
    assert (row.status, row.bytes, row.roof_share) == ("ok", 0.0, None)
    assert "view" in row.reason


def test_an_op_that_a_baseline_lacks_is_absent_and_the_rest_goes_on() -> None:
    lacking, other = rows_of(["lstm(f32[3, 1, 4], f32[1, 16, 4], f32[1, 16, 4])", RELU])
    assert (lacking.status, lacking.ratio, lacking.latency) == ("absent", None, None)
    assert "no plain NumPy expression" in lacking.reason
    assert other.status == "ok"


def test_a_baseline_that_is_not_installed_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    real = bench.find_baseline

    def find(name: str) -> Any:
        if name == "torch":
            raise NoCounterpart("torch is not installed; pip install torch")
        return real(name)

    monkeypatch.setattr(bench, "find_baseline", find)
    absent, other = rows_of([RELU], ("torch", "numpy"))
    assert (absent.status, absent.reason) == ("absent", "torch is not installed; pip install torch")
    assert other.status == "ok"


class Planted:
    """A baseline that does what a test wants."""

    version = "1"

    def __init__(self, build: Callable[[Case, Sequence[Any]], Counterpart], device: str = "cpu") -> None:
        self._build, self.device = build, device

    def build(self, case: Case, values: Sequence[Any], threads: int) -> Counterpart:
        return self._build(case, values)


def _plant(monkeypatch: pytest.MonkeyPatch, build: Callable[[Case, Sequence[Any]], Counterpart]) -> None:
    monkeypatch.setattr(bench, "find_baseline", lambda name: Planted(build))


def test_a_baseline_that_computes_something_else_gives_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(case: Case, values: Sequence[Any]) -> Counterpart:
        return Counterpart(lambda: None, lambda: [np.maximum(values[0], 0) * 2])

    _plant(monkeypatch, doubled)
    (row,) = rows_of([RELU], ("planted",))
    assert (row.status, row.ratio, row.latency) == ("wrong", None, None)
    assert "largest error" in row.reason
    assert row.max_error is not None


def test_a_baseline_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(case: Case, values: Sequence[Any]) -> Counterpart:
        raise BaselineError("it fell over")

    _plant(monkeypatch, failing)
    (row,) = rows_of([RELU], ("planted",))
    assert (row.status, row.reason) == ("failed", "it fell over")


def test_times_of_two_devices_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def relu(case: Case, values: Sequence[Any]) -> Counterpart:
        return Counterpart(lambda: None, lambda: [np.maximum(values[0], 0)])

    monkeypatch.setattr(bench, "find_baseline", lambda name: Planted(relu, "cuda:sm_90"))
    (row,) = rows_of([RELU], ("planted",))
    assert (row.status, row.reason) == ("absent", "the kernel runs on cpu, planted on cuda:sm_90")


def test_a_case_that_is_no_kernel_fails_alone() -> None:
    bad, good = rows_of(["matmul(f32[2, 3], f32[4, 5])", RELU])
    assert bad.status == "failed"
    assert bad.reason
    assert good.status == "ok"


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(UsageError, match="no baseline is called 'nobody'"):
        rows_of([RELU], ("nobody",))


def test_rows_come_one_by_one_so_that_an_interruption_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [parse_case(text) for text in (RELU, MATMUL)]
    rows = bench.bench_kernels(cases, ["numpy"], threads=1, rounds=1, block_seconds=1e-5, seed=0)
    kept = [next(rows)]

    def interrupted(*args: object, **more: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "time_pair", interrupted)
    with pytest.raises(KeyboardInterrupt):
        kept.append(next(rows))
    assert [row.op for row in kept] == ["relu"]


class CountingClock:
    """Another device's clock."""

    def __init__(self) -> None:
        self.calls = 0

    def time(self, work: Callable[[], object], iterations: int) -> list[float]:
        self.calls += 1
        work()
        return [0.5] * iterations


def test_the_device_of_a_kernel_decides_its_clock() -> None:
    clock = CountingClock()
    (row,) = rows_of([RELU], clocks={"cpu": clock})
    assert clock.calls == 2 + 2 * 2  # one to find how many calls fill a block, then one a round, for both sides
    assert row.latency is not None
    assert row.latency.p50 == 0.5
    assert row.ratio is not None
    assert row.ratio.middle == 1.0
    assert rows_of([RELU], clocks={"cpu": HostClock()})[0].status == "ok"


# Kernels from outside


def quick_relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, np.float32(0))


def wrong_relu(x: np.ndarray) -> np.ndarray:
    return np.abs(x)


@pytest.fixture
def registered() -> Iterator[Callable[..., None]]:
    made = []

    def register(function: Callable[..., Any], **more: Any) -> None:
        made.append(fusible.register_kernel("relu", function=function, **more))

    yield register
    for kernel in made:
        KERNELS.unregister(kernel)


def test_registered_kernels_have_rows_of_their_own(registered: Callable[..., None]) -> None:
    registered(quick_relu)
    own, other = rows_of([RELU])
    assert own.kernel == GENERATED
    assert other.kernel == f"{__name__}:quick_relu"
    assert own.status == other.status == "ok"
    assert (own.flops, own.bytes) == (other.flops, other.bytes)
    assert len(KERNELS.for_op("relu")) == 1  # still registered


def test_a_registered_kernel_that_is_wrong_or_not_legal_says_so(registered: Callable[..., None]) -> None:
    registered(wrong_relu)
    registered(quick_relu, legal=lambda facts: "only on Sundays")
    own, wrong, refused = rows_of([RELU])
    assert [own.status, wrong.status, refused.status] == ["ok", "wrong", "absent"]
    assert "only on Sundays" in refused.reason


def test_registered_ops_are_benched_where_their_shapes_are_given() -> None:
    from fusible.compiler.ir.ops import OPS

    fusible.register_op("test.bench", "Twice", numpy=lambda x: x * 2)
    try:
        (row,) = rows_of(["test.bench::Twice(f32[3])"])
        assert row.status == "absent"
        assert row.kernel.startswith(__name__)
    finally:
        OPS.unregister("test.bench::Twice")
