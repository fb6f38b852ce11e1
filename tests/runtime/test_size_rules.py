"""Sizes that do not fit are refused before a kernel could read beyond an array, whatever the target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
import pytest

import fusible
from fusible.errors import ExecutionError

_HEAD = '<ir_version: 9, opset_import: ["" : 20]>\n'
TARGETS = ["numpy", "cpu"]
# a graph, what the error says where its symbol is 2, shapes of x that fit
CASES = {
    "sum": ("g (float[C,5] x, float[3,5] z) => (float y) { y = Add(x, z) }", "C = 2 must be 1 or 3", [(1, 5), (3, 5)]),
    "selected": (
        "g (float[C,5] x) => (float y) <bool[3,1] b = {0, 1, 1}, float[3,5] z> { y = Where(b, x, x) }",
        "C = 2 must be 1 or 3", [(1, 5), (3, 5)],
    ),
    "expanded": (
        "g (float[C,5] x) => (float y) <int64[2] s = {3, 1}> { e = Expand(x, s) y = Neg(e) }",
        "Expand at 'e': C = 2 must be 1 or 3", [(1, 5), (3, 5)],
    ),
    "product": ("g (float[4,C] x, float[3,5] z) => (float y) { y = MatMul(x, z) }", "C = 2 must be 3", [(4, 3)]),
    "image": (
        "g (float[1,C,8,8] x, float[4,3,3,3] z) => (float y) { y = Conv(x, z) }",
        "conv at 'y': C = 2 must be 3", [(1, 3, 8, 8)],
    ),
    "small image": (
        "g (float[1,3,H,8] x, float[4,3,3,3] z) => (float y) { y = Conv<dilations = [2, 1]>(x, z) }",
        "0 must be at most H - 4 = -2", [(1, 3, 8, 8)],
    ),
    "computed length": (
        """g (float[1,3,H] x) => (float y)
           <float[3,3,1] z = {1, 0, 2, 0, 1, 0, 3, 0, 1}, int64[2] s = {1, 3},
            int64[1] two = {2}, int64[1] one = {1}, int64[1] five = {-5}> {
            h = Shape<start = 2>(x) a = Add(h, five) q = Div(a, two) l = Add(q, one) t = Concat<axis = 0>(s, l)
            c = Conv<strides = [2]>(x, z) p = AveragePool<kernel_shape = [3]>(c) r = Reshape(p, t) y = Neg(r) }""",
        "Reshape at 'r': .* = 0 must be .* = -1", [(1, 3, 7), (1, 3, 8)],
    ),
    "normalised": (
        "g (float[1,C,4] x, float[3] s) => (float y) { y = BatchNormalization(x, s, s, s, s) }",
        "C = 2 must be 3", [(1, 3, 4)],
    ),
    "reshaped": (
        "g (float[C,4] x) => (float y) <int64[2] s = {3, 4}> { r = Reshape(x, s) y = Neg(r) }",
        "4\\*C = 8 must be 12", [(3, 4)],
    ),
    "split": (
        "g (float[C,4] x) => (float y) <int64[2] s = {1, 2}> { a, b = Split<axis = 0>(x, s) y = Add(a, b) }",
        "C = 2 must be 3", [(3, 4)],
    ),
}  # fmt: skip


def _feeds(text: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(len(text))
    feeds = {"x": rng.standard_normal(shape).astype(np.float32)}
    for name, other in (("z", (3, 5)), ("z", (4, 3, 3, 3)), ("s", (3,))):
        if f"float[{','.join(map(str, other))}] {name}" in text.partition("=>")[0]:
            feeds[name] = rng.uniform(1, 2, other).astype(np.float32)
    return feeds


@pytest.mark.parametrize("target", TARGETS)
def test_a_computed_size_of_0_copies(target: str) -> None:
    """A quotient that truncates may be 0 or -1 when it runs, which mean something else in a Reshape."""
    text = """g (float[N,H] x) => (float[A,B] y)
              <int64[1] two = {2}, int64[1] three = {-3}, int64[1] rest = {-1}> {
              h = Shape<start = 1>(x) a = Add(h, three) q = Div(a, two) t = Concat<axis = 0>(q, rest)
              r = Reshape(x, t) y = Neg(r) }"""
    exe = fusible.compile(onnx.parser.parse_model(_HEAD + text), target=target)
    for shape, expected in (((2, 4), (2, 4)), ((4, 8), (2, 16)), ((3, 5), (1, 15))):
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        np.testing.assert_array_equal(exe.run({"x": x})["y"], -x.reshape(expected))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CASES)
def test_sizes_that_do_not_fit_are_refused(name: str, target: str, tmp_path: Path) -> None:
    text, wrong, fitting = CASES[name]
    made = fusible.compile(onnx.parser.parse_model(_HEAD + text), target=target)
    made.save(tmp_path / "m.fusible")
    plain = fusible.compile(onnx.parser.parse_model(_HEAD + text), target="numpy")
    for exe in (made, fusible.load(tmp_path / "m.fusible")):
        for shape in fitting:
            feeds = _feeds(text, shape)
            np.testing.assert_allclose(exe.run(feeds)["y"], plain.run(feeds)["y"], rtol=1e-5, atol=1e-5)
        with pytest.raises(ExecutionError, match=wrong):
            exe.run(_feeds(text, _other(text, fitting[-1])))


def _other(text: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with 2 where the input has a symbol."""
    dims = text.partition("[")[2].partition("]")[0].split(",")
    return tuple(2 if dim.isalpha() else size for dim, size in zip(dims, shape, strict=True))


