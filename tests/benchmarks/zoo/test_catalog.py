"""The catalog: names, variants, what the cache's key covers, and what is said when a model cannot be had."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import pytest

from fusible.benchmarks.zoo import catalog, wheels
from fusible.benchmarks.zoo.architectures.table import ARCHITECTURES, EXPORTERS
from fusible.benchmarks.zoo.catalog import CatalogError, Variant, content_key, names, obtain, summary
from fusible.benchmarks.zoo.export import INPUTS_FILE, MODEL_FILE
from fusible.benchmarks.zoo.trained_inputs import input_sets
from fusible.errors import UsageError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def exports(tmp_path, monkeypatch):
    """A cache of its own, and an exporter that writes two small files and notes what it was asked for."""
    asked: list[tuple[str, str]] = []

    def export(name: str, variant: Variant, folder: Path) -> None:
        asked.append((name, variant.label))
        folder.mkdir(parents=True)
        (folder / MODEL_FILE).write_text(f"{name} {variant.label}")
        np.savez(folder / INPUTS_FILE, b=np.full(variant.batch, 2.0), a=np.ones(3))

    monkeypatch.setattr(catalog, "_run_export", export)
    monkeypatch.setattr(metadata, "version", lambda _: "1.0")
    monkeypatch.setenv("FUSIBLE_CACHE_DIR", str(tmp_path))
    return asked


def test_names_are_architectures_then_trained_models():
    assert names() == (*ARCHITECTURES, *wheels.MODELS)
    assert len(set(names())) == len(names()) >= 29
    assert all(name == name.lower() and " " not in name and "_" not in name for name in names())


def test_every_model_has_a_summary():
    assert all(summary(name) for name in names())
    assert summary("magika") == wheels.MODELS["magika"].summary


@pytest.mark.parametrize("ask", [summary, obtain])
def test_an_unknown_name_is_told_the_names(ask):
    with pytest.raises(
        UsageError, match=r"^no model is named 'resnet-19'; there are mobilenet-v2, .*flan-t5-title-enc"
    ):
        ask("resnet-19")


def test_labels_are_short():
    assert Variant().label == "default,b1"
    assert Variant("dynamo").label == "dynamo,b1"
    assert Variant("torchscript", dynamic=True, batch=4).label == "torchscript,dynamic,b4"


def test_variants_that_make_no_sense():
    with pytest.raises(UsageError, match=r"^exporter must be one of default, torchscript, dynamo, got 'onnx'$"):
        Variant("onnx")
    with pytest.raises(UsageError, match=r"^batch must be at least 1, got 0$"):
        Variant(batch=0)


def test_a_model_is_exported_once(exports, tmp_path):
    first, second = obtain("unet"), obtain("unet")
    assert exports == [("unet", f"{ARCHITECTURES['unet'].exporter},b1")]
    assert first.path == second.path and first.path.is_relative_to(tmp_path / "models" / "zoo")
    assert first.name == "unet" and first.variant == f"{ARCHITECTURES['unet'].exporter},b1"
    assert list(first.inputs) == ["b", "a"], "in the order of the signature"
    assert [path.name for path in first.path.parent.parent.iterdir()] == [first.path.parent.name], "no leftovers"


def test_the_default_exporter_is_one_of_the_two(exports):
    assert all(row.exporter in EXPORTERS for row in ARCHITECTURES.values())
    default, named = obtain("resnet-18"), obtain("resnet-18", Variant(ARCHITECTURES["resnet-18"].exporter))
    assert default.path == named.path and len(exports) == 1


def test_variants_have_folders_of_their_own(exports, tmp_path):
    variants = [
        Variant(exporter, dynamic, batch) for exporter in EXPORTERS for dynamic in (False, True) for batch in (1, 2)
    ]
    found = [obtain("unet", variant, cache=tmp_path / "elsewhere") for variant in variants]
    assert len({one.path for one in found}) == len(exports) == len(variants)
    assert [one.inputs["b"].size for one in found] == [variant.batch for variant in variants]


def test_processes_may_race(exports):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(obtain, ["unet"] * 8))
    assert len({one.path for one in found}) == 1
    assert [path.name for path in found[0].path.parent.parent.iterdir()] == [found[0].path.parent.name]


def test_a_damaged_folder_is_named(exports):
    folder = obtain("unet").path.parent
    (folder / INPUTS_FILE).unlink()
    with pytest.raises(CatalogError, match=rf"^unet cannot be kept in {folder}: .*not empty"):
        obtain("unet")


def test_a_cache_that_cannot_be_written_is_named(exports, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CatalogError, match="set FUSIBLE_CACHE_DIR to a folder that can be written"):
        obtain("unet", cache=tmp_path / "file")


def test_the_key_covers_the_sources(exports, tmp_path, monkeypatch):
    before = content_key("unet", Variant()), content_key("swin-tiny", Variant())
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "benchmarks" / "zoo", copy)
    monkeypatch.setattr(catalog, "_ZOO", copy)
    assert (content_key("unet", Variant()), content_key("swin-tiny", Variant())) == before
    (copy / "architectures" / "unet.py").write_text("# changed\n")
    assert content_key("unet", Variant()) != before[0] and content_key("swin-tiny", Variant()) == before[1]
    (copy / "export.py").write_text("# changed\n")
    assert content_key("swin-tiny", Variant()) != before[1]


def test_the_key_covers_versions_and_variants(exports, monkeypatch):
    keys = {
        content_key("unet", Variant()),
        content_key("unet", Variant(dynamic=True)),
        content_key("unet", Variant(batch=2)),
    }
    for package in ("torch", "transformers", "onnx", "onnxscript"):
        monkeypatch.setattr(metadata, "version", lambda asked, package=package: "2.0" if asked == package else "1.0")
        keys.add(content_key("unet", Variant()))
    assert len(keys) == 7


@pytest.mark.parametrize("package", ["torch", "transformers", "onnxscript"])
def test_a_missing_package_is_named(exports, monkeypatch, package):
    def version(asked: str) -> str:
        if asked == package:
            raise metadata.PackageNotFoundError(asked)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(CatalogError, match=rf"with {package}, which is not installed: pip install 'fusible\[bench\]'$"):
        obtain("unet")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("noise\nerror: torch refuses\n", "torch refuses"),
        ("Traceback\nValueError: x\n", "ValueError: x"),
        ("", "it said"),
    ],
)
def test_a_failed_export_tells_why(tmp_path, monkeypatch, said, reason):
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", said)

    monkeypatch.setattr(metadata, "version", lambda _: "1.0")
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(CatalogError, match=rf"^exporting unet \(dynamo,dynamic,b2\) failed: {reason}.*--dynamic$"):
        obtain("unet", Variant("dynamo", dynamic=True, batch=2), cache=tmp_path)
    assert list((tmp_path / "zoo").iterdir()) == []


def test_the_catalog_imports_no_torch():
    """It is imported by processes that measure."""
    code = "import sys, fusible.benchmarks.zoo.catalog; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_trained_model_has_no_exporter():
    with pytest.raises(
        UsageError, match=r"^magika is a trained model and comes as a file; it has no exporter 'dynamo'$"
    ):
        obtain("magika", Variant("dynamo"))


def _serve(monkeypatch, path: Path, **shapes: list[int | str | None]) -> None:
    """Let every trained model be a file with inputs of these shapes, the only ones that are read of it."""
    values = [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()]
    node = onnx.helper.make_node("Identity", [next(iter(shapes))], ["y"])
    result = onnx.helper.make_tensor_value_info("y", 1, None)
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", values, [result])), path)
    monkeypatch.setattr(wheels, "fetch", lambda name, *, cache: path)


def test_rows_of_a_trained_model_repeat(tmp_path, monkeypatch):
    _serve(monkeypatch, tmp_path / "m.onnx", input=[None, None], state=[2, None, 128], sr=[])
    given = input_sets("silero-vad")[0]
    one, three = (obtain("silero-vad", Variant(batch=batch)) for batch in (1, 3))
    assert (one.variant, three.variant) == ("trained,b1", "trained,b3")
    assert all(np.array_equal(one.inputs[key], given[key]) for key in given)
    assert {key: array.shape for key, array in three.inputs.items()} == {
        "input": (3, 576),
        "state": (2, 3, 128),
        "sr": (),
    }
    assert np.array_equal(three.inputs["input"][2], given["input"][0])


def test_a_fixed_batch_cannot_be_changed(tmp_path, monkeypatch):
    _serve(monkeypatch, tmp_path / "m.onnx", bytes=[1, 2048])
    with pytest.raises(UsageError, match=r"^magika has a fixed batch; it cannot be 2$"):
        obtain("magika", Variant(batch=2))


@pytest.mark.network
@pytest.mark.parametrize("name", list(wheels.MODELS))
def test_trained_models_take_any_batch(name):
    found = obtain(name, Variant(batch=5))
    assert found.variant == "trained,b5" and found.path == wheels.fetch(name)
    assert next(iter(found.inputs.values())).shape[0] == 5
