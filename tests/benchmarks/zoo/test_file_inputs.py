"""A user's own file: random inputs that fit its signature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import pytest
from onnx import TensorProto

from fusible.benchmarks.zoo.catalog import obtain_file
from fusible.errors import InvalidModel, UsageError


def model_file(folder: Path, *inputs: onnx.ValueInfoProto, defaults: tuple[str, ...] = ()) -> Path:
    """A file with these inputs, of which some have a default; what it computes is not looked at."""
    node = onnx.helper.make_node("Identity", [inputs[0].name], ["y"])
    result = onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = [onnx.helper.make_tensor(name, TensorProto.FLOAT, [1], [1.0]) for name in defaults]
    path = folder / "net.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", inputs, [result], weights)), path)
    return path


tensor = onnx.helper.make_tensor_value_info


def test_inputs_fit_the_signature(tmp_path):
    path = model_file(
        tmp_path,
        tensor("x", TensorProto.FLOAT, ["n", 3, None]),
        tensor("half", TensorProto.FLOAT16, [2, "n"]),
        tensor("ids", TensorProto.INT64, ["n", "t"]),
        tensor("attention_mask", TensorProto.INT64, ["n", "t"]),
        tensor("w", TensorProto.FLOAT, [1]),
        defaults=("w",),
    )
    found = obtain_file(path, {"n": 4, "t": 50})
    assert (found.name, found.variant, found.path) == ("net", "file,n=4,t=50", path)
    kinds = {key: (array.dtype.name, array.shape) for key, array in found.inputs.items()}
    assert kinds == {
        "x": ("float32", (4, 3, 1)),
        "half": ("float16", (2, 4)),
        "ids": ("int64", (4, 50)),
        "attention_mask": ("int64", (4, 50)),
    }
    assert found.inputs["x"].std() > 0.3
    assert set(found.inputs["ids"].flatten()) == {0, 1}
    assert (found.inputs["attention_mask"] == 1).all()


def test_symbols_are_one_by_default(tmp_path):
    path = model_file(tmp_path, tensor("x", TensorProto.BFLOAT16, ["n", -1, 5]))
    found = obtain_file(path)
    assert found.inputs["x"].shape == (1, 1, 5) and found.inputs["x"].dtype.name == "bfloat16"
    assert found.variant == "file"


def test_the_seed_decides(tmp_path):
    path = model_file(tmp_path, tensor("x", TensorProto.FLOAT, [9]))
    same, other = obtain_file(path, {}, 0), obtain_file(path, seed=1)
    assert np.array_equal(obtain_file(path).inputs["x"], same.inputs["x"])
    assert not np.array_equal(same.inputs["x"], other.inputs["x"])


def test_strings_booleans_and_complex_numbers(tmp_path):
    path = model_file(
        tmp_path,
        tensor("s", TensorProto.STRING, [2]),
        tensor("b", TensorProto.BOOL, [64]),
        tensor("c", TensorProto.COMPLEX64, [3]),
    )
    inputs = obtain_file(path).inputs
    assert list(inputs["s"]) == ["text", "text"]
    assert inputs["b"].dtype == bool and inputs["b"].any() and not inputs["b"].all()
    assert inputs["c"].dtype == np.complex64 and inputs["c"].imag.all()


def test_an_unknown_symbol_is_told_the_symbols(tmp_path):
    path = model_file(tmp_path, tensor("x", TensorProto.FLOAT, ["rows", "columns"]))
    with pytest.raises(UsageError, match=r"net.onnx has no symbol 'n'; it has columns, rows$"):
        obtain_file(path, {"n": 2})
    with pytest.raises(UsageError, match=r"net.onnx: symbol 'rows' cannot be -1$"):
        obtain_file(path, {"rows": -1})


@pytest.mark.parametrize(
    "value", [tensor("x", TensorProto.FLOAT, None), onnx.helper.make_tensor_sequence_value_info("x", 1, [2])]
)
def test_an_input_without_a_shape_is_refused(tmp_path, value):
    with pytest.raises(UsageError, match=r"net.onnx: input 'x' is no tensor of known rank"):
        obtain_file(model_file(tmp_path, value))


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "no.onnx").write_text("no model")
    for name in ("no.onnx", "none.onnx"):
        with pytest.raises(InvalidModel, match=name):
            obtain_file(tmp_path / name)
