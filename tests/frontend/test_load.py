"""Untrusted model files: containment of external data, contradictory tensors, limits."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fusible.compiler.frontend.convert import import_model
from fusible.compiler.frontend.load import load_model, onnx_dtype, tensor_constant
from fusible.compiler.ir.constant import FileRange
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.types import DType
from fusible.compiler.options import Limits
from fusible.errors import InvalidModel, LimitExceeded, UsageError

DATA = np.arange(6, dtype=np.float32).reshape(2, 3)


def _model(tensor: TensorProto) -> onnx.ModelProto:
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", tensor.name], ["y"])], "g", info[:1], info[1:], [tensor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def _external(location: str, **entries: object) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _import(folder: Path, tensor: TensorProto) -> Graph:
    path = folder / "model.onnx"
    path.write_bytes(_model(tensor).SerializeToString())
    return import_model(load_model(path, Limits()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / "w.bin").write_bytes(b"head" * 4 + DATA.tobytes())
    (tmp_path / "secret.bin").write_bytes(DATA.tobytes() * 4)
    return inside


def test_external_data_are_mapped(folder: Path) -> None:
    graph = _import(folder, _external("w.bin", offset=16, length=24))
    constant = next(iter(graph)).inputs[1].constant  # type: ignore[union-attr]
    assert constant is not None and isinstance(constant.source, FileRange)
    np.testing.assert_array_equal(constant.array, DATA)
    with pytest.raises(ValueError, match="read-only"):
        constant.array[0, 0] = 1


def test_a_folder_below_is_inside(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "w.bin").write_bytes(DATA.tobytes())
    _import(folder, _external("deep/w.bin"))


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../secret.bin", "the path must be relative and stay in the model's folder"),
        ("deep/../../secret.bin", "the path must be relative and stay"),
        ("ABSOLUTE", "the path must be relative and stay"),
        ("symbolic", "a symbolic link leads out of the model's folder"),
        ("linked/secret.bin", "a symbolic link leads out of the model's folder"),
        ("hard", "it has several hard links"),
        ("null", "a symbolic link leads out"),
        ("pipe", "it is no regular file"),
        ("folder", "it is no regular file"),
        ("round", "cannot be read"),
        ("missing.bin", "cannot be read"),
        ("", "there is no file name"),
        ("a\0b", "there is no file name"),
    ],
)
def test_external_data_stay_in_the_folder(folder: Path, location: str, message: str) -> None:
    outside = folder.parent / "secret.bin"
    (folder / "symbolic").symlink_to(outside)
    (folder / "linked").symlink_to(folder.parent)
    os.link(outside, folder / "hard")
    (folder / "null").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "round").symlink_to("round")
    with pytest.raises(InvalidModel, match=message):
        _import(folder, _external(str(outside) if location == "ABSOLUTE" else location))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": 17, "length": 24}, "lie at bytes 17..41 of 'w.bin', which has 40"),
        ({"offset": 16, "length": 23}, "needs 24 bytes of external data, the file holds 23"),
        ({"offset": -16, "length": 24}, "lie at bytes -16"),
        ({"offset": 2**70}, "lie at bytes"),
        ({"offset": "ten"}, "is no number"),
    ],
)
def test_ranges_that_lie(folder: Path, entries: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        _import(folder, _external("w.bin", **entries))


def test_external_data_need_a_path() -> None:
    with pytest.raises(InvalidModel, match="need a model given by its path"):
        import_model(load_model(_model(_external("w.bin")).SerializeToString(), Limits()))


def _tensor(**fields: object) -> TensorProto:
    return TensorProto(**{"name": "w", "data_type": TensorProto.FLOAT, "dims": [2, 3], **fields})


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (_tensor(raw_data=DATA.tobytes(), float_data=[1] * 6), "has raw_data and float_data"),
        (_tensor(int32_data=[1], float_data=[1] * 6), "has both float_data and int32_data"),
        (_tensor(raw_data=DATA.tobytes()[:-1]), "needs 24 bytes of raw_data, the file holds 23"),
        (_tensor(float_data=[1] * 5), "needs 6 elements, the file holds 5"),
        (_tensor(float_data=[1] * 7), "needs 6 elements, the file holds 7"),
        (_tensor(), "needs 6 elements, the file holds 0"),
        (_tensor(dims=[-2, -3], float_data=[1] * 6), "negative dimension"),
        (_tensor(data_type=99, float_data=[1] * 6), "element type 99 is no ONNX data type"),
        (_tensor(data_type=TensorProto.STRING, raw_data=b"abcdef" * 8), "string tensor cannot use raw_data"),
    ],
)
def test_tensors_that_contradict_themselves(tensor: TensorProto, message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        tensor_constant(tensor, None, Limits(), "initialiser 'w'")


@pytest.mark.parametrize("dims", [[2**40, 2**40], [2**62, 2**62, 2**62], [10**10]])
def test_dims_that_ask_for_petabytes(dims: list[int]) -> None:
    with pytest.raises(LimitExceeded, match="tensor_bytes"):
        tensor_constant(_tensor(dims=dims), None, Limits(), "w")


def test_rank_limit() -> None:
    with pytest.raises(LimitExceeded, match="rank"):
        tensor_constant(_tensor(dims=[1] * 65, float_data=[1]), None, Limits(), "w")


@pytest.mark.parametrize("code", sorted({onnx_dtype(d) for d in DType}))
def test_every_element_type_decodes(code: int) -> None:
    tensor = helper.make_tensor("w", code, [3], [b"a", b"b", b"\xff"] if code == TensorProto.STRING else [1, 0, 1])
    constant = tensor_constant(tensor, None, Limits(), "w")
    if code != TensorProto.STRING:
        np.testing.assert_array_equal(constant.array, numpy_helper.to_array(tensor))
    assert constant.shape == (3,)


@pytest.mark.parametrize("data", [b"", b"\0", b"no model", b"\x08\x0a"])
def test_files_that_are_no_model(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(InvalidModel):
        load_model(tmp_path / "m.onnx", Limits())
    with pytest.raises(InvalidModel):
        load_model(data, Limits())


def test_truncated_model_at_every_length() -> None:
    whole = _model(numpy_helper.from_array(DATA, "w")).SerializeToString()
    for length in range(0, len(whole), 3):
        try:
            import_model(load_model(whole[:length], Limits()))
        except InvalidModel:
            continue


def test_unreadable_paths_and_sizes(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="cannot be read"):
        load_model(tmp_path / "none.onnx", Limits())
    with pytest.raises(InvalidModel, match="cannot be read"):
        load_model(tmp_path, Limits())
    (tmp_path / "m.onnx").write_bytes(b"x" * 100)
    with pytest.raises(LimitExceeded, match="model_bytes"):
        load_model(tmp_path / "m.onnx", Limits(model_bytes=99))
    with pytest.raises(UsageError, match="a model is a path, bytes"):
        load_model(7, Limits())  # type: ignore[arg-type]
