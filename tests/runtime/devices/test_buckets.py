"""Runs by buckets: one graph for all sizes of a bucket, whatever lies behind the true ones. In checking mode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx.parser
import pytest

import fusible
from fusible.runtime.devices.buckets import bucket_of, bucket_plan
from fusible.runtime.devices.code import DeviceKernel
from fusible.runtime.devices.program import DeviceProgram
from fusible.runtime.devices.session import DeviceSession
from fusible.runtime.devices.triton_cpu import TritonCpu
from fusible.runtime.session import RunLimits
from tests.runtime.devices import plans
from tests.runtime.devices.build import program
from tests.runtime.devices.counting import CountingCpu
from tests.runtime.devices.sized_kernels import bounded, sized_program
from tests.runtime.devices.test_session import numbers, session_of

SIZES = (40, 40, 33, 64, 1, 0, 1, 63, 500, 1000, 40, 700, 999)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 1), (1, 1), (1, 512), (3, 100), (65, 70), (0, 1000), (64, 64)])
def test_buckets_are_few_and_share_no_size(low: int, high: int) -> None:
    found = {bucket_of(value, low, high) for value in range(low, high + 1)}
    assert sorted(v for first, last in found for v in range(first, last + 1)) == list(range(low, high + 1))
    assert all(last == high or last & (last - 1) == 0 for _, last in found)
    assert len(found) <= (high - low).bit_length() + 2
    assert all(bucket_of(value, low, high) == b for b in found for value in b)


def test_one_graph_serves_a_bucket() -> None:
    session = session_of(plans.chain(sized_program()))
    session._poison = True
    for seed, n in enumerate(SIZES):
        x = numbers(n, seed=seed)
        assert np.array_equal(session.run({"x": x})["y"], 3 * x)
    assert [(c.bucket, c.launches, c.exact) for c in session.captures] == [
        ({"n": bucket}, 2, "") for bucket in ((33, 64), (1, 1), (513, 1000))
    ]  # 40 came back when a larger bucket had taken its arena, and is launched anew
    assert [dict(used) for used in session.captures[-1].used] == [{"n": n} for n in (1000, 700, 999)]
    assert str(session.captures[0]).endswith("for n 33 to 64; used for n=40; n=33; n=64; n=63")


def test_memory_is_counted_and_bounded() -> None:
    exe = plans.chain(sized_program())
    session = session_of(replace(exe, limits=RunLimits(memory_bytes=13_000)))
    for n in (1000, 40, 100, 20, 300, 700, 10, 1000):  # older buckets go when there is no room for all
        assert np.array_equal(session.run({"x": numbers(n)})["y"], 3 * numbers(n))
        assert session._buckets is not None and session._buckets._held() <= 13_000
    for allowed, asked in ((4100, "at x: asked for 80"), (8100, "at y: asked for 120")):  # each of the three has 4000
        session = session_of(replace(exe, limits=RunLimits(memory_bytes=allowed)))
        with pytest.raises(fusible.LimitExceeded, match=f"'memory_bytes' exceeded {asked}.*allowed {allowed}"):
            session.run({"x": numbers(1000)})
    elsewhere = session_of(replace(exe, limits=RunLimits(memory_bytes=8100)))
    with pytest.raises(fusible.LimitExceeded, match="'memory_bytes' exceeded at x, y"):
        kept = [elsewhere.run_on_device({"x": numbers(1000, seed=n)}) for n in range(24)]
        assert not kept
    exact = replace(plans.with_host_step(program()), limits=RunLimits(memory_bytes=1000))
    with pytest.raises(fusible.LimitExceeded, match="'memory_bytes' exceeded at x: asked for 1296, allowed 1000"):
        session_of(exact).run({"x": numbers(100)})


def counting(known: DeviceProgram) -> tuple[DeviceProgram, CountingCpu]:
    assert isinstance(known.device, TritonCpu)
    device = CountingCpu(known.device)
    return DeviceProgram(known.code, "triton-cpu", lambda: device), device


def test_a_new_size_costs_one_copy_of_sizes() -> None:
    made, device = counting(sized_program())
    session = session_of(plans.chain(made))
    for n in (64, 40, 50):
        session.run({"x": numbers(n)})
    device.counts.clear()
    session.run({"x": numbers(37)})
    assert device.counts == {"upload": 2, "replay": 1, "download": 1}
    device.counts.clear()
    session.run({"x": numbers(37)})
    assert device.counts == {"upload": 1, "replay": 1, "download": 1}


def test_programs_that_share_a_sum_are_counted_by_true_sizes() -> None:
    session = session_of(plans.shared_sums(sized_program()))
    session._poison = True
    for r, c in ((9, 77), (16, 65), (10, 80), (16, 80), (11, 70), (9, 66)):
        x = numbers(r, c)
        found = session.run({"x": x})
        assert np.allclose(found["y"], 2 * x.sum(1), atol=1e-4) and np.array_equal(found["y"], found["again"])
    assert len(session.captures) == 1


def test_views_and_products_have_their_true_sizes() -> None:
    views = bounded(plans.with_views(sized_program()), r=(1, 20), c=(1, 60))
    weights = bounded(plans.with_weights(sized_program()), m=(1, 70))
    for exe, shapes in ((views, [(9, 40), (16, 33), (10, 60), (9, 33)]), (weights, [(33, 20), (64, 20), (50, 20)])):
        session, exact = session_of(exe), session_of(replace(exe, device=program()))
        session._poison = True
        for shape in shapes:
            x = numbers(*shape)
            assert np.array_equal(session.run({"x": x})["y"], exact.run({"x": x})["y"])
        assert session.captures[-1].bucket is not None and len(session.captures) == 1


def test_reads_beyond_the_true_size_are_found() -> None:
    session = session_of(bounded(plans.reads_beyond(sized_program()), n=(1, 64)))
    for n in (64, 64, 64):
        session.run({"x": numbers(n)})
    with pytest.raises(fusible.ExecutionError, match="reads_beyond"):  # in the padding, so that only sizes tell
        session.run({"x": numbers(40)})
    session.run({"x": numbers(64)})


def test_arrays_that_lie_elsewhere_each_time_are_copied() -> None:
    session = session_of(plans.chain(sized_program()))
    kept = []
    for k in range(24):
        x = numbers(33 + k, seed=k)
        kept.append((x, session.run_on_device({"x": x})["y"]))
        given = session.run_on_device({"x": kept[-1][1]})["y"]
        kept.append((3 * x, given))
    assert all(np.array_equal(np.from_dlpack(y), 3 * x) for x, y in kept)
    assert len(session.captures) <= 9 and len([c for c in session.captures if c.addresses == 2]) > 0


def test_outputs_in_bound_arrays() -> None:
    session = session_of(plans.chain(sized_program()))
    x = numbers(50)
    held = session.run_on_device({"x": x})["y"]
    session.bind(outputs={"y": held})
    for k in range(4):
        assert session.run({"x": x + k})["y"] is held and np.array_equal(np.from_dlpack(held), 3 * (x + k))
    with pytest.raises(fusible.SignatureError, match="shape"):
        session.run({"x": numbers(51)})


def test_each_step_can_be_timed() -> None:
    session = session_of(plans.chain(sized_program()))
    assert [row["kernel"] for row in session.profile({"x": numbers(70)})] == ["twice", "plus"]


def test_bounds_are_checked() -> None:
    with pytest.raises(fusible.BoundsError, match="'n' is 1001"):
        plans.chain(sized_program())(numbers(1001))


@pytest.mark.parametrize(
    ("made", "bounds", "reason"),
    [
        (plans.with_host_step, {"n": (0, 9)}, "neg at 'middle' is the host's"),
        (plans.late_sizes, {"n": (0, 9)}, "non_zero at 'positive' is the host's"),
        (plans.branches, {"n": (0, 9)}, "if at 'if' is the host's"),
        (plans.with_weights, {}, "the size m has no upper bound"),
        (plans.cache_step, {}, "all its sizes are fixed"),
    ],
)
def test_others_keep_graphs_of_exact_sizes(
    made: object, bounds: dict[str, tuple[int, int | None]], reason: str
) -> None:
    exe = bounded(made(sized_program()), **bounds)  # type: ignore[operator]
    found = bucket_plan(exe.plan, sized_program().kernels)
    assert isinstance(found, str) and reason in found


def test_the_log_says_why_sizes_are_exact() -> None:
    session = session_of(plans.with_weights(sized_program()))
    for _ in range(2):
        session.run({"x": numbers(33, 20)})
    assert session.captures[0].bucket is None and "no upper bound" in session.captures[0].exact
    assert "for m=33 (the size m has no upper bound" in str(session.captures[0])
    unsized = session_of(plans.chain())
    for _ in range(2):
        unsized.run({"x": numbers(33)})
    assert unsized.captures[0].exact == "the kernel twice takes its sizes as arguments"


def test_a_block_that_moves_with_sizes_is_told() -> None:
    exe = plans.with_blocks(sized_program())
    values = list(exe.plan.values)
    values[3] = values[3]._replace(shape=("n", 4), whole=("n + 2", 4), corner=("n", 0))
    values[1] = values[1]._replace(shape=("n", 4), name="b")
    steps = tuple(s._replace(kernel="twice", dims=(1, "4*n")) if s.kernel == "negate" else s for s in exe.plan.steps)
    plan = exe.plan._replace(values=tuple(values), steps=steps, bounds={"n": (1, 8)})
    found = bucket_plan(plan, sized_program().kernels)
    assert isinstance(found, str) and "begins elsewhere in what it is joined to" in found


DIVIDED = """<ir_version: 10, opset_import: ["" : 21]>
m (float[a,b] x, float[c] y) => (float[d,c] z) {
 minus = Constant <value = int64[1] {-1}> ()
 s = Shape(y)
 t = Concat<axis=0>(minus, s)
 r = Reshape(x, t)
 z = Add(r, y)
}"""


def test_a_size_that_may_be_0_divides_others() -> None:
    shapes = {"a": (1, 8), "b": (1, 8), "c": (0, 8)}
    exe = fusible.compile(onnx.parser.parse_model(DIVIDED), "triton-cpu", shapes=shapes)
    session = exe.session()
    assert isinstance(session, DeviceSession)
    for c in (1, 1, 4, 8):
        x, y = numbers(4, 4), numbers(c)
        assert np.array_equal(session.run({"x": x, "y": y})["z"], x.reshape(-1, c) + y)
    assert [c.bucket for c in session.captures] == [{"a": (3, 4), "b": (3, 4), "c": (1, 1)}]


def test_a_divisor_of_0_is_a_reason_for_exact_sizes() -> None:
    exe = bounded(plans.with_weights(sized_program()), m=(1, 70))
    divided = [v._replace(shape=("floordiv(m, m - 1)",)) if v.shape and "m" in v.shape else v for v in exe.plan.values]
    found = bucket_plan(exe.plan._replace(values=tuple(divided)), sized_program().kernels)
    assert isinstance(found, str) and "its divisor may be 0" in found
    block = plans.with_blocks(sized_program()).plan
    values = [v._replace(whole=("n", 4), corner=("floordiv(4, n)", 0)) if v.corner else v for v in block.values]
    steps = tuple(s._replace(kernel="twice", dims=(1, "4*n")) if s.kernel == "negate" else s for s in block.steps)
    inputs = [v._replace(shape=("n", 4)) if n in block.inputs else v for n, v in enumerate(values)]
    plan = block._replace(values=tuple(inputs), steps=steps, bounds={"n": (0, 8)})
    found = bucket_plan(plan, sized_program().kernels)
    assert isinstance(found, str) and "its divisor may be 0" in found


def test_kernels_that_read_sizes_say_where_from() -> None:
    kernel = sized_program().kernels["twice"]
    data = {name: getattr(kernel, name) for name in kernel.__dataclass_fields__} | {"tensors": []}
    assert DeviceKernel.from_json(data).sizes == (("n", "i32"),)
    arguments = tuple(a for a in kernel.arguments if a[0] != "sizes")
    with pytest.raises(fusible.errors.ArtifactError, match="no argument points there"):
        DeviceKernel.from_json(data | {"arguments": arguments})
