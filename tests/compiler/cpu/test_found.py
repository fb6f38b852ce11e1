"""What the target cpu once did wrong: one small graph each, as `python -m tests.differential` shrank them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

import fusible
from tests.fast_compiler import fast_compiler
from tests.tolerance import assert_outputs_close

HEADER = '<ir_version: 10, opset_import: ["": 23]>\n'
# name -> (inputs -> outputs of the graph, its nodes, the extents of symbols)
GRAPHS = {
    "a_slice_of_the_last_by_a_symbolic_size": (
        "(float[n, 4] x) => (float[4] y)",
        """s = Shape(x) m = Constant<value_ints = [-1]>() i = Constant<value_ints = [0]>()
        n1 = Gather(s, i) e = Add(n1, m) z = Constant<value_ints = [0]>()
        p = Slice(x, e, n1, z) y0 = Squeeze(p, z) y = Relu(y0)""",
        {"n": 3},
    ),
    "dimensions_named_like_axes_and_values": (
        "(float[i0, w_0, w0_1, v1] x) => (float[i0, w_0, w0_1, v1] y)",
        "e = Exp(x) y = Softmax<axis = -1>(e)",
        {"i0": 2, "w_0": 3, "w0_1": 2, "v1": 5},
    ),
    "a_product_with_a_constant_of_one_row_over_a_symbolic_depth": (
        "(float[2, n] x) => (float[2, 1] y) <float[1, 1] w = {2.0}>",
        """o = Constant<value_ints = [1]>() s = Shape<start = 1>(x) t = Concat<axis = 0>(s, o)
        e = Expand(w, t) y = MatMul(x, e)""",
        {"n": 4},
    ),
    "convolutions_of_sequences_one_after_the_other": (
        "(float[2, 1, 9] x, float[1, 1, 3] w) => (float[2, 1, 7] y)",
        "a = Relu(w) b = Conv<pads = [1, 1]>(x, w) c = Conv(b, a) y = Relu(c)",
        {},
    ),
    "a_depthwise_convolution_of_halves": (
        "(float16[1, 2, 5, 4] x) => (float16[1, 2, 4, 3] y) <float16[2, 1, 2, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}>",
        "y = Conv<group = 2>(x, w)",
        {},
    ),
    "attention_whose_result_meets_a_tensor_of_higher_rank": (
        """(float[4, 8] q, float[5, 8] k, float[5, 8] v, float[1, 1, 8] z, float[3, 1, 8] b)
        => (float[1, 4, 8] y, float[3, 4, 8] w)""",
        """t = Transpose(k) s = MatMul(q, t) p = Softmax(s) o = MatMul(p, v) y = Mul(o, z)
        n = Neg(s) r = Softmax(n) u = MatMul(r, v) w = Mul(u, b)""",
        {},
    ),
    "attention_whose_heads_are_added_up_one_after_the_other": (
        "(float[2, 2, 2, 3] q, float[2, 2, 3, 2] k, float[2, 2, 2, 3] v) => (float[2, 2, 6] y)",
        """s = MatMul(q, k) p = Softmax(s) o = MatMul(p, v) t = Transpose<perm = [0, 2, 1, 3]>(o)
        n = Constant<value_ints = [2, 2, 6]>() r = Reshape(t, n) a = Constant<value_int = 0>() y = CumSum(r, a)""",
        {},
    ),
    "a_convolution_of_no_images_with_a_window_of_one": (  # stored what there is no room for
        "(float[0, 1, 1] x) => (float[0, 1, 2] y) <float[1, 1, 1] w = {0.5}>",
        "y = Conv<kernel_shape = [1], pads = [0, 1]>(x, w)",
        {},
    ),
    "a_quantisation_by_numbers_of_another_type": (
        "(float[7] x) => (uint8[7] y) <float s = {0.25}, uint8 z = {3}>",
        "y = QuantizeLinear(x, s, z)",
        {},
    ),
    "products_of_which_the_first_columns_or_none_are_wanted": (
        "(float[2, 3] x) => (float[2, 2] y, float[2, 0] z) <float[3, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}>",
        """o = Constant<value_ints = [0]>() i = Constant<value_ints = [1]>() t = Constant<value_ints = [2]>()
        p = MatMul(x, w) y = Slice(p, o, t, i) q = MatMul(x, w) z = Slice(q, o, o, i)""",
        {},
    ),
    "convolutions_without_images_channels_or_pixels": (
        """(float[0, 8, 2, 1] x, float[2, 0, 4, 4] u, float[1, 8, 1, 0] v)
        => (float[0, 4, 4, 3] y, float[2, 3, 4, 4] z, float[1, 4, 1, 0] p, float[0, 8, 2, 1] r)
        <float[4, 2, 1, 1] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[3, 0, 1, 1] e = {}>""",
        """y = Conv<group = 4, pads = [1, 1, 1, 1]>(x, w) z = Conv(u, e) p = Conv<group = 4>(v, w)
        d = Constant<value_ints = [8, 1, 1, 1]>() q = Reshape(w, d) r = Conv<group = 8>(x, q)""",
        {},
    ),
    "a_fold_whose_result_is_spread_again": (
        "(float[1, 2] x, float[3, 1, 9] u) => (float[1, 2, 1] y, float[3, 9, 4] v)",
        """a = Constant<value_ints = [1]>() s = Constant<value_ints = [1, 2, 1]>() p = ReduceProd(x, a) y = Expand(p, s)
        b = Constant<value_ints = [-1]>() t = Constant<value_ints = [3, 9, 4]>() q = ReduceMax(u, b)
        v = Expand(q, t)""",
        {},
    ),
    "a_window_along_whose_first_axis_the_vectors_lie": (
        "(float[2, 3, 1, 1] x) => (float[2, 3, 1, 2] y)",
        "y = MaxPool<kernel_shape = [3, 2], pads = [1, 1, 1, 1], strides = [2, 1]>(x)",
        {},
    ),
    "a_softmax_over_copies_of_one_number": (
        "(float[2, 1, 1] x) => (float[2, 1, 3] y) <float[3] s = {1, 1, 3}>",
        'r = Resize(x, "", s) y = Softmax<axis = 0>(r)',
        {},
    ),
    "rows_of_tables_where_a_half_of_the_lanes_reads_them": (
        """(float[1, 2, 3, 8] x) => (float[1, 2, 3, 8] y)
        <float[3, 4] c = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, int64[1, 3] p = {0, 2, 1}>""",
        "s = Neg(c) y = RotaryEmbedding(x, c, s, p)",
        {},
    ),
    "scales_of_blocks": (
        "(float[4, 2] x) => (float[4, 2] y, float[4, 2] z) <float[2, 2] s = {1, 2, 4, 8}>",
        """q = QuantizeLinear<axis = 0, block_size = 2, output_dtype = 3>(x, s)
        y = DequantizeLinear<axis = 0, block_size = 2>(q, s) n = Neg(x)
        r = QuantizeLinear<axis = 0, block_size = 2, output_dtype = 3>(n, s)
        z = DequantizeLinear<axis = 0, block_size = 2>(r, s)""",
        {},
    ),
    "a_constant_multiplied_by_and_compared_with": (
        """(float[2, 2] x) => (float[2, 2] y, float[1, 3] z)
        <float[2, 2] w = {1, 2, 3, 4}, float[3, 3] u = {1, 2, 3, 4, 5, 6, 7, 8, 9}>""",
        """a = MatMul(x, w) y = Max(a, w) s = ReduceMax<keepdims = 1>(x) t = Concat<axis = 1>(s, s, s) b = MatMul(t, u)
        z = MatMul(b, u)""",
        {},
    ),
    "a_convolution_of_a_height_known_from_its_result": (
        "(float[1, 3, n, 7] x) => (float[1, 3, 1, 4, 7] y) <float[3, 3, 1, 1] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}>",
        "t = Constant<value_ints = [1, 3, 1, 4, 7]>() c = Conv(x, w) y = Reshape(c, t)",
        {"n": 4},
    ),
    "a_product_with_a_mean_that_is_summed": (
        "(float[1, 4, 3, 5] x) => (float[1] y) <float[3, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3}>",
        """o = Constant<value_ints = [1]>() m = GlobalAveragePool(x) f = Flatten(m) g = Gemm<transB = 1>(f, w)
        y = ReduceSum<keepdims = 0>(g, o)""",
        {},
    ),
    "one_constant_in_two_products": (
        "(float[1, 2] x) => (float[1, 2] y) <float[3, 2] w = {-2, 0, 0, 2, -2, -1}>",
        "a = Gemm<transB = 1>(x, w) y = MatMul(a, w)",
        {},
    ),
    "an_image_of_one_column_times_a_row": (
        """(float[2, 2, 1, 1] x) => (float[2, 2, 1, 2] y)
        <float[2, 2, 2, 1] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[1, 2] r = {2, -2}>""",
        "c = Conv<pads = [1, 0, 0, 0]>(x, w) y = MatMul(c, r)",
        {},
    ),
    "attention_over_keys_whose_number_is_a_symbol_until_they_are_reshaped": (
        "(float[3, 1, 4, 16] q, float[3, n, 16] k, float[3, 1, 5, 16] v) => (float[3, 1, 4, 16] y)",
        """t = Constant<value_ints = [3, 5, 1, 16]>() k1 = Reshape(k, t) k2 = Transpose<perm = [0, 2, 3, 1]>(k1)
        s = MatMul(q, k2) p = Softmax(s) y = MatMul(p, v)""",
        {"n": 5},
    ),
    "results_along_one_of_two_folded_axes_of_which_the_other_is_empty": (
        "(float[0,2,1,1] x, float[n,m,5] z, float[n,1,1] b, float[2] c) => (float[1,1,1,2] y, float[n,1,1] w)",
        """a = Constant<value_ints = [0, -3]>() s = ReduceSumSquare<keepdims = 1>(x, a) y = Mul(s, c)
        r = ReduceSum<keepdims = 1>(z) w = Mul(r, b)""",
        {"n": 3, "m": 0},
    ),
    "one_element_of_two_that_are_joined_where_data_say": (
        "(float[16] x, float[16] y, int64 i, int64[3] k) => (float a, float[3] b)",
        """s = Concat<axis = 0>(x, y) a = Gather<axis = 0>(s, i)
        z = Concat<axis = 0>(y, x) b = Gather<axis = 0>(z, k)""",
        {},
    ),
}


@pytest.fixture(scope="module", autouse=True)
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Kernels built with -O1, in a cache of their own."""
    folder = tmp_path_factory.mktemp("found")
    with fast_compiler(folder, "-O1"):
        yield folder / "cache"


