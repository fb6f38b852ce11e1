"""What excuses an error: the size of the one that float32 makes anyway, and nothing else."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.differential import judge
from tests.differential.builder import Sample
from tests.differential.conditioning import alone, is_ill_conditioned, widened

_HEAD = '<ir_version: 10, opset_import: ["" : 23]> g '


def _sample(text: str, **feeds: np.ndarray) -> Sample:
    return Sample(onnx.parser.parse_model(_HEAD + text), feeds, {})


@pytest.mark.parametrize(("error", "excused"), [(1.5e-6, True), (1e-4, False), (0.05, False)])
def test_a_gelu_that_cancels(error: float, excused: bool) -> None:
    sample = _sample("(float[1] x) => (float[1] y) { y = Gelu(x) }", x=np.array([-2.0], np.float32))
    exact = np.array([-0.045500264], np.float32)
    assert is_ill_conditioned(sample, "y", exact, exact * np.float32(1 + error)) is excused


def test_a_sum_of_a_few_terms_excuses_nothing() -> None:
    x = np.linspace(1, 2, 8, dtype=np.float32)
    sample = _sample("(float[8] x) => (float[1] y) { y = ReduceSum(x) }", x=x)
    exact = x.sum(keepdims=True)
    assert not is_ill_conditioned(sample, "y", exact, exact * np.float32(1 + 2e-5))


@pytest.mark.parametrize(("error", "excused"), [(3e-14, True), (1e-12, False)])
def test_a_sum_in_float64_that_cancels(error: float, excused: bool) -> None:
    """Terms of up to 100 whose sum is about 1: in the last place of each, an error of 1e-14."""
    x = np.array([100.1, -99.7, 57.3, -56.9])
    sample = _sample("(double[4] x) => (double[1] y) { y = ReduceSum(x) }", x=x)
    exact = x.sum(keepdims=True)
    assert is_ill_conditioned(sample, "y", exact, exact + error) is excused


def test_an_output_is_looked_at_alone() -> None:
    """float16 beside it is no reason to look away, float16 before it is; subgraphs are widened too."""
    sample = _sample(
        """(float[n] x, float16[n] h, bool c) => (float[n] y, float[n] z) {
            k = Constant<value = float {0.5}>()
            y = If(c)<then_branch = t () => (float[n] a) { a = Mul(x, k) },
                      else_branch = e () => (float[n] b) { b = Neg(x) }>
            w = Cast<to = 1>(h)
            z = Mul(w, x)
        }""",
        x=np.ones(3, np.float32),
        h=np.ones(3, np.float16),
        c=np.array(True),
    )
    one = alone(sample, "y")
    assert sorted(one.feeds) == ["c", "x"] and [n.op_type for n in one.model.graph.node] == ["Constant", "If"]
    wide = widened(one)
    assert wide is not None
    onnx.checker.check_model(wide, full_check=True)
    assert widened(alone(sample, "z")) is None


@pytest.mark.parametrize(("text", "excused"), [("y = Mul(x, s)", True), ("y = Neg(s)", False)])
def test_an_activation_that_multiplies_by_x_errs_by_an_ulp_of_x(text: str, excused: bool) -> None:
    """x sigmoid(x) is -1.1e-3 at -9, an ulp of x 1e-6; the sigmoid alone has no such excuse."""
    x = np.array([-9.0], np.float32)
    sample = _sample(f"(float[1] x) => (float[1] y) {{ s = Sigmoid(x)\n {text} }}", x=x)
    exact = judge.reference(sample)["y"]
    assert is_ill_conditioned(sample, "y", exact, exact * np.float32(1.004)) is excused
    assert not is_ill_conditioned(sample, "y", exact, exact * np.float32(1.02))


@pytest.mark.parametrize(("error", "excused"), [(1e-7, True), (3e-6, False)])
def test_values_that_cancel_whatever_they_are(error: float, excused: bool) -> None:
    """The mean is 0 for every x, and other systems find just that."""
    text = """(float[1] x) => (float[1] y) {
        w = Constant<value = float[4] {1.0, -1.0, 2.0, -2.0}>()
        v = Mul(x, w)
        y = ReduceMean(v)
    }"""
    sample = _sample(text, x=np.array([1.17], np.float32))
    exact = judge.reference(sample)["y"]
    assert exact == 0
    assert is_ill_conditioned(sample, "y", exact, exact + np.float32(error)) is excused


@pytest.mark.parametrize(("steps", "excused"), [(1, True), (12, False)])
def test_the_square_of_a_rounded_product(steps: int, excused: bool) -> None:
    """A step of float16 in a factor is two in the square."""
    sample = _sample("(float16[2] x) => (float16[2] y) { p = Mul(x, x)\n y = Mul(p, p) }", x=np.float16([1.1, 1.3]))
    exact = judge.reference(sample)["y"]
    got = (exact.astype(np.float32) * (1 + steps * 2.0**-10)).astype(np.float16)
    assert is_ill_conditioned(sample, "y", exact, got) is excused


@pytest.mark.parametrize(("error", "excused"), [(4e-6, True), (1e-3, False)])
def test_a_sine_of_a_large_number_behind_a_quantisation(error: float, excused: bool) -> None:
    """Quantisations know no float64: casts stand around them."""
    sample = _sample(
        """(float[1] x, float[1] w) => (float[1] y) <float s = {0.25}, uint8 z = {3}> {
            q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) m = Mul(d, w) y = Sin(m) }""",
        x=np.array([2.1], np.float32), w=np.array([25.1], np.float32),
    )  # fmt: skip
    exact = np.sin(np.array([50.2])).astype(np.float32)
    assert is_ill_conditioned(sample, "y", exact, exact + np.float32(error)) is excused
