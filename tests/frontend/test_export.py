"""import -> export_onnx -> ONNX Runtime equals ONNX Runtime on the original."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.backend.test.loader import load_model_tests

from fusible.compiler.frontend.convert import import_model
from fusible.compiler.frontend.export import export_onnx
from fusible.compiler.frontend.load import load_model
from fusible.compiler.ir.broadcast import bcast
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.ops import OPS
from fusible.compiler.ir.symbols import Symbol, SymInt, floordiv, maximum, minimum, modulo
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.options import Limits
from fusible.errors import UnsupportedOp, UsageError
from tests import oracle
from tests.conformance.cases import load_cases
from tests.models import light

# The string normaliser needs locales that a machine may lack.
SIMPLE = [case for case in load_model_tests(kind="simple") if case.model_dir and "strnorm" not in case.name]


def _node_cases(names: str) -> list[Any]:
    wanted = re.compile(rf"test_(?:{names})\Z")
    return [case for case in load_cases("node") if wanted.match(case.name)]


def _import(model: Any) -> Graph:
    return import_model(load_model(model, Limits()))


def _equal(got: Any, wanted: Any) -> None:
    if isinstance(wanted, list):
        assert isinstance(got, list) and len(got) == len(wanted)
        for a, b in zip(got, wanted, strict=True):
            _equal(a, b)
        return
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    if wanted.dtype.kind in "fc":
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(got, wanted)


def _round_trip(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> onnx.ModelProto:
    exported = export_onnx(_import(model))
    wanted, got = oracle.run(model, inputs), oracle.run(exported, inputs)
    assert list(got) == list(wanted)
    for name in wanted:
        _equal(got[name], wanted[name])
    return exported


TEXTS = {
    "captures": """
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[N, 3] x, bool c) => (float[N, 3] y, float[N, 3] z) {
   t = Relu(x)
   y = If(c) <then_branch = g1 () => (float[N, 3] a) { a = Add(t, x) },
              else_branch = g2 () => (float[N, 3] b) { b = Identity(t) }>
   z = Add(y, t)
}""",
    "loop": """
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[N] x, int64 trips) => (float[N] y, float[T, N] all) {
   y, all = Loop(trips, , x) <body = g (int64 i, bool go, float[N] s) => (bool go_on, float[N] next, float[N] out) {
       go_on = Identity(go)
       step = Cast<to = 1>(i)
       scaled = Mul(x, step)
       next = Add(s, scaled)
       out = Neg(next)
   }>
}""",
    "symbolic reshape": """
