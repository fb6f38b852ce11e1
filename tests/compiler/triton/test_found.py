"""What the target triton-cpu once did wrong: one small graph each, as random graphs and conformance cases showed it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx.parser
import pytest

import fusible
from tests.compiler.cpu.test_found import random_inputs
from tests.fast_compiler import fast_compiler
from tests.tolerance import assert_outputs_close

HEADER = '<ir_version: 10, opset_import: ["": 28]>\n'
# name -> (inputs -> outputs of the graph, its nodes, the extents of symbols)
GRAPHS = {
    "shifts_by_as_many_bits_as_there_are": (
        "(int32[6] x, uint8[6] u) => (int32[6] a, int32[6] b, int32[6] c, uint8[6] d, uint8[6] e)",
        """n = Constant<value_ints = [0, 31, 32, 33, 70, -1]>() s = Cast<to = 6>(n) m = Neg(x)
        a = BitShift<direction = "RIGHT">(m, s) b = BitShift<direction = "LEFT">(x, s)
        t = Constant<value_int = 32>() f = Cast<to = 6>(t) c = BitShift<direction = "RIGHT">(m, f)
        i = Constant<value_ints = [0, 1, 7, 8, 9, 255]>() k = Cast<to = 2>(i)
        d = BitShift<direction = "LEFT">(u, k) e = BitShift<direction = "RIGHT">(u, k)""",
        {},
    ),
    "results_along_one_of_two_folded_axes_of_which_the_other_is_empty": (
        "(float[0,2,1,1] x, float[n,m,5] z, float[n,1,1] b, float[2] c) => (float[1,1,1,2] y, float[n,1,1] w)",
        """a = Constant<value_ints = [0, -3]>() s = ReduceSumSquare<keepdims = 1>(x, a) y = Mul(s, c)
        r = ReduceSum<keepdims = 1>(z) w = Mul(r, b)""",
        {"n": 3, "m": 0},
    ),
}


@pytest.fixture(scope="module", autouse=True)
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Kernels built with -O1, in a cache of their own."""
    folder = tmp_path_factory.mktemp("found")
    with fast_compiler(folder, "-O1", lowered=True):
        yield folder / "cache"


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_that_went_wrong(name: str, compiler: Path) -> None:
    signature, nodes, sizes = GRAPHS[name]
    model = onnx.parser.parse_model(f"{HEADER}g {signature} {{ {nodes} }}")
    reference = fusible.compile(model, target="numpy")
    feeds = random_inputs(reference, sizes)
    options = fusible.Options(threads=2, cache_dir=compiler, verify="kernels")
    exe = fusible.compile(model, target="triton-cpu", options=options)
    session = exe.session()
    session._poison = True
    assert_outputs_close(session.run(feeds), reference.run(feeds))
    assert exe.report.host == ()
