"""Raw data cut out of a message: the same model, the data where they were; what is unusual is left to the parser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

import fusible
from fusible.compiler.frontend import raw_data
from fusible.compiler.frontend.convert import import_model
from fusible.compiler.frontend.load import load_model
from fusible.compiler.frontend.raw_data import cut_out
from fusible.compiler.ir.constant import Constant, Unread
from fusible.compiler.ir.graph import Graph
from fusible.compiler.options import Limits
from fusible.errors import InvalidModel

LARGE = 700  # rows and columns: 1.96 MB


def _model(*more: TensorProto) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(rng.standard_normal((LARGE, LARGE)).astype(np.float32), "w"),
        numpy_helper.from_array(np.arange(5, dtype=np.int64), "small"),
        helper.make_tensor("typed", TensorProto.FLOAT, [3000], rng.standard_normal(3000).astype(np.float32)),
        numpy_helper.from_array(rng.integers(0, 2, (9, 1000)).astype(bool), "flags"),
        *more,
    ]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], doc_string="a node")]
    inputs, outputs = ([helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, LARGE])] for n in "xy")
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors, doc_string="of a graph")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.metadata_props.add(key="k", value="v")
    return model


def test_the_rest_is_the_same_message() -> None:
    model = _model()
    cut = cut_out(memoryview(model.SerializeToString()))
    assert cut is not None
    assert list(cut.data) == [0, 3]
    rest = onnx.ModelProto.FromString(cut.message)
    for number, data in cut.data.items():
        assert not rest.graph.initializer[number].raw_data
        rest.graph.initializer[number].raw_data = bytes(data)
    assert rest == model


@pytest.mark.parametrize("mapped", [False, True])
def test_imported(mapped: bool, tmp_path: Path) -> None:
    model = _model()
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    loaded = load_model(path if mapped else path.read_bytes(), Limits())
    assert set(loaded.raw_data) == {0, 3}
    graph = fusible.import_graph(path if mapped else path.read_bytes())
    path.write_bytes(b"")  # nothing needs it any more
    (w,) = [v for node in graph for v in node.inputs if v is not None and v.constant is not None]
    assert w.constant is not None
    array = w.constant.array
    assert array.flags.aligned
    assert np.array_equal(array, numpy_helper.to_array(model.graph.initializer[0]))


def _weight(graph: Graph) -> Constant:
    (value,) = [v for node in graph for v in node.inputs if v is not None and v.constant is not None]
    assert value.constant is not None
    return value.constant


def test_weights_are_read_when_they_are_wanted(tmp_path: Path) -> None:
    model, path = _model(), tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    weight, again = (_weight(import_model(load_model(path, Limits()))) for _ in range(2))
    assert isinstance(weight.source, Unread)
    expected = numpy_helper.to_array(model.graph.initializer[0])
    assert np.array_equal(weight.content, expected) and isinstance(weight.source, Unread)
    assert weight.digest == Constant(expected).digest
    assert np.array_equal(weight.array, expected) and not isinstance(weight.source, Unread)
    for damage in (lambda: path.write_bytes(path.read_bytes()[:-5000]), lambda: path.write_bytes(b"")):
        damage()
        with pytest.raises(InvalidModel, match=r"m\.onnx' was changed while it was compiled; compile it again"):
            _ = again.array
    assert np.array_equal(weight.array, expected)


@pytest.mark.parametrize("target", ["numpy", "cpu", "triton-cpu"])
def test_the_file_may_change_once_the_model_is_compiled(target: str, tmp_path: Path) -> None:
    model, path = _model(), tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    exe = fusible.compile(path, target=target)
    path.write_bytes(b"")
    inputs = {i.name: np.ones([int(d) for d in i.shape or ()], i.dtype) for i in exe.inputs}
    expected = fusible.compile(model.SerializeToString(), target="numpy").run(inputs)
    for name, value in exe.run(inputs).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4)


def test_sizes_are_checked() -> None:
    model = _model()
    model.graph.initializer[0].dims[0] += 1
    with pytest.raises(InvalidModel, match=f"the shape needs {4 * LARGE * (LARGE + 1)} bytes of raw_data"):
        import_model(load_model(model.SerializeToString(), Limits()))


def test_packed_types() -> None:
    four_bits = helper.make_tensor("n", TensorProto.INT4, [2, 10_000], bytes(range(100)) * 100, raw=True)
    model = _model(four_bits)
    model.graph.node.add(op_type="Cast", input=["n"], output=["z"]).attribute.append(helper.make_attribute("to", 1))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 10_000]))
    (value,) = [
        v
        for node in import_model(load_model(model.SerializeToString(), Limits()))
        for v in node.inputs
        if v is not None and v.name == "n"
    ]
    assert value.constant is not None
    assert np.array_equal(value.constant.array, numpy_helper.to_array(four_bits))


def test_other_data_beside_it() -> None:
    odd = helper.make_tensor("odd", TensorProto.FLOAT, [5000], bytes(20_000), raw=True)
    odd.float_data.append(1.0)
    model = _model(odd)
    cut = cut_out(memoryview(model.SerializeToString()))
    assert cut is not None
    assert 4 not in cut.data
    with pytest.raises(InvalidModel, match="has raw_data and float_data"):
        import_model(load_model(model.SerializeToString(), Limits()))


def test_what_is_unusual(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _model().SerializeToString()
    assert cut_out(memoryview(b"")) is None
    assert cut_out(memoryview(whole + whole)) is None  # a second graph is merged with the first
    assert cut_out(memoryview(whole + b"\x0b\x0c")) is None  # a group
    for length in (*range(1, 200), *range(len(whole) - 200, len(whole))):
        assert cut_out(memoryview(whole[:length])) is None or length > len(whole) - 100
    monkeypatch.setattr(raw_data, "_MOST_FIELDS", 20)  # more fields than are worth it
    assert cut_out(memoryview(whole)) is None


@pytest.fixture(scope="module")
def small() -> bytes:
    """A model whose first tensor is just large enough, so that a byte changed at random is often one that matters."""
    tensor = numpy_helper.from_array(np.ones(1024, np.float32), "w")
    inputs, outputs = ([helper.make_tensor_value_info(n, TensorProto.FLOAT, [1024])] for n in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", inputs, outputs, [tensor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString()


@pytest.mark.parametrize("seed", range(60))
def test_damage_is_judged_as_without_the_cut(seed: int, small: bytes) -> None:
    """One byte changed anywhere but in the data: both ways give the same message, or both fail."""
    rng = np.random.default_rng(seed)
    raw = small.index(np.ones(1024, np.float32).tobytes())
    data = bytearray(small)
    places = [*range(raw), *range(raw + 4096, len(small))]
    data[places[int(rng.integers(len(places)))]] = int(rng.integers(256))
    cut = cut_out(memoryview(bytes(data)))
    if cut is None:
        return
    try:
        plain = onnx.ModelProto.FromString(bytes(data))
    except DecodeError:
        with pytest.raises(DecodeError):
            onnx.ModelProto.FromString(cut.message)
        return
    rest = onnx.ModelProto.FromString(cut.message)
    for number, piece in cut.data.items():
        rest.graph.initializer[number].raw_data = bytes(piece)
    assert rest.SerializeToString(deterministic=True) == plain.SerializeToString(deterministic=True)
