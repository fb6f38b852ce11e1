"""Products of two operands that are computed: the right one is packed when the kernel is called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

import fusible
from tests.fast_compiler import fast_compiler
from tests.tolerance import assert_outputs_close

HEADER = '<ir_version: 10, opset_import: ["": 21]>\n'
# name -> (inputs -> outputs, nodes, extents of symbols)
PRODUCTS = {
    "plain": ("(float[30,17] a, float[17,45] b) => (float[30,45] y)", "y = MatMul(a, b)", {}),
    "transposed": ("(float[30,17] a, float[45,17] b) => (float y)", "y = Gemm<transB = 1, alpha = 0.5>(a, b)", {}),
    "both_transposed": ("(float[17,30] a, float[45,17] b) => (float y)", "y = Gemm<transA=1, transB=1>(a, b)", {}),
    "batch": ("(float[5,30,17] a, float[5,17,8] b) => (float y)", "y = MatMul(a, b)", {}),
    "two_axes_of_a_batch": ("(float[2,3,9,40] a, float[2,3,40,33] b) => (float y)", "y = MatMul(a, b)", {}),
    "one_for_a_batch": ("(float[2,3,9,17] a, float[17,33] b) => (float y)", "y = MatMul(a, b)", {}),
    "one_on_the_left": ("(float[9,17] a, float[3,17,33] b) => (float y)", "y = MatMul(a, b)", {}),
    "heads": (
        "(float[9,4,16] q, float[11,4,16] k) => (float[4,9,11] y)",
        "u = Transpose<perm = [1,0,2]>(q) v = Transpose<perm = [1,2,0]>(k) y = MatMul(u, v)",
        {},
    ),
    "any_size": (
        "(float[n,m,k] a, float[n,k,l] b) => (float y)",
        "y = MatMul(a, b)",
        {"n": 2, "m": 19, "k": 7, "l": 70},
    ),
    "any_rows": ("(float[m,40] a, float[40,64] b) => (float y)", "y = MatMul(a, b)", {"m": 1}),
    "empty_depth": ("(float[m,k] a, float[k,64] b) => (float y)", "y = MatMul(a, b)", {"m": 5, "k": 0}),
    "no_columns": ("(float[m,k] a, float[k,n] b) => (float y)", "y = MatMul(a, b)", {"m": 5, "k": 3, "n": 0}),
    "no_batch": ("(float[b,5,k] a, float[b,k,8] c) => (float y)", "y = MatMul(a, c)", {"b": 0, "k": 3}),
    "chunks_of_depth": ("(float[16,3500] a, float[3500,40] b) => (float y)", "y = MatMul(a, b)", {}),
    "what_follows": (
        "(float[3,20,16] a, float[3,16,50] b, float[50] c, float[3,20,50] d) => (float y)",
        "p = MatMul(a, b) q = Add(p, c) r = Gelu(q) y = Mul(r, d)",
        {},
    ),
    "einsum": ("(float[6,20,8] a, float[6,30,8] b) => (float y)", 'y = Einsum<equation = "bic,bjc->jbi">(a, b)', {}),
    "weights_of_a_convolution": ("(float[2,16,9,9] x, float[24,16,1,1] w) => (float y)", "y = Conv(x, w)", {}),
}


@pytest.fixture(scope="module", autouse=True)
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Kernels built with -O1, in a cache of their own."""
    folder = tmp_path_factory.mktemp("products")
    with fast_compiler(folder, "-O1"):
        yield folder / "cache"


def feeds_of(exe: fusible.Executable, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    shapes = {s.name: [d if isinstance(d, int) else sizes[d] for d in s.shape or ()] for s in exe.inputs}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str, threads: int, compiler: Path) -> None:
    signature, nodes, sizes = PRODUCTS[name]
    model = onnx.parser.parse_model(f"{HEADER}g {signature} {{ {nodes} }}")
    options = fusible.Options(threads=threads, cache_dir=compiler, exactness=fusible.Exactness.REASSOCIATING)
    exe, reference = (fusible.compile(model, target=t, options=options) for t in ("cpu", "numpy"))
    assert exe.report.host == ()
    assert "panels_pack(&source" in "".join(text for file, text in exe.sources.items() if file.endswith(".c"))
    session, feeds = exe.session(), feeds_of(exe, sizes)
    session._poison = True
    assert_outputs_close(session.run(feeds), reference.run(feeds))
    assert all(np.array_equal(a, b) for a, b in zip(session.run(feeds).values(), exe.run(feeds).values(), strict=True))


def test_precision_is_that_of_the_operands(compiler: Path) -> None:
    """In bf16 only products with constants are rounded."""
    model = onnx.parser.parse_model(f"{HEADER}g (float[30,17] a, float[17,45] b) => (float y) {{ y = MatMul(a, b) }}")
    exe = fusible.compile(model, target="cpu", options=fusible.Options(precision="bf16", cache_dir=compiler))
    feeds = feeds_of(exe, {})
    np.testing.assert_allclose(exe.run(feeds)["y"], feeds["a"] @ feeds["b"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("nodes", ["y = MatMul(a, b)", "r = Relu(a) y = MatMul(r, b)"])
def test_few_rows_are_not_packed_for(nodes: str, compiler: Path) -> None:
    model = onnx.parser.parse_model(f"{HEADER}g (float[2,700] a, float[700,900] b) => (float y) {{ {nodes} }}")
    exe = fusible.compile(model, target="cpu", options=fusible.Options(cache_dir=compiler))
    assert [row["op"] for row in exe.report.host] == ["matmul"]
    assert any("too few rows to be packed for" in entry["reason"] for entry in exe.report.host)
