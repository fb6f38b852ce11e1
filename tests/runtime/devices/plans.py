"""Plans written by hand, with steps on the device and on the host, and the executables that run them."""

from __future__ import annotations

import numpy as np

from fusible.runtime.devices.program import DeviceProgram
from fusible.runtime.executable import Executable
from fusible.runtime.plan import Alloc, Call, Copy, If, Launch, Loop, Plan
from tests.runtime.devices.build import executable, plan, tensor

HOST = """
import numpy as np

def negate(x, out):
    np.negative(x, out)

def flat(x, n):
    return x.reshape(n)

def rows(x, n, c):
    return x.reshape(n, c)

def transpose(x):
    return x.T

def positive(x):
    return np.flatnonzero(x > 0).astype(np.int64)

def gather(x, i, out):
    np.take(x, i, out=out)

def more(i):
    return np.asarray(True)
"""


def programs(count: str) -> str:
    """Of a kernel whose blocks have 32 elements."""
    return f"floordiv({count} + 31, 32)"


def launch(kernel: str, inputs: tuple[int, ...], output: int, count: str = "n", free: tuple[int, ...] = ()) -> Launch:
    """A step of an element-wise kernel, called after what it writes."""
    return Launch(kernel, inputs, (output,), (programs(count), count), (f"node {output}",), kernel, free)


def chain(device: DeviceProgram | None = None) -> Executable:
    """y = 2 x + x, by way of the arena."""
    values = [tensor("input", "n", name="x"), tensor("arena", "n", index=0), tensor("output", "n", name="y")]
    made = plan(values, [launch("twice", (0,), 1), launch("plus", (0, 1), 2)], [0], [2], {"n": (0, 1000)})
    return executable(made, device=device)


def with_host_step(device: DeviceProgram | None = None) -> Executable:
    """y = 3 * -(2 x): the middle is NumPy's."""
    values = [
        tensor("input", "n", name="x"),
        tensor("arena", "n", index=0),
        tensor("arena", "n", index=1),
        tensor("output", "n", name="y"),
    ]
    middle = Launch("negate", (1,), (2,), (), ("middle",), "neg")
    made = plan(values, [launch("twice", (0,), 1), middle, launch("thrice", (2,), 3)], [0], [3])
    return executable(made, source=HOST, device=device)


def host_only_middle(device: DeviceProgram | None = None) -> Executable:
    """y = 2 * -(-x): what goes between two host steps never sees the device."""
    values = [
        tensor("input", "n", name="x"),
        tensor("arena", "n", index=0),
        tensor("arena", "n", index=1),
        tensor("output", "n", name="y"),
    ]
    steps = [Launch("negate", (0,), (1,), op="neg"), Launch("negate", (1,), (2,), op="neg"), launch("twice", (2,), 3)]
    return executable(plan(values, steps, [0], [3]), source=HOST, device=device)


def with_views(device: DeviceProgram | None = None) -> Executable:
    """y[r] = sum over columns of 2 x, where 2 x is computed flat."""
    values = [
        tensor("input", "r", "c", name="x"),
        tensor("returned", "r * c"),
        tensor("arena", "r * c", index=0),
        tensor("returned", "r", "c"),
        tensor("output", "r", name="y"),
    ]
    steps = [
        Call("flat", (0,), (1,), ("r * c",), op="reshape", view=True),
        launch("twice", (1,), 2, "r * c", free=(1,)),
        Call("rows", (2,), (3,), ("r", "c"), op="reshape", view=True),
        Launch("row_sums", (3,), (4,), ("r", "c"), ("sum",), "reduce_sum", (3,)),
    ]
    return executable(plan(values, steps, [0], [4]), source=HOST, device=device)


def shared_sums(device: DeviceProgram | None = None) -> Executable:
    """y = the sums of the rows of 2 x, each by five programs together, twice."""
    values = [tensor("input", "r", "c", name="x"), tensor("arena", "r", "c", index=0)]
    values += [tensor("output", "r", name="y"), tensor("output", "r", name="again")]
    shared = [Launch("shared_row_sums", (1,), (n,), ("5 * r", "c"), ("sum",), "reduce_sum") for n in (2, 3)]
    steps = [launch("twice", (0,), 1, "r * c"), *shared]
    return executable(plan(values, steps, [0], [2, 3], {"r": (0, 1000), "c": (1, 80)}), device=device)


def with_order(device: DeviceProgram | None = None) -> Executable:
    """y = transpose of 2 x, where x's copy is stored by columns; then the host reads what the device wrote."""
    values = [
        tensor("input", "r", "c", name="x"),
        tensor("arena", "r", "c", index=0),
        tensor("arena", "r", "c", index=1),
        tensor("returned", "r", "c", name="y"),
    ]
    values[1] = type(values[1])("", "arena", "f32", ("r", "c"), 0, (1, 0))
    values[2] = type(values[2])("", "arena", "f32", ("r", "c"), 1, (1, 0))
    steps = [Launch("negate", (0,), (1,), op="neg"), launch("twice", (1,), 2, "r * c"), Copy(2, 3)]
    return executable(plan(values, steps, [0], [3]), source=HOST, device=device)