def random_inputs(exe: fusible.Executable, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Arrays of small whole numbers, which every type of element holds."""
    random, feeds = np.random.default_rng(0), {}
    for spec in exe.inputs:
        assert spec.shape is not None
        shape = [d if isinstance(d, int) else sizes[d] for d in spec.shape]
        feeds[spec.name] = np.asarray(random.integers(0, 5, shape)).astype(spec.dtype)
    return feeds


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_that_went_wrong(name: str, compiler: Path) -> None:
    signature, nodes, sizes = GRAPHS[name]
    model = onnx.parser.parse_model(f"{HEADER}g {signature} {{ {nodes} }}")
    reference = fusible.compile(model, target="numpy")
    feeds = random_inputs(reference, sizes)
    for exactness in (fusible.Exactness.EXACT, fusible.Exactness.REASSOCIATING):
        options = fusible.Options(exactness=exactness, threads=2, cache_dir=compiler)
        session = fusible.compile(model, target="cpu", options=options).session()
        session._poison = True
        assert_outputs_close(session.run(feeds), reference.run(feeds))


@pytest.mark.parametrize("shape", ["", "[1]", "[2, 1]"])
@pytest.mark.parametrize("index", [32, -33])
def test_no_index_outside_of_all_that_is_joined_passes_unseen(index: int, shape: str, compiler: Path) -> None:
    signature = f"(float[16] x, float[16] y, int64{shape} i) => (float{shape} a)"
    nodes = "s = Concat<axis = 0>(x, y) p = Relu(s) a = Gather<axis = 0>(p, i)"
    model = onnx.parser.parse_model(f"{HEADER}g {signature} {{ {nodes} }}")
    exe = fusible.compile(model, target="cpu", options=fusible.Options(cache_dir=compiler))
    feeds = random_inputs(exe, {})
    exe.run(feeds | {"i": np.full_like(feeds["i"], -32)})
    with pytest.raises(fusible.ExecutionError, match="out of range"):
        exe.run(feeds | {"i": np.full_like(feeds["i"], index)})
