"""`fusible compile` and `fusible run`: artifacts, inputs, outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fusible
from fusible.cli.arrays import write_outputs
from tests.cli.conftest import Command
from tests.oracle import run as oracle

PASS_FILE = '''
"""A pass that counts its runs in a file."""

from pathlib import Path

from fusible.passes.base import Pass


class Counted(Pass):
    name = "counted"

    def run(self, graph, context):
        with Path(__file__).with_suffix(".log").open("a") as file:
            file.write("ran\\n")
        return 0


def register(pipeline):
    return pipeline.insert(Counted(), after="canonical")
'''


def test_compile_then_run(command: Command, model: Path, tmp_path: Path) -> None:
    artifact, outputs, inputs = tmp_path / "a.fusible", tmp_path / "y.npz", tmp_path / "x.npz"
    assert command("compile", model, "-o", artifact).code == 0
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 7)).astype(np.float32)
    write_outputs(inputs, {"x": x})
    result = command("run", artifact, "--inputs", inputs, "--outputs", outputs)
    assert result.code == 0
    assert "2x4x5x7" in result.out
    with np.load(outputs) as archive:
        np.testing.assert_allclose(archive["y"], oracle(str(model), {"x": x})["y"], rtol=1e-4, atol=1e-5)


def test_the_model_and_its_artifact_give_the_same(command: Command, model: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "a.fusible"
    command("compile", model, "-o", artifact)
    first, second = command("run", model, "--json").json, command("run", artifact, "--json").json
    assert first["outputs"] == second["outputs"]
    assert first["outputs"][0]["shape"] == [1, 4, 5, 7]


def test_the_precision_is_chosen_when_compiling(command: Command, model: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "a.fusible"
    result = command("compile", model, "-o", artifact, "--target", "cpu", "--precision", "bf16")
    assert result.code == 0 and "note: precision bf16: 1 of 1 contractions multiply in bf16" in result.out
    assert command("run", model, "--target", "cpu", "--precision", "bf16").code == 0
    refused = command("run", artifact, "--precision", "bf16")
    assert refused.code == 2 and "the artifact has its precision already" in refused.err


def test_compiling_twice_gives_the_same_bytes(command: Command, model: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        command("compile", model, "-o", tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_compile_describes_the_artifact(command: Command, model: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "a.fusible"
    facts = command("compile", model, "-o", artifact, "--json").json
    assert facts["artifact"] == str(artifact)
    assert facts["bytes"] == artifact.stat().st_size
    assert facts["target"] == "cpu"
    assert facts["inputs"] == ["x: float32[batch, 3, 5, 7]"]
    assert set(facts["report"]) >= {"fusions", "refusals", "kernels", "memory", "cost", "passes", "notes"}
    text = command("compile", model, "-o", artifact).out
    assert "x: float32[batch, 3, 5, 7]" in text


def test_shapes(command: Command, model: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "a.fusible"
    assert command("compile", model, "-o", artifact, "--shape", "batch=3").code == 0
    assert fusible.load(artifact).inputs[0].shape == (3, 3, 5, 7)
    assert command("compile", model, "-o", artifact, "--shape", "x=2,3,5,7").code == 0
    assert fusible.load(artifact).inputs[0].shape == (2, 3, 5, 7)
    assert command("compile", model, "-o", artifact, "--shape", "batch=2:4").code == 0
    assert command("run", artifact, "--json").json["outputs"][0]["shape"][0] == 2
    for wrong in ("nothing=3", "batch", "x=2,3"):
        assert command("compile", model, "-o", artifact, "--shape", wrong).code == 2
    assert command("run", artifact, "--shape", "batch=3").code == 2


def test_dump_writes_the_graphs(command: Command, model: Path, tmp_path: Path) -> None:
    assert command("compile", model, "-o", tmp_path / "a", "--dump", tmp_path / "dump").code == 0
    names = sorted(path.name for path in (tmp_path / "dump").iterdir())
    assert names[0] == "000_import.txt"
    assert "conv" in (tmp_path / "dump" / names[0]).read_text()


def test_pass_files_disable_and_limit(command: Command, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "counted_passes.py"
    path.write_text(PASS_FILE)
    artifact = tmp_path / "a"
    facts = command("compile", model, "-o", artifact, "--passes", path, "--json").json
    assert "counted" in [row["pass"] for row in facts["report"]["passes"]]
    ran = (tmp_path / "counted_passes.log").read_text()
    words = ("compile", model, "-o", artifact, "--passes", path, "--disable", "counted", "--json")
    assert "counted" not in [row["pass"] for row in command(*words).json["report"]["passes"]]
    assert (tmp_path / "counted_passes.log").read_text() == ran
    assert command("compile", model, "-o", artifact, "--disable", "no-such-pass").code == 2
    assert command("compile", model, "-o", artifact, "--limit", "0", "--json").json["report"]["fusions"] == []
    path.write_text("x = 1\n")
    assert command("compile", model, "-o", artifact, "--passes", tmp_path / "gone.py").code == 2


def test_targets(command: Command, model: Path, tmp_path: Path) -> None:
    assert command("compile", model, "-o", tmp_path / "a", "--target", "numpy").code == 0
    result = command("compile", model, "-o", tmp_path / "a", "--target", "abacus")
    assert result.code == 2
    assert "abacus" in result.err
    assert command("run", tmp_path / "a", "--target", "numpy").code == 0
    assert command("run", tmp_path / "a", "--target", "cpu").code == 2


def test_an_unwritable_artifact(command: Command, model: Path, tmp_path: Path) -> None:
    result = command("compile", model, "-o", tmp_path / "no" / "folder" / "a")
    assert result.code == 1
    assert result.err.startswith("fusible: ArtifactError: ")


def test_the_seed_decides(command: Command, model: Path) -> None:
    runs = [command("run", model, "--json", "--seed", seed).json["outputs"] for seed in ("1", "1", "2")]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize(
    ("arrays", "code", "message"),
    [
        ({}, 1, "missing"),
        ({"x": np.zeros((1, 3, 5, 7), np.float32), "z": np.zeros(1)}, 1, "'z'"),
        ({"x": np.zeros((1, 3, 5, 7))}, 1, "float64"),
        ({"x": np.zeros((1, 2, 5, 7), np.float32)}, 1, "dimension 1"),
        ({"x": np.zeros(3, np.float32)}, 1, "rank 4"),
    ],
)
def test_inputs_that_do_not_fit(
    command: Command, model: Path, tmp_path: Path, arrays: dict[str, np.ndarray], code: int, message: str
) -> None:
    write_outputs(tmp_path / "x.npz", arrays)
    result = command("run", model, "--inputs", tmp_path / "x.npz")
    assert result.code == code
    assert message in result.err


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04broken"])
def test_inputs_that_are_no_npz(command: Command, model: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    result = command("run", model, "--inputs", tmp_path / "x.npz")
    assert result.code == 2
    assert "x.npz" in result.err


def test_a_single_array_is_no_npz(command: Command, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    assert command("run", model, "--inputs", tmp_path / "x.npy").code == 2


def test_inputs_of_unknown_rank_must_be_given(command: Command, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "unranked",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    path = tmp_path / "unranked.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    result = command("run", path)
    assert result.code == 2
    assert "--shape x=" in result.err
    assert command("run", path, "--shape", "x=2,3").code == 0


def test_export_c(command: Command, model: Path, tmp_path: Path) -> None:
    facts = command("export-c", model, "-o", tmp_path / "c", "--name", "small", "--json").json
    assert set(facts["files"]) == {"build.sh", "fusible.h", "libsmall.so", "small.h", "small.weights"}
    assert "small.weights" in command("export-c", model, "-o", tmp_path / "c", "--name", "small").out
    command("compile", model, "-o", tmp_path / "a", "--target", "numpy")
    assert command("export-c", tmp_path / "a", "-o", tmp_path / "c").code == 2
    assert command("export-c", model, "-o", tmp_path / "c", "--name", "No").code == 2