def with_blocks(device: DeviceProgram | None = None) -> Executable:
    """y = the rows of 2 a above those of -b, each written in place into the joined value by the device or the host."""
    joined = type(tensor("arena", 1))("", "arena", "f32", (5, 4), 0)
    upper = type(joined)("", "arena", "f32", (2, 4), 0, None, (5, 4), (0, 0))
    lower = type(joined)("", "arena", "f32", (3, 4), 0, None, (5, 4), (2, 0))
    values = [tensor("input", 2, 4, name="a"), tensor("input", 3, 4, name="b"), upper, lower, joined,
              tensor("output", 5, 4, name="y")]  # fmt: skip
    steps = [
        Launch("twice", (0,), (2,), (1, 8), ("upper",), "mul"),
        Launch("negate", (1,), (3,), (), ("lower",), "neg"),
        Launch("thrice", (4,), (5,), (1, 20), ("both",), "mul"),
    ]
    return executable(plan(values, steps, [0, 1], [5]), source=HOST, device=device)


def with_columns(device: DeviceProgram | None = None) -> Executable:
    """y = 3 times the columns of -a beside those of -b, which the host writes between each other on the device."""
    joined = type(tensor("arena", 1))("", "arena", "f32", (5, 4), 0)
    left = type(joined)("", "arena", "f32", (5, 1), 0, None, (5, 4), (0, 0))
    right = type(joined)("", "arena", "f32", (5, 3), 0, None, (5, 4), (0, 1))
    values = [tensor("input", 5, 1, name="a"), tensor("input", 5, 3, name="b"), left, right, joined,
              tensor("output", 5, 4, name="y")]  # fmt: skip
    steps = [
        Launch("negate", (0,), (2,), (), ("left",), "neg"),
        Launch("negate", (1,), (3,), (), ("right",), "neg"),
        Launch("thrice", (4,), (5,), (1, 20), ("both",), "mul"),
    ]
    return executable(plan(values, steps, [0, 1], [5]), source=HOST, device=device)


def late_sizes(device: DeviceProgram | None = None) -> Executable:
    """y = 2 * the positive elements of 3 x: a size that a run defines reaches the device."""
    values = [
        tensor("input", "n", name="x"),
        tensor("arena", "n", index=0),
        tensor("returned", "k", dtype="i64"),
        tensor("late", "k"),
        tensor("late", "k", name="y"),
    ]
    steps = [
        launch("thrice", (0,), 1),
        Call("positive", (1,), (2,), (), ("positive",), "non_zero"),
        Alloc(3),
        Launch("gather", (1, 2), (3,), (), ("gather",), "gather", (2,)),
        Alloc(4),
        launch("twice", (3,), 4, "k", free=(3,)),
    ]
    return executable(plan(values, steps, [0], [4]), source=HOST, device=device)


def _branch(kernel: str) -> Plan:
    values = [tensor("input", "n", name="v"), tensor("output", "n", name="o")]
    return plan(values, [launch(kernel, (0,), 1)], [0], [1])


def branches(device: DeviceProgram | None = None) -> Executable:
    """z = 2 x if flag else 3 x; then `count` times z = 2 z, with every z gathered."""
    body = plan(
        [
            tensor("input", dtype="i64", name="i"),
            tensor("input", dtype="bool", name="c"),
            tensor("input", "n", name="v"),
            tensor("returned", dtype="bool"),
            tensor("output", "n", name="v2"),
            tensor("returned", "n"),
        ],
        [Call("more", (0,), (3,), (), (), "identity"), launch("twice", (2,), 4), Copy(4, 5)],
        [0, 1, 2],
        [3, 4, 5],
    )
    values = [
        tensor("input", "n", name="x"),
        tensor("input", dtype="bool", name="flag"),
        tensor("input", dtype="i64", name="count"),
        tensor("returned", "n"),
        tensor("returned", "n", name="z"),
        tensor("returned", "count_", "n", name="all"),
    ]
    steps = [
        If(1, (0,), (3,), _branch("twice"), _branch("thrice"), ("if",)),
        Loop(2, None, (3,), 1, (4, 5), body, ("loop",), (3,)),
    ]
    return executable(plan(values, steps, [0, 1, 2], [4, 5]), source=HOST, device=device)


def cache_step(device: DeviceProgram | None = None) -> Executable:
    """present = past + x; y = 2 present: a state that goes from run to run."""
    values = [
        tensor("input", 40, name="past"),
        tensor("input", 40, name="x"),
        tensor("output", 40, name="present"),
        tensor("output", 40, name="y"),
    ]
    steps = [
        Launch("plus", (0, 1), (2,), (2, 40), ("add",), "add"),
        Launch("twice", (2,), (3,), (2, 40), ("mul",), "mul"),
    ]
    return executable(plan(values, steps, [0, 1], [2, 3]), device=device)


def with_weights(device: DeviceProgram | None = None) -> Executable:
    """y = x @ w for a constant w of 20 x 7."""
    w = np.random.default_rng(5).standard_normal((20, 7)).astype(np.float32)
    values = [
        tensor("input", "m", 20, name="x"),
        tensor("constant", 20, 7, index=0),
        tensor("output", "m", 7, name="y"),
    ]
    dims = ("floordiv(m + 15, 16)", "m", 7, 20)
    made = plan(values, [Launch("product", (0, 1), (2,), dims, ("fc",), "matmul")], [0], [2])
    return executable(made, constants=[w], device=device)


def reads_beyond(device: DeviceProgram | None = None) -> Executable:
    """A kernel that reads up to the end of its block."""
    values = [tensor("input", "n", name="x"), tensor("output", "n", name="y")]
    return executable(plan(values, [launch("reads_beyond", (0,), 1)], [0], [1]), device=device)
