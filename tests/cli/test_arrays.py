"""Random inputs and `.npz` files: every dtype goes through a file and comes back."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from fusible.cli.arrays import read_inputs, write_outputs
from fusible.runtime.signature import DTYPES, TensorSpec


@pytest.mark.parametrize("name", [name for name in DTYPES if name])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 1, 3)])
def test_every_dtype_survives(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    dtype = DTYPES[name]
    array = np.random.default_rng(0).integers(0, 2, shape)
    stored = array.astype(str).astype(object) if name == "string" else array.astype(dtype)
    write_outputs(tmp_path / "x.npz", {"x": stored})
    found = read_inputs(tmp_path / "x.npz", [TensorSpec("x", dtype, shape)])["x"]
    assert (found.dtype, found.shape) == (dtype, shape)
    assert found.tolist() == stored.tolist() if name == "string" else found.tobytes() == stored.tobytes()


@pytest.mark.parametrize("name", ["file", "a/b:0", "allow_pickle", "x.npy", "日本"])
def test_awkward_names(tmp_path: Path, name: str) -> None:
    write_outputs(tmp_path / "x.npz", {name: np.arange(3)})
    assert list(read_inputs(tmp_path / "x.npz", [])) == [name]


def test_sequences_and_optionals(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    sequence = [np.arange(2), np.zeros((0, 3))]
    write_outputs(path, {"s": sequence, "empty": [], "o": None, "t": np.ones(2, ml_dtypes.bfloat16)})
    kinds = {"s": "sequence", "empty": "sequence", "o": "optional"}
    found = read_inputs(path, [TensorSpec(name, np.dtype(object), None, kind) for name, kind in kinds.items()])
    assert [element.shape for element in found["s"]] == [(2,), (0, 3)]
    assert (found["empty"], found["o"]) == ([], None)


def test_files_are_deterministic(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_outputs(tmp_path / name, {"x": np.arange(3), "y": np.ones(2)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
