"""Artifacts: round trip, determinism, damage, and a process that has neither onnx nor the compiler's needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

import fusible
from fusible.runtime.plan import Plan
from tests.runtime import models

_FRESH = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("onnx", "onnx_ir", "sympy", "networkx", "typer", "rich", "google", "onnxruntime"):
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
import numpy as np, fusible
exe = fusible.load(sys.argv[1])
with np.load(sys.argv[2]) as given:
    np.savez(sys.argv[3], **exe.run(dict(given)))
assert "fusible.compiler" not in sys.modules
"""


@pytest.mark.parametrize("name", ["conv_relu_add", "branches", "nonzero_chain", "cache_step"])
def test_round_trip_in_a_bare_process(name: str, tmp_path: Path) -> None:
    exe = fusible.compile(getattr(models, name)(), target="numpy")
    rng = np.random.default_rng(1)
    inputs = {
        s.name: np.asarray(rng.integers(0, 2, [d if isinstance(d, int) else 3 for d in s.shape or ()])).astype(s.dtype)
        if s.dtype != np.float32
        else rng.standard_normal([d if isinstance(d, int) else 3 for d in s.shape or ()]).astype(np.float32)
        for s in exe.inputs
    }
    exe.save(tmp_path / "m.fusible")
    np.savez(tmp_path / "in.npz", **inputs)
    command = [sys.executable, "-c", _FRESH, *(str(tmp_path / f) for f in ("m.fusible", "in.npz", "out.npz"))]
    subprocess.run(command, check=True, capture_output=True)
    with np.load(tmp_path / "out.npz") as got:
        for key, wanted in exe.run(inputs).items():
            assert np.array_equal(got[key], wanted), key


def test_two_compilations_give_the_same_bytes(tmp_path: Path) -> None:
    for number in range(2):
        fusible.compile(models.branches(), target="numpy").save(tmp_path / f"{number}.fusible")
    assert (tmp_path / "0.fusible").read_bytes() == (tmp_path / "1.fusible").read_bytes()


def test_the_plan_survives_json() -> None:
    plan = fusible.compile(models.branches(), target="numpy").plan
    assert Plan.from_json(plan.to_json()) == plan


def test_damaged_artifacts(tmp_path: Path) -> None:
    path = tmp_path / "m.fusible"
    fusible.compile(models.conv_relu_add(), target="numpy").save(path)
    data = path.read_bytes()
    for length in (0, 4, 15, 40, len(data) // 2, len(data) - 65):
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(fusible.ArtifactError):
            fusible.load(tmp_path / "cut")
    (tmp_path / "cut").write_bytes(b"NOTFUSIB" + data[8:])
    with pytest.raises(fusible.ArtifactError, match="no Fusible artifact"):
        fusible.load(tmp_path / "cut")
    (tmp_path / "cut").write_bytes(data[:8] + b"\x63" + data[9:])
    with pytest.raises(fusible.ArtifactError, match="format 99"):
        fusible.load(tmp_path / "cut")
    (tmp_path / "cut").write_bytes(data[:8] + b"\x05" + data[9:])  # kernels had no table of sizes
    with pytest.raises(fusible.ArtifactError, match="format 5, this release reads 9: compile the model again"):
        fusible.load(tmp_path / "cut")
    flipped = bytearray(data)
    flipped[-200] ^= 1
    (tmp_path / "cut").write_bytes(flipped)
    with pytest.raises(fusible.ArtifactError, match="hash"):
        fusible.load(tmp_path / "cut", check=True)
    with pytest.raises(fusible.ArtifactError, match="cannot be read"):
        fusible.load(tmp_path / "none")


def test_a_header_of_which_one_bit_differs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.fusible"
    fusible.compile(models.conv_relu_add(), target="numpy").save(path)
    data = path.read_bytes()
    end = data.index(b'"target":"numpy"')
    for place in range(12, end, 211):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(fusible.ArtifactError, match=r"the hash of its header differs|is truncated"):
            fusible.load(path)


_LIGHT = """
import sys, fusible
before = set(sys.modules)
fusible.load(sys.argv[1])
assert set(sys.modules) == before, set(sys.modules) - before
for heavy in ("subprocess", "tempfile", "shutil", "concurrent.futures", "html", "ml_dtypes", "numpy.typing"):
    assert heavy not in sys.modules, heavy
"""


def test_loading_native_code_imports_nothing_and_importing_only_what_it_needs(tmp_path: Path) -> None:
    fusible.compile(models.conv_relu_add(), target="cpu").save(tmp_path / "m.fusible")
    fusible.load(tmp_path / "m.fusible")  # now the cache has the library
    subprocess.run([sys.executable, "-c", _LIGHT, str(tmp_path / "m.fusible")], check=True)


def test_a_damaged_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.fusible"
    exe = fusible.compile(models.conv_relu_add(), target="cpu")
    exe.save(path)
    assert exe.program is not None
    data, library = path.read_bytes(), exe.program.path.read_bytes()
    path.write_bytes(data.replace(library, library[:-1] + bytes([library[-1] ^ 1])))
    monkeypatch.setenv("FUSIBLE_CACHE_DIR", str(tmp_path / "empty"))
    with pytest.raises(fusible.ArtifactError, match="native library in the artifact is damaged"):
        fusible.load(path)


def test_importing_fusible_is_light() -> None:
    code = "import sys, fusible, fusible.runtime.artifact; assert not {'onnx', 'typer', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_constants_of_one_memory_are_stored_once(tmp_path: Path) -> None:
    """Tied embeddings: a table that a product reads transposed."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((3000, 128)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "words"], ["x"]),
        helper.make_node("Transpose", ["table"], ["columns"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "columns"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("words", TensorProto.INT64, [64])]
    graph = helper.make_graph(nodes, "g", inputs, [ValueInfoProto(name="y")], [numpy_helper.from_array(table, "table")])
    exe = fusible.compile(helper.make_model(graph, ir_version=10), target="triton-cpu")
    for n in range(2):
        exe.save(tmp_path / f"{n}.fusible")
        exe = fusible.load(tmp_path / f"{n}.fusible", check=True)
    assert (tmp_path / "1.fusible").read_bytes() == (tmp_path / "0.fusible").read_bytes()
    assert (tmp_path / "0.fusible").stat().st_size < 1.5 * table.nbytes
    words = rng.integers(0, 3000, 64)
    assert np.abs(exe.run({"words": words})["y"] - table[words].astype(np.float64) @ table.T).max() < 1e-4