<ir_version: 10, opset_import: ["" : 18]>
agraph (float[N, 4, M] x) => (float[K, L] y, int64[3] s) {
   s = Shape(x)
   zero = Constant<value = int64[1] {0}>()
   n = Gather(s, zero)
   rest = Constant<value = int64[1] {-1}>()
   to = Concat<axis = 0>(n, rest)
   y = Reshape(x, to)
}""",
    "outputs that are inputs, constants and twice the same": """
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[2] x) => (float[2] a, float[2] b, float[2] c, float[2] x2)
<float[2] w = {1.0, 2.0}>
{
   a = Add(x, w)
   b = Identity(a)
   c = Identity(w)
   x2 = Identity(x)
}""",
    "result-defined": """
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[N] x) => (float[K] y, int64[R, K] where) {
   where = NonZero(x)
   flat = Constant<value = int64[1] {-1}>()
   index = Reshape(where, flat)
   picked = Gather(x, index)
   size = Shape(picked)
   one = Constant<value = float {1.0}>()
   ones = Expand(one, size)
   y = Add(picked, ones)
}""",
}


@pytest.mark.parametrize("name", TEXTS)
def test_models(name: str) -> None:
    model = parser.parse_model(TEXTS[name])
    generator = np.random.default_rng(0)
    shapes = {"N": 3, "M": 5, "T": 2}
    inputs: dict[str, np.ndarray] = {}
    for info in model.graph.input:
        dims = [d.dim_value or shapes[d.dim_param] for d in info.type.tensor_type.shape.dim]
        match info.type.tensor_type.elem_type:
            case TensorProto.BOOL:
                inputs[info.name] = np.asarray(True)
            case TensorProto.INT64:
                inputs[info.name] = np.asarray(2, np.int64)
            case _:
                inputs[info.name] = generator.standard_normal(dims).astype(np.float32)
    exported = _round_trip(model, inputs)
    onnx.checker.check_model(exported)
    # Once more: what was exported is a model like any other.
    _round_trip(exported, inputs)


def _read(path: Path, type_: onnx.TypeProto) -> Any:
    if type_.WhichOneof("value") == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(path.read_bytes()))
    array = numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))
    if array.dtype == object:
        texts = [t.decode() if isinstance(t, bytes) else t for t in array.reshape(-1)]
        return np.asarray(texts, dtype=object).reshape(array.shape)
    return array


@pytest.mark.parametrize("case", SIMPLE, ids=lambda case: case.name)
def test_simple_cases(case: Any) -> None:
    folder = Path(case.model_dir)
    model = onnx.load(folder / "model.onnx")
    if any(o.domain.startswith("ai.onnx.preview") for o in model.opset_import):
        pytest.xfail("ONNX Runtime does not run the training domain")
    data = folder / "test_data_set_0"
    files = [(data / f"input_{i}.pb", v) for i, v in enumerate(model.graph.input)]
    _round_trip(model, {v.name: _read(path, v.type) for path, v in files if path.exists()})


NODES = (
    "add|relu|basic_conv_with_padding|convtranspose|lstm_defaults|loop11|if|if_seq|scan9_sum|range_float_type_positive_delta"
    "|constant_pad|top_k|resize_upsample_sizes_nearest|reduce_sum_default_axes_keepdims_example|split_equal_parts_1d_opset18"
    "|sequence_insert_at_back|cumsum_1d|trilu_one_row|slice_neg_steps|nonzero_example|attention_4d|layer_normalization_2d_axis0"
    "|maxpool_with_argmax_2d_precomputed_pads|string_concat"
)


@pytest.mark.parametrize("case", _node_cases(NODES), ids=lambda case: case.name)
def test_node_cases(case: Any) -> None:
    given = case.feeds(case.data_sets[0][0])
    inputs = {name: v if isinstance(v, list) else np.asarray(v) for name, v in given.items()}
    _round_trip(case.model, inputs)


@pytest.mark.parametrize("name", ["shufflenet"])
def test_light_models(name: str) -> None:
    model, sets = light.light_model(name)
    _round_trip(model, sets[0])


def test_dimensions_are_computed() -> None:
    graph = Graph("g")
    n, m = graph.symbols.add(Symbol("N")), graph.symbols.add(Symbol("M"))
    graph.input(TensorType(DType.F32, (n, m)), "x")
    last = 2 * n - m * m * 3
    dims = (n * m + 7, floordiv(n - 9, 4), modulo(n - 9, 4), maximum(n, m), minimum(n, m), bcast(n, m), last)
    graph.set_outputs([graph.add("dims", values=dims, shape=(7, 1), dtype=DType.I32)], ["y"])
    for a, b in ((5, 1), (1, 5), (4, 4)):
        got = oracle.run(export_onnx(graph), {"x": np.zeros((a, b), np.float32)})["y"]
        wanted = [a * b + 7, (a - 9) // 4, (a - 9) % 4, max(a, b), min(a, b), max(a, b), 2 * a - 3 * b * b]
        assert got.dtype == np.int32 and got.tolist() == [[w] for w in wanted]


def test_the_opset_is_the_oldest_that_fits() -> None:
    graph = Graph("g")
    x = graph.input(TensorType(DType.F32, (2, 3)), "x")
    graph.set_outputs([graph.add("relu", x)], ["y"])
    assert export_onnx(graph).opset_import[0].version == 21
    scale = graph.constant(np.ones(3, np.float32))
    graph.set_outputs([graph.add("rms_normalization", x, scale)], ["y"])
    assert export_onnx(graph).opset_import[0].version == 23


def test_names_that_clash_are_made_unique() -> None:
    graph = Graph("g")
    x = graph.input(TensorType(DType.F32, (2,)), "x")
    y = graph.add("relu", x, name="x")
    for _ in range(3):
        y = graph.add("relu", y, name="y")
    graph.set_outputs([y], ["y"])
    model = export_onnx(graph)
    onnx.checker.check_model(model)
    assert oracle.run(model, {"x": np.asarray([-1, 2], np.float32)})["y"].tolist() == [0, 2]


def test_a_custom_op_keeps_its_domain() -> None:
    graph = Graph("g")
    x = graph.input(TensorType(DType.F32, (2,)), "x")
    op = OPS["relu"].__class__("my.domain::Twice", lambda ctx: ctx.type(0), OPS["relu"].definition, "activations:relu")
    graph.set_outputs([graph.add(op, x)], ["y"])
    model = export_onnx(graph)
    assert (model.graph.node[0].domain, model.graph.node[0].op_type) == ("my.domain", "Twice")
    assert {o.domain for o in model.opset_import} == {"", "my.domain"}


def test_refusals() -> None:
    graph = Graph("g")
    x = graph.input(TensorType(DType.F32, (2,)), "")
    graph.set_outputs([x], ["y"])
    with pytest.raises(UsageError, match="no name"):
        export_onnx(graph)
    graph = Graph("g")
    n = SymInt.of(Symbol("N"))
    graph.set_outputs([graph.add("dims", values=(n,), shape=(1,))], ["y"])
    with pytest.raises(UsageError, match="no value of the graph has the dimension N"):
        export_onnx(graph)


def test_unsupported_ops_say_why() -> None:
    node = helper.make_node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", keys_int64s=[1, 2], values_int64s=[3, 4])
    info = [helper.make_tensor_value_info(n, TensorProto.INT64, [3]) for n in "xy"]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 4)]
    model = helper.make_model(helper.make_graph([node], "g", info[:1], info[1:]), opset_imports=opsets)
    with pytest.raises(UnsupportedOp, match=r"label_encoder.*cannot be exported to ONNX"):
        export_onnx(_import(model))



@pytest.mark.parametrize("expected", [True, False])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_requirement_ends_the_run_elsewhere_too(shape: tuple[int, ...], expected: bool) -> None:
    graph = Graph("required")
    condition, x = graph.input(TensorType(DType.BOOL, shape), "c"), graph.input(TensorType(DType.F32, (3,)), "x")
    graph.add_node("require", [condition], {"expected": expected, "message": "never"})
    graph.set_outputs([graph.add("neg", x)], ["y"])
    session = oracle.session(export_onnx(graph))
    feeds = {"x": np.ones(3, np.float32)}
    assert np.array_equal(oracle.run(session, {"c": np.full(shape, expected), **feeds})["y"], -feeds["x"])
    with pytest.raises(Exception, match="Gather"):
        oracle.run(session, {"c": np.full(shape, not expected), **feeds})
