"""`fusible explain`: every section, the costliest rows first, a kernel's source, names that cannot steer a terminal."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import fusible
from tests.cli.conftest import Command
from tests.compiler.cpu.test_target import image_model
from tests.runtime import models


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return the path of a model of convolutions, pooling and a classifier."""
    onnx.save(image_model(), tmp_path / "image.onnx")
    return tmp_path / "image.onnx"


def test_every_section_is_there(command: Command, image: Path) -> None:
    text = command("explain", image).out
    for section in ("fused: 4", "kept apart: 5", "steps, by bytes moved: 5", "calls of NumPy: none", "memory plan: 3"):
        assert section in text, text
    assert "conv -> hard_swish" in text and "the value has 2 readers" in text
    saved = [line.split("  ")[0] for line in text.split("fused: 4")[1].splitlines()[2:6]]
    assert saved == ["15.0 KiB", "10.0 KiB", "10.0 KiB", "192 B"]


def test_json_has_all_of_it(command: Command, image: Path) -> None:
    facts = command("explain", image, "--json").json
    assert set(facts) >= {"fusions", "refusals", "kernels", "host", "memory", "cost", "buffers", "sources", "target"}
    assert sum(row["bytes"] for row in facts["buffers"]) >= facts["memory"]["arena_bytes"]
    assert {name for row in facts["buffers"] for name in row["values"]} >= {"a2", "b2"}


def test_the_source_of_one_kernel(command: Command, image: Path, tmp_path: Path) -> None:
    text = command("explain", image, "--kernel", "k001_conv_add").out
    assert text.startswith("struct k001_conv_add_call {") and text.rstrip().endswith("}")
    assert "EXPORT void k001_conv_add(" in text and "k000" not in text and "k002" not in text
    done = command("explain", image, "--kernel", "k999")
    assert done.code == 2 and "k001_conv_add" in done.err
    python = command("explain", image, "--target", "numpy", "--json").json["kernels"][0]["kernel"]
    assert command("explain", image, "--target", "numpy", "--kernel", python).out.startswith(f"def {python}(")
    assert command("explain", image, "--html", tmp_path / "page.html").code == 0
    assert "fuse-regions" in (tmp_path / "page.html").read_text()


def test_calls_of_numpy_have_their_reasons(command: Command, tmp_path: Path) -> None:
    fusible.compile(models.nonzero_chain(), target="cpu").save(tmp_path / "m.fusible")
    text = command("explain", tmp_path / "m.fusible").out
    assert "sizes known only when it runs" in text.split("calls of NumPy")[2]


def test_long_lists_are_cut_unless_all_is_wanted(command: Command, tmp_path: Path) -> None:
    nodes = []
    for n in range(30):  # each result is an output, so nothing fuses
        nodes.append(onnx.helper.make_node("Softmax", [f"v{n}"], [f"v{n + 1}"], name=f"s{n}\x1b[31m"))
    model = models.make(nodes, [models.value("v0", models.FLOAT, [4, 5])], [f"v{n}" for n in range(1, 31)])
    onnx.save(model, tmp_path / "long.onnx")
    short, full = (command("explain", tmp_path / "long.onnx", *more).out for more in ([], ["--all"]))
    assert "steps, by bytes moved: 30, the first 20" in short and "steps, by bytes moved: 30\n" in full
    assert "\x1b" not in short + full


def test_a_gpu_target_shows_what_its_kernels_are_like(command: Command, tmp_path: Path) -> None:
    """With no GPU: the kernel is built, its code looked at, its time predicted."""
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [512, 1024]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Softmax", ["x"], ["y"])], "g", [x], [y])
    onnx.save(onnx.helper.make_model(graph, ir_version=10), tmp_path / "m.onnx")
    text = command("explain", tmp_path / "m.onnx", "--target", "cuda:sm_90").out
    assert "H100 SXM5 (cuda:sm_90)" in text and "predicted, one CUDA graph" in text and "findings: none" in text
    (row,) = command("explain", tmp_path / "m.onnx", "--target", "cuda:sm_90", "--json").json["gpu"]["kernels"]
    assert row["spilled"] == 0 and set(row["loads"]) == set(row["stores"]) == {"128"}
    command("explain", tmp_path / "m.onnx", "--target", "cuda:sm_90", "--html", tmp_path / "page.html")
    assert "GPU: H100 SXM5, predictions" in (tmp_path / "page.html").read_text()