@pytest.mark.parametrize("target", TARGETS)
def test_sizes_known_only_in_a_run(target: str) -> None:
    """NonZero finds as many as there are; where they do not fit, what follows is not run."""
    text = (
        "g (float[n] x, float[3] z) => (float y) <int64[1] a = {0}>"
        "{ i = NonZero(x) g = Gather(x, i) s = Squeeze(g, a) y = Add(s, z) }"
    )
    exe = fusible.compile(onnx.parser.parse_model(_HEAD + text), target=target)
    z = np.arange(3, dtype=np.float32)
    for x in ([0, 1, 2, 3], [5, 0], [1, 1, 1]):
        found = np.asarray(x, np.float32)
        np.testing.assert_array_equal(exe.run({"x": found, "z": z})["y"], found[found != 0] + z)
    with pytest.raises(ExecutionError, match=r"add at 'y': .* = 2 must be 1 or 3"):
        exe.run({"x": np.asarray([1, 0, 1], np.float32), "z": z})


@pytest.mark.parametrize("target", TARGETS)
def test_a_branch_asks_for_its_sizes_only_if_it_is_taken(target: str) -> None:
    text = """g (bool c, float[C] x) => (float[k] y) {
        y = If(c) <then_branch = t () => (float[p] a) { w = Constant<value_floats = [1.0, 2.0, 3.0]>() a = Add(x, w) },
                   else_branch = e () => (float[q] b) { b = Neg(x) }> }"""
    exe = fusible.compile(onnx.parser.parse_model(_HEAD + text), target=target)
    two, three = np.ones(2, np.float32), np.ones(3, np.float32)
    np.testing.assert_array_equal(exe.run({"c": np.asarray(False), "x": two})["y"], -two)
    np.testing.assert_array_equal(exe.run({"c": np.asarray(True), "x": three})["y"], [2, 3, 4])
    with pytest.raises(ExecutionError, match="C = 2 must be 1 or 3"):
        exe.run({"c": np.asarray(True), "x": two})


def test_what_can_never_be_is_refused_at_compile_time() -> None:
    text = "g (float[N] x, float[8] z) => (float[a] y) { y = Add(x, z) }"
    with pytest.raises(fusible.InvalidModel, match="dimensions N and 8 do not broadcast"):
        fusible.compile(onnx.parser.parse_model(_HEAD + text), target="cpu", shapes={"N": (2, 4)})
    text = "g (float[N] x) => (float[a] y) <int64[2] p = {2, 2}, float[3] z = {1,2,3}> { w = Pad(x, p) y = Add(w, z) }"
    with pytest.raises(fusible.InvalidModel, match="do not broadcast"):
        fusible.compile(onnx.parser.parse_model(_HEAD + text), target="cpu")


@pytest.mark.parametrize("target", TARGETS)
def test_ranks_that_a_pass_finds_out(target: str) -> None:
    """What exporters write for a squeeze: nobody knows the rank of w before the branches are looked at."""
    text = """g (float[C,5] x, float[3,5] z, bool c) => (float[a,b] y) {
        w = If(c) <then_branch = t () => (float[1,p,q] a) { d = Constant<value_ints = [0]>() a = Unsqueeze(x, d) },
                   else_branch = e () => (float[p,q] b) { b = Identity(x) }>
        k = Constant<value_floats = [1.0, 0.0, 0.0, 0.0, 0.0]>() d = Constant<value_ints = [1]>() l = Unsqueeze(k, d)
        v = Gemm(w, l) y = Add(v, z) }"""
    exe = fusible.compile(onnx.parser.parse_model(_HEAD + text), target=target)
    feeds = {"z": np.ones((3, 5), np.float32), "c": np.asarray(False)}
    assert exe.run({"x": np.ones((3, 5), np.float32), **feeds})["y"].tolist() == [[2.0] * 5] * 3
    with pytest.raises(ExecutionError, match="C = 2 must be 1 or 3"):
        exe.run({"x": np.ones((2, 5), np.float32), **feeds})


@pytest.mark.parametrize("target", TARGETS)
def test_a_scale_that_turns_out_to_be_one_for_all(target: str) -> None:
    text = "g (uint8[2,5,3] x, float[P] s) => (float[a,b,c] y) { y = DequantizeLinear<axis = 1>(x, s) }"
    exe = fusible.compile(onnx.parser.parse_model(_HEAD + text), target=target)
    x, scales = np.full((2, 5, 3), 2, np.uint8), np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(exe.run({"x": x, "s": scales})["y"], np.broadcast_to(2 * scales[:, None], (2, 5, 3)))
    np.testing.assert_array_equal(exe.run({"x": x, "s": scales[1:2]})["y"], np.full((2, 5, 3), 2, np.float32))
    with pytest.raises(ExecutionError, match="P = 3 must be 1 or 5"):
        exe.run({"x": x, "s": scales[:3]})


@pytest.mark.parametrize("target", TARGETS)
def test_scans_of_inputs_of_one_length(target: str) -> None:
    text = """g (float[N,2] x, float[M,2] z) => (float[a,2] y) {
        y = Scan<num_scan_inputs = 2, body = b (float[2] p, float[2] q) => (float[2] r) { r = Add(p, q) }>(x, z) }"""
    exe = fusible.compile(onnx.parser.parse_model(_HEAD + text), target=target)
    x = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(exe.run({"x": x, "z": x})["y"], x + x)
    with pytest.raises(ExecutionError, match="M = 2 must be N = 3"):
        exe.run({"x": x, "z": x[:2]})
